"""Programs as CUDA graphs, on a stand-in for CuPy (fake_cuda.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_arrays import XP, DeviceArray, Module, become_device
from fake_cuda import Driver, install
from nets import CLASSES, chain, data, dense, every_graph, make

import convnet.backend
from convnet.backend import Backend
from convnet.layers import ReLU, SoftmaxCrossEntropy
from convnet.nn.cuda_graph import GraphError
from convnet.nn.net import Node
from convnet.nn.programs import GraphWarning
from convnet.optim.sgd import SGD
from convnet.parallel.p2p import LinkError


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, vgpu: Backend) -> Driver:
    """From now on "cuda" is the stand-in."""
    return become_device(monkeypatch, vgpu).module.driver


def losses(device: str, graph: Any, steps: int = 7, own: bool = False) -> tuple[Any, Any]:
    """`own`: a parameter has a learning rate and a momentum of its own."""
    net = make(graph, device, seed=3)
    sgd = SGD(net.params, lr=0.05)
    rng = np.random.default_rng(4)
    found = []
    for step in range(steps):
        sgd.lr = 0.05 / (1 + step)
        if own:
            net.params[1].rates.lr, net.params[1].rates.momentum = 0.03 / (1 + step), 0.5
        found.append(net.train_step(*data(rng), sgd))
    return found, net


@every_graph
@pytest.mark.parametrize("own", [False, True])
def test_a_graph_computes_what_a_host_does(graph, own, driver, monkeypatch):
    found, net = losses("cuda", graph, own=own)
    (captured,) = driver.graphs
    # The first step shows that batches come in arrays of their own, the second checks every call.
    assert captured.launches == 5
    assert net.programs.describe() == "a program for each batch size, run as CUDA graphs"
    assert driver.idle
    state = net.state()
    monkeypatch.undo()
    expected, plain = losses("vgpu", graph, own=own)
    assert found == expected
    for name, array in plain.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_capture_that_fails(driver, monkeypatch):
    driver.broken = "cudaErrorStreamCaptureInvalidated: operation failed"
    with pytest.warns(GraphWarning, match="call by call: .* not be captured: cudaError"):
        found, net = losses("cuda", chain)
    assert net.programs.describe() == "operation by operation"
    assert driver.idle
    monkeypatch.undo()
    assert found == losses("vgpu", chain)[0]


def test_force(driver):
    driver.broken = "no graphs today"
    net = make(chain, "cuda")
    net.programs.graph = "force"
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(2):  # the second shows that batches come in arrays of their own
        net.train_step(*batch, sgd)
    with pytest.raises(GraphError, match=r"step\.graph=force: .*no graphs today"):
        net.train_step(*batch, sgd)


def test_off(driver):
    net = make(chain, "cuda")
    net.programs.graph = "off"
    sgd = SGD(net.params)
    for _ in range(3):
        net.train_step(*data(np.random.default_rng(0)), sgd)
    assert not driver.graphs
    assert len(driver.made) == 2  # the default ones


class Noisy(ReLU):
    """A layer of a user's own, which does more than call operations."""

    def fprop(self, x: Any, train: bool) -> Any:
        y, saved = super().fprop(x, train)
        y.fill(0.5)
        return y, saved


def noisy() -> list[Node]:
    return [Node("fc", dense(6)), Node("own", Noisy()), Node("fc2", dense(CLASSES)),
            Node("softmax", SoftmaxCrossEntropy())]  # fmt: skip


def test_calls_of_python_stand_between_graphs(driver, monkeypatch):
    found, _ = losses("cuda", noisy)
    assert [graph.launches for graph in driver.graphs] == [5, 5, 5]
    monkeypatch.undo()
    assert found == losses("vgpu", noisy)[0]


class Sneaky(Noisy):
    traced = True


def test_the_stand_in_notices_what_is_no_operation(driver):
    """And so does a trace, before."""
    nodes = [Node("own", Sneaky()), *noisy()[2:]]
    net = make(lambda: nodes, "cuda")
    with pytest.raises(AttributeError, match="fill"):
        net.train_step(*data(np.random.default_rng(0)), SGD(net.params))


# ---- two devices --------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, vgpu: Backend) -> Driver:
    """From now on "cuda:0" and "cuda:1" are stand-ins, whose arrays do not mix."""
    devices = [
        Backend("cuda", Module(vgpu.module), XP, index)  # type: ignore[arg-type]
        for index in (0, 1)
    ]
    driver = install(monkeypatch, devices, XP, DeviceArray)

    def of(*arrays: Any) -> Backend:
        traced = [array.traced_on for array in arrays if hasattr(array, "traced_on")]
        if traced:
            return traced[0]
        found = {driver.owner(array) for array in arrays if array is not None}
        assert len(found) == 1, "arrays of two devices"
        return devices[found.pop()]

    monkeypatch.setattr(convnet.backend, "of", of)
    for device in devices:
        monkeypatch.setitem(convnet.backend._backends, device.device, device)
    monkeypatch.setenv("CONVNET_P2P_TIMEOUT", "0.2")
    return driver


@every_graph
def test_two_devices_in_one_graph(graph, pair, monkeypatch):
    """Every stream joins the capture and is joined again; nothing but operations is in it."""
    found, net = losses("cuda:0,cuda:1", graph)
    assert net.partition.links.describe() == "cuda:0 -> cuda:1 peer, cuda:1 -> cuda:0 peer"
    assert pair.graphs[-1].launches >= 3
    assert pair.idle
    state = net.state()
    monkeypatch.undo()
    expected, plain = losses("vgpu:0,vgpu:1", graph)
    assert found == expected
    for name, array in plain.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_device_that_hangs(pair):
    """The host waits no longer than it may."""
    net = make(chain, "cuda:0,cuda:1")
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(3):
        net.train_step(*batch, sgd)
    assert pair.graphs
    pair.hangs = True
    with pytest.raises(LinkError, match=r"cuda:0 did not end a step in 0\.2 s"):
        net.train_step(*batch, sgd)


def test_a_graph_whose_transfer_does_not_arrive(pair, monkeypatch):
    monkeypatch.setenv("CONVNET_P2P_CHECK", "1")
    net = make(chain, "cuda:0,cuda:1")
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(3):
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
    """Pairs without another way: calls of Python between graphs."""
    monkeypatch.setenv("CONVNET_P2P", "off")
    found, _ = losses("cuda:0,cuda:1", chain)
    monkeypatch.undo()
    assert found == losses("vgpu:0,vgpu:1", chain)[0]
