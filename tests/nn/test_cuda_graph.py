"""Programs as CUDA graphs: the same bits as call by call; and where none can be captured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import graphs
import numpy as np
import pytest
from nets import CLASSES, chain, data, dense, every_graph, make
from two_devices import two_of

from convnet.backend import Backend
from convnet.layers import ReLU, SoftmaxCrossEntropy
from convnet.nn.cuda_graph import GraphError
from convnet.nn.net import Node
from convnet.nn.programs import GraphWarning
from convnet.optim.sgd import SGD
from convnet.parallel.p2p import LinkError


@pytest.fixture(autouse=True)
def streams_are_left_alone(cuda: Backend) -> Iterator[None]:
    """After each test the default stream and the first device are the current ones, as before."""
    yield
    assert cuda.current_stream().ptr == 0
    assert cuda.xp.cuda.Device().id == 0


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[graphs.Graph]:
    """The graphs that the test makes."""
    return graphs.count(monkeypatch)


def losses(
    device: str, graph: Any, mode: str = "auto", steps: int = 7, own: bool = False
) -> tuple[Any, Any]:
    """The losses of so many steps with other rates and batches each, and the net; `own`: a
    parameter has a learning rate and a momentum of its own."""
    net = make(graph, device, seed=3)
    net.programs.graph = mode
    sgd = SGD(net.params, lr=0.05)
    rng = np.random.default_rng(4)
    found = []
    for step in range(steps):
        sgd.lr = 0.05 / (1 + step)
        if own:
            net.params[1].rates.lr, net.params[1].rates.momentum = 0.03 / (1 + step), 0.5
        found.append(net.train_step(*data(rng), sgd))
    return found, net


def same_state(net: Any, other: Any) -> None:
    state = net.state()
    for name, array in other.state().items():
        np.testing.assert_array_equal(array, state[name])


@every_graph
@pytest.mark.parametrize("own", [False, True])
def test_a_graph_computes_what_calls_do(graph, own, captured):
    found, net = losses("cuda", graph, own=own)
    # The first step shows that batches come in arrays of their own, the second checks every call.
    assert [each.launches for each in captured] == [5]
    assert net.programs.describe() == "a program for each batch size, run as CUDA graphs"
    expected, plain = losses("cuda", graph, "off", own=own)
    assert found == expected
    same_state(net, plain)


def test_a_capture_that_fails(monkeypatch):
    with monkeypatch.context() as patch:
        graphs.forbid(patch)
        with pytest.warns(GraphWarning, match="call by call: .* not be captured: cudaError"):
            found, net = losses("cuda", chain)
    assert net.programs.describe() == "operation by operation"
    assert found == losses("cuda", chain, "off")[0]


def test_force(monkeypatch):
    graphs.forbid(monkeypatch)
    net = make(chain, "cuda")
    net.programs.graph = "force"
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(2):  # the second shows that batches come in arrays of their own
        net.train_step(*batch, sgd)
    with pytest.raises(GraphError, match=r"step\.graph=force: .*cudaErrorStreamCapture"):
        net.train_step(*batch, sgd)


def test_off(captured, monkeypatch):
    monkeypatch.setattr(Backend, "new_stream", None)  # nobody asks for one
    losses("cuda", chain, "off", steps=3)
    assert not captured


class Noisy(ReLU):
    """A layer of a user's own, which does more than call operations."""

    def fprop(self, x: Any, train: bool) -> Any:
        y, saved = super().fprop(x, train)
        y.fill(0.5)
        return y, saved


def noisy() -> list[Node]:
    return [Node("fc", dense(6)), Node("own", Noisy()), Node("fc2", dense(CLASSES)),
            Node("softmax", SoftmaxCrossEntropy())]  # fmt: skip


def test_calls_of_python_stand_between_graphs(captured):
    found, _ = losses("cuda", noisy)
    assert [graph.launches for graph in captured] == [5, 5, 5]
    assert found == losses("cuda", noisy, "off")[0]


# ---- two devices --------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> str:
    """Two GPUs, for which nobody waits long."""
    devices = two_of("cuda")
    monkeypatch.setenv("CONVNET_P2P_TIMEOUT", "2")
    return devices


@every_graph
def test_two_devices_in_one_graph(graph, pair, captured):
    """Every stream joins the capture and is joined again; nothing but operations is in it."""
    found, net = losses(pair, graph)
    assert net.partition.links.describe() == "cuda:0 -> cuda:1 peer, cuda:1 -> cuda:0 peer"
    assert captured[-1].launches >= 3
    expected, plain = losses(pair, graph, "off")
    assert found == expected
    same_state(net, plain)


class Never:
    """An event that never happens."""

    done = False

    def __init__(self, event: Any) -> None:
        self._event, self.ptr = event, event.ptr


def test_a_device_that_hangs(pair, captured, monkeypatch):
    """The host waits no longer than it may."""
    _, net = losses(pair, chain, steps=3)
    assert captured
    monkeypatch.setattr(net.partition.links, "timeout", 0.2)
    record = Backend.record
    monkeypatch.setattr(Backend, "record", lambda *args: Never(record(*args)))
    with pytest.raises(LinkError, match=r"cuda:0 did not end a step in 0\.2 s"):
        net.train_step(*data(np.random.default_rng(0)), SGD(net.params))


def test_a_graph_whose_transfer_does_not_arrive(pair, captured, monkeypatch):
    monkeypatch.setenv("CONVNET_P2P_CHECK", "1")
    net = make(chain, pair)
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(0))
    for _ in range(2):
        net.train_step(*batch, sgd)
    assert not captured
    before = net.state()
    copy, lost = net.backends[0].module.peer_copy, []

    def losing(*args: Any) -> None:
        if lost:
            copy(*args)
        lost.append(args)

    with monkeypatch.context() as patch:
        for device in net.backends:
            patch.setattr(device.module, "peer_copy", losing)
        with pytest.raises(LinkError, match="what arrived is not what was sent"):
            net.train_step(*data(np.random.default_rng(1)), sgd)
    assert len(captured) == 1
    assert len(lost) > 1
    for name, array in net.state().items():
        np.testing.assert_array_equal(before[name], array)


def test_through_the_host(pair, captured, monkeypatch):
    """Pairs without another way: calls of Python between graphs."""
    monkeypatch.setenv("CONVNET_P2P", "off")
    found, _ = losses(pair, chain)
    assert len(captured) > 1
    assert found == losses(pair, chain, "off")[0]
