"""What a program is kept by: cheap to ask in each step, and nothing that is set is missed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from nets import IN_SHAPE, chain, data, make

import convnet.backend
from convnet import models
from convnet.nn.eager import Passes
from convnet.nn.net import Net
from convnet.optim.sgd import SGD


def traces(net: Net, sgd: SGD, batch: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many programs a step traces."""
    count, forward = 0, Passes.forward

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return forward(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Passes, "forward", counted)
        net.train_step(*batch, sgd)
    return count


@pytest.mark.parametrize("own", [False, True])
def test_a_step_that_runs_again_is_few_calls_of_python(rng: Any, own: bool) -> None:
    """Also where parameters have rates of their own."""
    net = models.fashion_mnist(device="cpu", seed=1)
    x = rng.standard_normal((4, *net.in_shape)).astype(np.float32)
    batch, sgd = (x, np.arange(4)), SGD(net.params, lr=1e-3)
    for param in net.params if own else ():
        param.rates.lr, param.rates.momentum = 2e-3, 0.5
    for _ in range(3):
        net.train_step(*batch, sgd)
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        net.train_step(*batch, sgd)
    finally:
        sys.setprofile(None)
    assert calls <= 90


def test_other_nets_do_not_matter(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = (make(chain, convnet.backend.get("cpu"), seed=3) for _ in range(2))
    batch, sgd = data(rng), SGD(mine.params, lr=0.05)
    assert traces(mine, sgd, batch, monkeypatch) == 1
    other.nodes[0].layer.pad = (1, 1)
    other.params[0].data = other.params[0].data.copy()
    other.params[0].lr_mult = 0.5
    assert traces(mine, sgd, batch, monkeypatch) == 0
    mine.nodes[0].layer.note = "anything"
    assert traces(mine, sgd, batch, monkeypatch) == 1
    mine.params[0].data = mine.params[0].data.copy()
    assert traces(mine, sgd, batch, monkeypatch) == 1


def test_rates_of_its_own_count_where_they_begin(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make(chain, convnet.backend.get("cpu"), seed=3)
    batch, sgd = data(rng), SGD(net.params, lr=0.05)
    found = []
    for lr in (None, 0.01, 0.02, None, 0.01):
        net.params[0].rates.lr = lr
        found.append(traces(net, sgd, batch, monkeypatch))
    assert found == [1, 1, 0, 0, 0]


def test_multipliers_count_by_their_values(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make(chain, convnet.backend.get("cpu"), seed=3)
    batch, sgd = data(rng), SGD(net.params, lr=0.05)
    found = []
    for mult in (1.0, 0.5, 1.0, 0.5):
        net.params[0].lr_mult = mult
        found.append(traces(net, sgd, batch, monkeypatch))
    assert found == [1, 1, 0, 0]


def test_parts_of_a_net_on_two_devices_belong_to_it(
    rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(chain(), IN_SHAPE, devices=["cpu:0", "cpu:1"], seed=3)
    batch, sgd = data(rng), SGD(net.params, lr=0.05)
    assert traces(net, sgd, batch, monkeypatch) == 1
    net.nodes[0].layer.params[0].lr_mult = 0.5  # of the whole, which its shards share
    assert traces(net, sgd, batch, monkeypatch) == 1
    net.all_nodes[-1].layer.note = "anything"
    assert traces(net, sgd, batch, monkeypatch) == 1
    net.params[0].data = net.params[0].data.copy()
    assert traces(net, sgd, batch, monkeypatch) == 1
    assert traces(net, sgd, batch, monkeypatch) == 0
