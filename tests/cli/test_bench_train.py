"""`convnet bench train`: the speed of training steps, and where they spend their time."""

from __future__ import annotations

import json

import numpy as np
import pytest

from convnet import backend as backends
from convnet.cli import bench_train
from convnet.cli.main import main
from convnet.config import load_config

NET = {
    "data": {"source": "fashion-mnist"},
    "net": {
        "layers": [
            {"type": "conv", "name": "conv1", "filters": 4, "size": 3, "stride": 2},
            {"type": "relu", "name": "relu1"},
            {"type": "dense", "name": "fc", "units": 10},
            {"type": "softmax_cross_entropy", "name": "loss"},
        ]
    },
    "train": {"batch": 16},
}


def words(tmp_path, *more: str) -> list[str]:
    config = load_config(NET)
    path = tmp_path / "net.toml"
    path.write_text(config.to_toml())
    return ["bench", "train", str(path), "--device", "cpu", "--seconds", "0.02", *more]


def test_every_batch_on_every_number_of_threads(tmp_path, capsys):
    before = backends.get("cpu").module.thread_count()
    assert main(words(tmp_path, "--batch", "1,8", "--threads", "1,2", "--json")) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["threads"], step["batch"]) for step in steps] == [(1, 1), (1, 8), (2, 1), (2, 8)]
    for step in steps:
        assert step["steps"] >= 3
        assert step["images_per_s"] == pytest.approx(1e3 * step["batch"] / step["ms"])
    assert steps[1]["memory"] > steps[0]["memory"]
    assert steps[3]["memory"] > steps[2]["memory"]
    assert backends.get("cpu").module.thread_count() == before


def test_the_table(tmp_path, capsys):
    assert main(words(tmp_path)) == 0
    device, _, heading, row = capsys.readouterr().out.splitlines()
    assert device.startswith("device  cpu")
    assert heading.split() == ["batch", "threads", "ms/step", "images/s", "GFLOP/s", "MiB"]
    assert row.split()[0] == "16"


def test_profile_names_every_node_and_adds_up(monkeypatch):
    clock = iter(np.arange(10000.0))  # every look at it is a second later
    monkeypatch.setattr(bench_train.time, "perf_counter", lambda: float(next(clock)))
    lines = bench_train.profile(load_config(NET), "cpu", steps=3)
    assert [line.node for line in lines] == ["conv1", "relu1", "fc", "loss", "update", "other"]
    by_name = {line.node: line for line in lines}
    # One look before and one after each call: forward once; backward and what it finishes.
    assert by_name["conv1"].forward_ms == by_name["fc"].forward_ms == 1000
    assert by_name["fc"].backward_ms == 2000
    assert by_name["update"].ms == 1000
    assert by_name["other"].ms == 0  # by this clock a whole step takes a second too
    macs = 13 * 13 * 4 * 9
    conv1 = by_name["conv1"]
    assert conv1.gflops == pytest.approx(6 * macs * 16 / (conv1.ms * 1e6))
    assert by_name["loss"].gflops == 0


def test_a_net_is_as_before_when_its_profile_has_been_taken(tmp_path, capsys):
    lines = bench_train.profile(load_config(NET), "cpu", steps=1)
    text = bench_train.profile_table(lines)
    assert text.splitlines()[0].split() == [
        "node", "type", "forward", "ms", "backward", "ms", "share", "GFLOP/s",
    ]  # fmt: skip
    shares = [float(line.split(" %")[0].split()[-1]) for line in text.splitlines() if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert main(words(tmp_path, "--profile")) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("conv1", "other", "total"))
    assert main(words(tmp_path, "--profile", "--batch", "4", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["batch"] == 4
    assert [node["node"] for node in said["nodes"]][-2:] == ["update", "other"]


def test_a_net_whose_steps_would_be_captured():
    lines = bench_train.profile(load_config("fashion-mnist"), "cpu", batch=8, steps=7)
    by_name = {line.node: line for line in lines}
    assert all(by_name[name].forward_ms > 0 for name in ("conv1", "pool1", "fc5", "softmax"))
    assert all(by_name[name].backward_ms > 0 for name in ("conv1", "pool1", "fc5", "update"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--profile", "--batch", "1,2"], "--profile: expected one --batch and no --threads"),
        (["--profile", "--threads", "1"], "--profile: expected one --batch and no --threads"),
        (["--batch", "0"], "expected a whole number from 1 to 65536"),
        (["--seconds", "-1"], "expected a number above 0"),
        (["--threads", "many"], "expected a whole number"),
    ],
)
def test_bad_input(more, expected, tmp_path, capsys):
    arguments = words(tmp_path, *more)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert expected in capsys.readouterr().err


def test_only_the_cpu_has_numbers_of_threads(backend):
    if backend.name == "cpu":
        bench_train.bench_train(load_config(NET), "cpu", threads=[1], batches=[1], seconds=0.01)
        return
    with pytest.raises(ValueError, match="--threads: expected the device cpu, got "):
        bench_train.bench_train(load_config(NET), backend.device, threads=[1])
