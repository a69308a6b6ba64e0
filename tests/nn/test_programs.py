"""Nets as programs: the same bits as layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from nets import CLASSES, chain, data, dense, every_graph, make
from pairs import Pair

import convnet
import convnet.backend
from convnet import ops
from convnet.layers import Dropout, ReLU, SoftmaxCrossEntropy, Sum, Tanh
from convnet.nn.gradcheck import gradcheck
from convnet.nn.net import Node
from convnet.nn.program import Program
from convnet.nn.programs import Programs


def two_devices() -> Any:
    try:
        return convnet.backend.get_all("vgpu:0,vgpu:1")
    except convnet.DeviceError as error:
        pytest.skip(str(error))


@every_graph
def test_steps(backend: Any, rng: Any, monkeypatch: Any, graph: Any) -> None:
    pair = Pair(graph, backend.name)
    for step in range(3):
        pair.step(*data(rng), lr=0.05 / (1 + step))
    for step in range(3):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()


@every_graph
@pytest.mark.parametrize("kind", ["vgpu", "cpu"])
def test_two_devices(rng: Any, monkeypatch: Any, graph: Any, kind: str) -> None:
    devices = two_devices() if kind == "vgpu" else ["cpu:0", "cpu:1"]
    pair = Pair(graph, devices)
    for _ in range(3):
        pair.step(*data(rng))
    for step in range(3):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()


@every_graph
def test_gradients_losses_outputs(backend: Any, rng: Any, graph: Any) -> None:
    x, labels = data(rng)
    net, plain = (make(graph, backend, seed=3, trace=trace) for trace in (True, False))
    host = backend.to_host
    assert net.gradients(x, labels) == plain.gradients(x, labels)
    for mine, theirs in zip(net.params, plain.params, strict=True):
        np.testing.assert_array_equal(host(mine.grad), host(theirs.grad), err_msg=mine.name)
    assert net.training_loss(x, labels) == plain.training_loss(x, labels)
    for mine, theirs in zip(net.evaluate(x, labels), plain.evaluate(x, labels), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name in net.shapes:
        np.testing.assert_array_equal(net.forward(x, name), plain.forward(x, name), err_msg=name)


@every_graph
@pytest.mark.parametrize("trace", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_gradients_against_differences_of_the_loss(
    graph: Any, trace: bool, backend: Any, rng: Any
) -> None:
    net = make(graph, backend, seed=3, trace=trace)
    rows = gradcheck(net, *data(rng), samples=3)
    assert [row.parameter for row in rows] == [param.name for param in net.params]
    assert all(row.ok for row in rows), rows
    assert all(row.judged >= 2 for row in rows), rows


def dropouts() -> list[Node]:
    """Dropout over dropout, over an activation that is no ReLU, and over what others read."""
    return [
        Node("fc1", dense(14, relu=True)),
        Node("drop1", Dropout(0.3, "inverted")),
        Node("again1", Dropout(0.2)),
        Node("fc2", dense(9)),
        Node("tanh2", Tanh()),
        Node("drop2", Dropout(0.4)),
        Node("fc3", dense(9, relu=True)),
        Node("drop3", Dropout(0.4)),
        Node("fc4", dense(9), "fc3"),
        Node("join", Sum(), ("drop3", "fc4")),
        Node("relu5", ReLU()),
        Node("drop5", Dropout(0.3, "inverted")),
        Node("fc6", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def test_dropouts(backend: Any, rng: Any) -> None:
    pair = Pair(dropouts, backend.name)
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()
    assert all(row.ok for row in gradcheck(pair.nets[0], *data(rng), samples=3))


def test_masks_differ_from_step_to_step(backend: Any, rng: Any) -> None:
    """The same batch and no learning give other losses."""
    pair = Pair(chain, backend.name)
    batch = data(rng)
    losses = set()
    for _ in range(5):
        pair.step(*batch, lr=0.0)
        losses.add(pair.nets[0].training_loss(*batch))
    assert len(losses) == 5


def lines(capsys: Any, folder: Path, run_dir: Path, **changes: Any) -> Any:
    """What a short run prints of its steps, and its last weights."""
    cfg = tiny.config(folder, train={"epochs": 1}, **changes)
    result = convnet.train(cfg, device="cpu", run_dir=run_dir)
    out = capsys.readouterr().out
    return [line for line in out.splitlines() if line.startswith("step  ")], result.net.state()


def test_a_run_says_how_its_steps_run(tmp_path: Path, capsys: Any) -> None:
    folder = tiny.write_data(tmp_path / "data")
    found, state = lines(capsys, folder, tmp_path / "fused")
    assert found == ["step      a program for each batch size, run in C++"]
    _, kept = lines(capsys, folder, tmp_path / "kept", step={"keep_gradients": True})
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name])
    with pytest.raises(convnet.ConfigError, match=r"step\.graph"):
        convnet.train(tiny.config(folder, step={"graph": "maybe"}))


def test_a_run_traces_once(tmp_path: Path, monkeypatch: Any) -> None:
    """Validation between its epochs, checkpoints and logging leave the programs be."""
    traced: list[Program] = []
    end = Programs._end

    def spy(self: Programs, given: Any) -> Any:
        if self.net.sizes_only is False:
            traced.append(given)
        return end(self, given)

    monkeypatch.setattr(Programs, "_end", spy)
    cfg = tiny.config(
        tiny.write_data(tmp_path / "data"), train={"epochs": 3, "checkpoint_steps": 4}
    )
    convnet.train(cfg, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert len(traced) <= 3  # a step, and validation with a whole and with the last batch


def test_ops_are_as_ever_outside_a_trace(rng: Any) -> None:
    x = rng.standard_normal((2, 5)).astype(np.float32)
    np.testing.assert_array_equal(ops.relu_fprop(x), np.maximum(x, 0))
