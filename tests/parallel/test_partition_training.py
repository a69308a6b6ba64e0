"""On two devices: frozen layers, update ratios, first weights, and the memory that it all takes."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from nets import BATCH, CLASSES, GRAPHS, chain, data, dense, make, train
from two_devices import (
    TRAINING_BOUND,
    TWO,
    assert_close,
    flattened,
    parameters,
    transfers,
    uneven,
)

import convnet
from convnet import models
from convnet.cli.main import main
from convnet.layers import SoftmaxCrossEntropy, Sum
from convnet.nn import memory
from convnet.nn.memory import Memory, checked, device_memory, training_memory
from convnet.nn.net import Node
from convnet.training.checkpoint import read
from convnet.training.update_ratios import update_ratios

every_graph = pytest.mark.parametrize("graph", [*GRAPHS, uneven, flattened])


def freeze(net, names, factor=0.0):
    for node in net.nodes:
        if node.name in names:
            for param in node.layer.params:
                param.lr_mult = factor


def owners(net):
    return [node.name for node in net.nodes if node.layer.params and node.share is None]


# ---- frozen layers ------------------------------------------------------------------------------


@every_graph
@pytest.mark.parametrize("trace", [True, False])
def test_frozen_layers_train_as_on_one_device(graph, trace, rng):
    x, labels = data(rng)
    names = owners(make(graph))
    for frozen in (names[:1], names[1:-1], names):
        one, both = (make(graph, device, seed=3, trace=trace) for device in ("cpu", TWO))
        before = both.state()
        for net in (one, both):
            freeze(net, frozen)
        losses = train(one, x, labels, lr=0.02)
        assert train(both, x, labels, lr=0.02) == pytest.approx(losses, rel=1e-5)
        assert_close(parameters(both), parameters(one), TRAINING_BOUND)
        for name, array in both.state().items():
            if name.split(".")[0] in frozen:
                np.testing.assert_array_equal(array, before[name], err_msg=name)
        still = [param for param in both.params if param.name.split(".")[0] in frozen]
        assert all(param.lr_mult == 0.0 for param in still)
        assert all(not param.has_velocity for param in still)


def test_what_is_frozen_may_change(rng):
    """Also by a part: both have the multipliers of the whole."""
    x, labels = data(rng)
    one, both = (make(chain, device, seed=3) for device in ("cpu", TWO))
    for frozen in (["conv1", "conv2"], ["fc4"], []):
        for net in (one, both):
            freeze(net, owners(net), 1.0)
        freeze(one, frozen)
        for param in both.params:
            if param.name.split(".")[0] in frozen and param.name.endswith("@1"):
                param.lr_mult = 0.0
        assert sum(p.lr_mult == 0.0 for p in both.params) == 4 * len(frozen)
        train(one, x, labels, steps=2, lr=0.02)
        train(both, x, labels, steps=2, lr=0.02)
        assert_close(parameters(both), parameters(one), TRAINING_BOUND)


def test_gradients_that_nobody_wants_do_not_travel():
    net = make(chain, TWO)
    every = net.partition.moved(BATCH)
    assert sum(size for _, size in transfers(net, BATCH)) == every
    freeze(net, ["conv1", "conv2"])
    left = transfers(net, BATCH)
    assert sum(size for _, size in left) == net.partition.moved(BATCH) < every
    names = [net.partition.origin[name] for name, _ in left]
    assert names.count("relu2") == 2  # forward only
    assert names.count("drop4") == 4


@every_graph
def test_update_ratios_are_those_of_one_device(graph, rng):
    one, both = (make(graph, device, seed=3) for device in ("cpu", TWO))
    assert update_ratios(both) == {}
    for net in (one, both):
        freeze(net, owners(net)[:1])
        train(net, *data(np.random.default_rng(1)), steps=2, lr=0.02)
    found = update_ratios(both)
    assert list(found) == owners(both)[1:]
    assert found == pytest.approx(update_ratios(one), rel=1e-4)


# ---- states -------------------------------------------------------------------------------------


def test_states_are_not_copied_where_they_need_not_be(rng):
    both = make(uneven, TWO)
    train(both, *data(rng), steps=1)
    by_name = {param.name: param for param in both.params}
    held = both.state(copy=False)
    for key, array in (("one.w", "data"), ("one.w:velocity", "velocity")):  # one filter: one part
        assert np.shares_memory(held[key], getattr(by_name["one.w@1"], array))
    copied = both.state()
    assert copied.keys() == held.keys()
    for name, array in copied.items():
        np.testing.assert_array_equal(array, held[name])
        assert type(array) is np.ndarray
        assert not any(np.shares_memory(array, param.data) for param in both.params)


@pytest.mark.parametrize(("first", "second"), [("cpu", TWO), (TWO, "cpu"), (TWO, TWO)])
def test_first_weights(tmp_path, first, second):
    folder = tiny.write_data(tmp_path / "data")
    cfg = tiny.config(folder)
    source = tmp_path / "source"
    convnet.train(cfg, device=first, epochs=1, run_dir=source, quiet=True)
    layers = [dict(layer) for layer in cfg["net"]["layers"]]
    layers[4:4] = [{"name": "fc1", "type": "dense", "units": 6, "init": "xavier"}]
    net = {"layers": layers, "lr_mult": {"conv1": 0}}
    result = convnet.train(
        tiny.config(folder, net=net), device=second, epochs=1, run_dir=tmp_path / "run",
        init=source, quiet=True,
    )  # fmt: skip
    held = read(source / "checkpoints" / "best.safetensors").arrays
    for name in ("conv1.w", "conv1.b"):
        np.testing.assert_array_equal(result.net.state()[name], held[name])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "step 10: took conv1\n" in log
    assert "fc1 (no such layer there), fc2 (w is 10x6 here, 10x128 there)\n" in log
    assert "rates     conv1 frozen\n" in log
    assert result.final is not None
    assert list(result.final["update_ratio"]) == ["fc1", "fc2"]


# ---- memory -------------------------------------------------------------------------------------


def read_elsewhere():
    """A value that is read twice where it is, and then once on the other device."""
    return [
        Node("fc", dense(CLASSES)),
        Node("twice", Sum(), ("fc", "fc")),
        Node("fc2", dense(CLASSES)),
        Node("first", SoftmaxCrossEntropy(coeff=0.5)),
        Node("second", SoftmaxCrossEntropy(), "fc"),
    ]


@pytest.mark.parametrize("graph", [*GRAPHS, uneven, flattened, read_elsewhere])
def test_memory_of_each_device_is_what_training_takes(graph, rng):
    for count in (0, 1, 2):
        net = make(graph, TWO)
        freeze(net, owners(net)[:count])
        needs = device_memory(net, BATCH)
        train(net, *data(rng), steps=2)
        net.evaluate(*data(rng))
        for need, device, block in zip(needs, net.backends, net.programs._blocks, strict=True):
            mine = [param for param in net.params if param.data.owner is device]
            assert need.activations == block.nbytes
            assert need.parameters == sum(param.data.nbytes for param in mine)
            assert need.velocities == sum(p.velocity.nbytes for p in mine if p.has_velocity)
            assert need.gradients == 0
        total = training_memory(net, BATCH)
        assert total.total == sum(need.total for need in needs) == net.memory_bytes(BATCH)
        assert [need.batch > 0 for need in needs] == [True, False]


def test_sizes_only_on_two_devices():
    nets = [models.small(device=TWO, sizes_only=flag) for flag in (False, True)]
    assert nets[0].summary(16) == nets[1].summary(16)
    assert device_memory(nets[0], 16) == device_memory(nets[1], 16)
    large = models.alexnet(hidden=10**6, device=TWO, sizes_only=True)  # 4 TB
    assert large.parameter_count > 10**12
    assert all(param.data.strides == (0,) * param.data.ndim for param in large.params)


def test_the_papers_net_is_halved():
    one = models.alexnet(device="cpu", sizes_only=True)
    both = models.alexnet(device=TWO, sizes_only=True)
    needs = device_memory(both, 128)
    assert [need.parameters for need in needs] == [2 * 60_965_224] * 2
    assert training_memory(both, 128).parameters == training_memory(one, 128).parameters
    # what is gathered is there twice, and the input is on the first device
    assert 0.5 < needs[1].total / training_memory(one, 128).total < 0.62


def test_the_memory_of_a_run_on_two_devices(tmp_path, monkeypatch, capsys):
    config = tiny.write_config(tmp_path / "tiny.toml", tiny.write_data(tmp_path / "data"))
    words = ["train", str(config), "--device", TWO, "--run-dir", str(tmp_path / "run")]
    words += ["--epochs", "1"]
    monkeypatch.setattr(memory, "available", lambda backend: 2**31)
    assert main([*words, "--set", "net.layers.conv1.filters=1500000"]) == 2
    assert re.search(
        r"tiny.toml: training at batch 16: needs [\d,]+ MiB \(parameters .*\), "
        r"and cpu:0 and cpu:1 have 2,048 MiB free; try a smaller train.batch, net or image\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("memory"))
    assert lines[at].endswith(") to train at batch 16; 2,048 MiB are free")
    assert re.fullmatch(r" {10}0\.\d MiB on cpu:0", lines[at + 1])
    assert re.fullmatch(r" {10}0\.\d MiB on cpu:1", lines[at + 2])


def test_two_gpus_have_each_their_own_memory(monkeypatch):
    """Sizes as on two logical devices; what is free is played."""
    net = make(chain, TWO, sizes_only=True)
    needs = device_memory(net, BATCH)
    gpus = [SimpleNamespace(name="cuda", device=f"cuda:{number}") for number in range(2)]
    monkeypatch.setattr(memory, "device_memory", lambda *arguments: needs)
    played = SimpleNamespace(backends=gpus, backend=gpus[0])
    room = {"cuda:0": needs[0].total, "cuda:1": 300 * 2**20}
    monkeypatch.setattr(memory, "available", lambda gpu: room[gpu.device])
    first, *rest = checked(played, BATCH, 0, "x").lines(BATCH)
    assert first.endswith("to train at batch 6")
    assert [line.partition(" MiB on ")[2] for line in rest] == [
        f"cuda:0; {memory.mib(needs[0].total)} MiB are free",
        "cuda:1; 300 MiB are free",
    ]
    room["cuda:1"] = needs[1].total - 1
    with pytest.raises(memory.MemoryNeedError, match=r"MiB on cuda:0 and cuda:1\): .* and cuda:1"):
        checked(played, BATCH, 0, "x")


def test_processes_share_the_memory_of_the_host(monkeypatch):
    net = make(chain, sizes_only=True)
    need = training_memory(net, BATCH)
    summed = Memory(**{**vars(need), "gradients": need.gradients + need.velocities})
    monkeypatch.setattr(memory, "available", lambda backend: 4 * summed.total)
    fit = checked(net, BATCH, 0, "x", processes=4, summed=True)
    assert fit.needs == (summed,)
    assert f"at batch 24 in each of 4 processes; {memory.mib(summed.total)}" in fit.lines(24, 4)[0]
    with pytest.raises(memory.MemoryNeedError, match=r"in each process, and cpu has .* for each"):
        checked(net, BATCH, 0, "x", processes=5, summed=True)
