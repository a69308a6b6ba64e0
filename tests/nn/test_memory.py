"""The memory that training takes: told beforehand, and refused where there is less."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from convnet.backend import Backend
from convnet.cli.main import main
from convnet.layers import LAYER_TYPES
from convnet.models import alexnet, small
from convnet.nn import memory
from convnet.nn.memory import MemoryNeedError, available, check_fits, mib, training_memory
from convnet.nn.net import Net


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def test_a_net_of_sizes_only_has_the_figures_of_the_net() -> None:
    nets = [small(device="cpu", sizes_only=flag) for flag in (False, True)]
    assert nets[0].summary(16) == nets[1].summary(16)
    assert training_memory(nets[0], 16) == training_memory(nets[1], 16)
    assert [p.shape for p in nets[0].params] == [p.shape for p in nets[1].params]


def test_a_net_of_sizes_only_takes_no_memory() -> None:
    net = alexnet(hidden=10**6, device="cpu", sizes_only=True)  # 4 TB
    assert net.parameter_count > 10**12
    assert all(param.data.strides == (0,) * param.data.ndim for param in net.params)


def test_the_parts_of_the_papers_net() -> None:
    need = training_memory(alexnet(device="cpu", sizes_only=True), 128, 6 * 256 * 256 * 3)
    assert need.parameters == need.velocities == 4 * 60_965_224
    assert need.gradients == 0
    # Alive at once: what the first layers wrote, and their gradients. Three times conv1's output
    # and the pool's are at the end of the backward pass; workspaces come on top.
    conv1 = 4 * 128 * 290_400
    assert 2.5 * conv1 < need.activations < 3.5 * conv1
    assert need.batch == 128 * (224 * 224 * 3 * 4 + 4 + 6 * 256 * 256 * 3)
    text = (
        r"1,1\d\d MiB \(parameters 233, velocities 233, gradients 0\.0, activations .*, batch 218\)"
    )
    assert re.fullmatch(text, str(need))


def test_frozen_layers_have_no_velocity() -> None:
    net = small(device="cpu", sizes_only=True)
    net.params[0].lr_mult = 0.0
    need = training_memory(net, 1)
    assert need.velocities == need.parameters - 4 * net.params[0].size


PEAK = """
import gc, json, sys
import numpy as np
from convnet import SGD, backend
from convnet.nn.memory import training_memory
from convnet.models import MODELS

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024

name, batch, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
backend.set_threads(2)
warm = MODELS[name](device="cpu", seed=1, **options)
x = np.zeros((1, *warm.in_shape), np.float32)
warm.train_step(x, np.zeros(1, np.int32), SGD(warm.params))
del warm, x
gc.collect()  # nets are in cycles
before = status("VmRSS")
net = MODELS[name](device="cpu", seed=1, **options)
x = np.ones((batch, *net.in_shape), np.float32)
labels = np.zeros(batch, np.int32)
sgd = SGD(net.params)
for _ in range(2):
    net.train_step(x, labels, sgd)
print(training_memory(net, batch).total, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize(
    ("name", "batch", "options"),
    [
        ("small", 64, {"in_shape": [64, 64, 3]}),
        ("alexnet", 32, {"in_shape": [131, 131, 3], "hidden": 512, "width": 0.5}),
    ],
)
def test_the_real_peak_is_near(name: str, batch: int, options: dict[str, Any]) -> None:
    """What a process on the CPU comes to hold, beside what it says it will."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PEAK, name, str(batch), json.dumps(options)],
        env=tiny.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    told, real = map(int, done.stdout.split())
    assert 0.9 * real < told < 1.1 * real, (told, real)


def test_what_does_not_fit_is_refused_before_it_is_made(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny.write_config(tmp_path / "tiny.toml", data)
    words = ["train", str(config), "--device", "cpu", "--run-dir", str(tmp_path / "run"), "-q"]
    made: list[bool] = []
    original = Net.__init__

    def spy(self: Net, *arguments: Any, **options: Any) -> None:
        made.append(options["sizes_only"])
        original(self, *arguments, **options)

    monkeypatch.setattr(Net, "__init__", spy)
    monkeypatch.setattr(memory, "available", lambda backend: 4 * 2**30)
    assert main([*words, "--set", "net.layers.conv1.filters=1500000"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        rf"convnet: error: {config}: training at batch 16: needs [\d,]+ MiB \(parameters [\d,]+, "
        r"velocities .*, gradients .*, activations .*, batch .*\), "
        r"and cpu has 4,096 MiB free; try a smaller train.batch, net or image\n",
        error,
    )
    assert made == [True]
    assert main([*words, "--set", "net.layers.conv1.filters=3000000"]) == 2
    assert "at batch 16: node 'conv1': conv_fprop: y: expected fewer" in capsys.readouterr().err
    assert made == [True, True]
    assert not (tmp_path / "run").exists()

    made.clear()
    monkeypatch.setattr(memory, "available", lambda backend: 30_000)
    assert main(words) == 2
    assert ", and cpu has 0.0 MiB free; " in capsys.readouterr().err
    assert made == [True]
    monkeypatch.setattr(memory, "available", lambda backend: None)  # not known: not refused
    assert main([*words, "--epochs", "1"]) == 0


def test_a_gpu_is_asked_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, index: int) -> None:
            assert index == 1

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    runtime = SimpleNamespace(memGetInfo=lambda: (700, 1000))
    pool = SimpleNamespace(free_bytes=lambda: 50)
    xp: Any = SimpleNamespace(
        cuda=SimpleNamespace(Device=Device, runtime=runtime), get_default_memory_pool=lambda: pool
    )
    backend = Backend("cuda", xp, xp, 1)
    assert available(backend) == 750
    need = training_memory(small(device="cpu", sizes_only=True), 1)
    with pytest.raises(MemoryNeedError, match=r"and cuda:1 has 0\.0 MiB free"):
        check_fits(need, [backend], "x")


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable:     500 kB\n")
    assert memory._mem_available(meminfo) == 512_000
    meminfo.write_text("MemTotal: 900 kB\n")
    assert memory._mem_available(meminfo) is None
    assert memory._mem_available(tmp_path / "absent") is None

    assert memory._cgroup_room(tmp_path) is None
    new = tmp_path / "new"
    new.mkdir()
    (new / "memory.max").write_text("1000\n")
    (new / "memory.current").write_text("700\n")
    (new / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert memory._cgroup_room(new) == 450
    (new / "memory.max").write_text("max\n")
    assert memory._cgroup_room(new) is None
    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("1000\n")
    (old / "memory.usage_in_bytes").write_text("1200\n")
    (old / "memory.stat").write_text("cache 10\n")
    assert memory._cgroup_room(tmp_path / "old") == 0


def test_the_host_is_asked_both(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SimpleNamespace(name="cpu")
    for host, limit, room in ((9, 5, 5), (4, 5, 4), (9, None, 9), (None, None, None)):
        monkeypatch.setattr(memory, "_mem_available", lambda host=host: host)
        monkeypatch.setattr(memory, "_cgroup_room", lambda folder, limit=limit: limit)
        assert available(backend) == room  # type: ignore[arg-type]


def test_mib() -> None:
    assert [mib(size * 2**20) for size in (0, 99, 100, 2048)] == ["0.0", "99.0", "100", "2,048"]


def test_every_kind_of_layer_can_be_of_sizes_only() -> None:
    assert set(LAYER_TYPES) >= {"conv", "local", "dense"}
    for kind, options in (
        ("conv", {"filters": 4, "size": 3}),
        ("local", {"filters": 4, "size": 3}),
        ("dense", {"units": 4}),
    ):
        layer = LAYER_TYPES[kind](**options)
        layer.sizes_only = True
        layer.setup((8, 8, 2), None)
        assert all(param.data.strides == (0,) * param.data.ndim for param in layer.params)
