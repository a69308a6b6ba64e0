"""What changes between steps, and how many programs are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import BATCH, chain, data
from pairs import Pair, calls_of

import convnet
import convnet.backend
from convnet.nn.net import Net
from convnet.nn.programs import KEPT
from convnet.optim.sgd import SGD


def test_every_batch_size_is_kept(backend: Any, rng: Any, monkeypatch: Any) -> None:
    pair = Pair(chain, backend.name)
    for count in (BATCH, BATCH - 2, BATCH + 3):
        pair.step(*data(rng, count))
    # The largest came last and made the block anew, so that the others are bound again.
    for count in (BATCH + 3, BATCH, BATCH - 2):
        for _ in range(2):
            pair.step(*data(rng, count))
    for count in (BATCH + 3, BATCH - 2, BATCH, BATCH - 2):
        pair.again(monkeypatch, *data(rng, count))
    pair.same()


def test_few_are_kept(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    for count in range(KEPT + 4, 2, -1):
        pair.step(*data(rng, count))
        assert 1 <= len(pair.nets[0].programs._kept) <= KEPT
    pair.same()


def change_lr_mult(net: Net) -> None:
    net.params[0].lr_mult = 0.5


def freeze_some(net: Net) -> None:
    for param in net.params[:3]:
        param.lr_mult = 0.0


def change_decay(net: Net) -> None:
    net.params[2].decay_mult = 3.0


def change_dropout(net: Net) -> None:
    next(node.layer for node in net.nodes if node.name == "drop4").drop = 0.9


def replace_data(net: Net) -> None:
    net.params[4].data = net.backend.asarray(net.backend.to_host(net.params[4].data) * 2)


def write_data(net: Net) -> None:
    net.params[4].data *= 2


def load(net: Net) -> None:
    net.load_state({name: 0.9 * array for name, array in net.state().items()})


def evaluate_larger(net: Net) -> None:
    net.evaluate(*data(np.random.default_rng(0), 3 * BATCH))


def predict(net: Net) -> None:
    net.forward(data(np.random.default_rng(0))[0], "fc4")


def gradients(net: Net) -> None:
    net.gradients(*data(np.random.default_rng(0), BATCH - 1))


def change_seed_and_step(net: Net) -> None:
    net._random.seed = 99
    net.step = 1000


def move_first_case(net: Net) -> None:
    net.first_sample = 12


def keep(net: Net) -> None:
    net.keep_gradients = True


CHANGES = [
    change_lr_mult, freeze_some, change_decay, change_dropout, replace_data, write_data, load,
    evaluate_larger, predict, gradients, change_seed_and_step, move_first_case, keep,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_not_missed(backend: Any, rng: Any, change: Any) -> None:
    pair = Pair(chain, backend.name)
    for _ in range(2):
        pair.step(*data(rng))
    for net in pair.nets:
        change(net)
    for _ in range(2):
        pair.step(*data(rng))
    pair.same()


def test_another_update_rule(backend: Any, rng: Any) -> None:
    pair = Pair(chain, backend.name)
    for _ in range(2):
        pair.step(*data(rng))
    pair.sgds = [SGD(net.params, lr=0.05, momentum=0.5) for net in pair.nets]
    for _ in range(2):
        pair.step(*data(rng))
    pair.sgds[0].params.pop()
    pair.sgds[1].params.pop()
    for _ in range(2):
        pair.step(*data(rng))
    pair.same()


class Plain(SGD):
    """A rule of a user's own, which wants the gradients."""

    def update(self, state: Any = None) -> None:
        for param in self.params:
            param.data -= np.float32(self.lr) * param.grad


def test_a_rule_of_ones_own_gets_the_gradients(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    pair.sgds = [Plain(net.params) for net in pair.nets]
    assert not pair.sgds[0].usual
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()


def test_rates_of_a_parameters_own(backend: Any, rng: Any, monkeypatch: Any) -> None:
    """They come and go, change from step to step, and are part of the program."""
    pair = Pair(chain, backend.name)
    for step in range(6):
        for net in pair.nets:
            net.params[1].rates.lr = 0.01 * (step + 1) if 0 < step < 5 else None
            net.params[-2].rates.momentum = 0.25 if step > 2 else None
        pair.step(*data(rng))
    pair.again(monkeypatch, *data(rng))
    names = [name for name, _ in calls_of(pair.nets[0], sgd=pair.sgds[0])]
    assert names.count("sgd_update") == 1
    assert names.count("dense_wgrad_sgd") > 0
    pair.same()


def test_another_number_of_threads(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    try:
        for threads in (2, 1, 2):
            convnet.backend.set_threads(threads)
            for _ in range(2):
                pair.step(*data(rng))
    finally:
        convnet.backend.set_threads(0)
    pair.same()
