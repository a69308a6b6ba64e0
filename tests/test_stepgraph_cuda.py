"""The step as a CUDA graph, on a stand-in for CuPy (fake_cuda.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import Driver
from nets import chain, data, every_graph, make
from test_device_arrays import become_device, emulator

from convnet.backend import Backend
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
    assert driver.current is driver.default
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
    assert driver.current is driver.default
    monkeypatch.undo()
    assert found == losses("emulator", chain)[0]


def test_a_capture_that_fails_in_the_middle(driver, monkeypatch):
    plain = SGD.update

    def update(self: SGD, state: Any = None) -> None:
        if driver.calls is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")
        plain(self, state)

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
    assert driver.streams == 0


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
