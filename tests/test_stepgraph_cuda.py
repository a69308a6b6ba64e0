"""The step as a CUDA graph, on a stand-in for CuPy (fake_cuda.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import Driver, install
from nets import chain, data, every_graph, make
from test_device_arrays import XP, DeviceArray, Module, become_device, emulator

import convnet.backend
from convnet.backend import Backend
from convnet.links import LinkError
from convnet.sgd import SGD
from convnet.stepgraph import StepGraphError, StepGraphWarning

__all__ = ["emulator"]  # a fixture


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, emulator: Backend) -> Driver:
    """From now on "cuda" is the stand-in."""
    return become_device(monkeypatch, emulator).module.driver


def losses(device: str, graph: Any, steps: int = 7, **options: Any) -> tuple[Any, Any]:
    net = make(graph, device, seed=3, **options)
    sgd = SGD(net.params, lr=0.05)
    rng = np.random.default_rng(4)
    found = []
    for step in range(steps):
        sgd.lr = 0.05 / (1 + step)
        found.append(net.train_step(*data(rng), sgd))
    return found, net


@every_graph
def test_a_graph_computes_what_plain_steps_do(graph, driver, monkeypatch):
    found, net = losses("cuda", graph)
    (captured,) = driver.graphs
    assert captured.launches == 6  # all but the first step
    assert net.step_graph.describe() == "captured, one CUDA graph for each batch size"
    assert driver.idle
    state = net.state()
    monkeypatch.undo()
    expected, plain = losses("emulator", graph)
    assert found == expected
    for name, array in plain.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_capture_that_fails(driver, monkeypatch):
    driver.broken = "cudaErrorStreamCaptureInvalidated: operation failed"
    with pytest.warns(StepGraphWarning, match="plain launches: .* not be captured: cudaError"):
        found, net = losses("cuda", chain)
    assert "cudaErrorStreamCaptureInvalidated" in net.step_graph.describe()
    assert driver.idle
    monkeypatch.undo()
    assert found == losses("emulator", chain)[0]


def test_a_capture_that_fails_in_the_middle(driver, monkeypatch):
    plain = SGD.update

    def update(self: SGD, *args: Any) -> None:
        if driver.calls is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")
        plain(self, *args)

    monkeypatch.setattr(SGD, "update", update)
    with pytest.warns(StepGraphWarning, match="cudaErrorStreamCaptureUnsupported"):
        found, _ = losses("cuda", chain)
    monkeypatch.undo()
    assert found == losses("emulator", chain)[0]


def test_force(driver):
    driver.broken = "no graphs today"
    net = make(chain, "cuda")
    net.step_graph.mode = "force"
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    net.train_step(*batch, sgd)
    with pytest.raises(StepGraphError, match=r"step\.graph=force: .*no graphs today"):
        net.train_step(*batch, sgd)


def test_off(driver):
    net = make(chain, "cuda")
    net.step_graph.mode = "off"
    sgd = SGD(net.params)
    for _ in range(3):
        net.train_step(*data(np.random.default_rng(0)), sgd)
    assert not driver.graphs
    assert len(driver.made) == 2  # the default ones


def test_the_stand_in_notices_what_is_no_operation(driver):
    net = make(chain, "cuda")
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    net.train_step(*batch, sgd)
    forward = net._forward

    def stray(*args: Any, **options: Any) -> None:
        forward(*args, **options)
        net.params[0].grad.fill(0)

    net._forward = stray
    with pytest.raises(AssertionError, match="fill in a capture"):
        net.train_step(*batch, sgd)


# ---- two devices --------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, emulator: Backend) -> Driver:
    """From now on "cuda:0" and "cuda:1" are stand-ins, whose arrays do not mix."""
    devices = [
        Backend("cuda", Module(emulator.module), XP, index)  # type: ignore[arg-type]
        for index in (0, 1)
    ]
    driver = install(monkeypatch, devices, XP, DeviceArray)

    def of(*arrays: Any) -> Backend:
        found = {driver.owner(array) for array in arrays if array is not None}
        assert len(found) == 1, "arrays of two devices"
        return devices[found.pop()]

    monkeypatch.setattr(convnet.backend, "of", of)
    for device in devices:
        monkeypatch.setitem(convnet.backend._backends, device.device, device)
    monkeypatch.setenv("CONVNET_P2P_TIMEOUT", "0.2")
    return driver


@every_graph
@pytest.mark.parametrize("slices", [1, 4])
def test_two_devices_in_one_graph(graph, slices, pair, monkeypatch):
    """Every stream joins the capture and is joined again; nothing but operations is in it."""
    monkeypatch.setattr("convnet.gather.SLICE_BYTES", 1)
    monkeypatch.setattr("convnet.gather.MOST_SLICES", slices)
    found, net = losses("cuda:0,cuda:1", graph)
    assert net.partition.links.describe() == "cuda:0 -> cuda:1 peer, cuda:1 -> cuda:0 peer"
    assert net.step_graph.problem is None
    assert pair.graphs[-1].launches >= 3
    assert pair.idle
    state = net.state()
    monkeypatch.undo()
    expected, plain = losses("emulator:0,emulator:1", graph)
    assert found == expected
    for name, array in plain.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_pair_of_devices_that_hangs(pair):
    """Before a graph, and in one: the host waits no longer than it may."""
    net = make(chain, "cuda:0,cuda:1")
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    pair.hangs = True
    with pytest.raises(
        LinkError, match=r"cuda:0 -> cuda:1: transfer 1 \(input\) failed: no signal"
    ):
        net.train_step(*batch, sgd)
    pair.hangs = False
    net = make(chain, "cuda:0,cuda:1")
    sgd = SGD(net.params)
    for _ in range(5):
        net.train_step(*batch, sgd)
    assert pair.graphs
    pair.hangs = True
    with pytest.raises(LinkError, match=r"a step failed: cuda:0 did not end it in 0\.2 s"):
        net.train_step(*batch, sgd)
    with pytest.raises(LinkError, match="cuda:0 -> cuda:1"):
        net.train_step(*batch, sgd)


def test_a_graph_whose_transfer_does_not_arrive(pair):
    net = make(chain, "cuda:0,cuda:1")
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(5):
        net.train_step(*batch, sgd)
    before = net.state()
    calls = pair.graphs[-1].calls
    copies = [index for index, (function, args) in enumerate(calls) if len(args) == 8]
    del calls[copies[0]]
    with pytest.raises(LinkError, match="what arrived is not what was sent"):
        net.train_step(*data(np.random.default_rng(1)), sgd)
    for name, array in net.state().items():
        np.testing.assert_array_equal(before[name], array)


def test_through_the_host(pair, monkeypatch):
    """Pairs without another way: checked by the host, and not captured."""
    monkeypatch.setenv("CONVNET_P2P", "off")
    found, net = losses("cuda:0,cuda:1", chain)
    assert "the host has a part" in net.step_graph.problem
    monkeypatch.undo()
    assert found == losses("emulator:0,emulator:1", chain)[0]
