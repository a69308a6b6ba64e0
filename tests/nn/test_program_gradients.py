"""Gradients that programs leave, and inputs, which they only read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import CLASSES, IN_SHAPE, chain, data, dense, make
from pairs import Pair, freeze

from convnet.layers import Dropout, Flatten, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD


def test_gradients_are_there_where_they_are_asked_for(backend: Any, rng: Any) -> None:
    net = make(chain, backend)
    sgd, batch = SGD(net.params), data(rng)
    assert all(param.grad is None for param in net.params)
    net.train_step(*batch, sgd)
    assert all(param.grad is None for param in net.params)
    net.gradients(*batch)
    assert all(param.grad.shape == param.shape for param in net.params)
    net.train_step(*batch, sgd)
    assert all(param.grad is None for param in net.params)
    with pytest.raises(RuntimeError, match=r"conv1\.w: there is no gradient: Net\.gradients"):
        sgd.update()
    net.keep_gradients = True
    net.train_step(*batch, sgd)
    kept = [np.array(backend.to_host(param.grad)) for param in net.params]
    assert all(array.any() for array in kept)
    with pytest.raises(ValueError, match="keep_gradients: expected true or false, got 1"):
        net.keep_gradients = 1  # type: ignore[assignment]


def test_gradients_of_frozen_parameters_are_zero(backend: Any, rng: Any) -> None:
    net = make(chain, backend)
    net.gradients(*data(rng))
    freeze(net, ["conv2"])
    net.gradients(*data(rng))
    for param in net.params:
        grad = backend.to_host(param.grad)
        assert grad.any() != param.name.startswith("conv2"), param.name


def test_what_is_fed_is_not_written_to(backend: Any, rng: Any) -> None:
    """Whether a program reads a caller's array itself, because it comes again, or a copy."""
    pair = Pair(chain, backend.name)
    x, labels = data(rng)
    other, other_labels = data(rng)
    copies = [array.copy() for array in (x, labels, other, other_labels)]
    for _ in range(3):
        pair.step(x, labels)
    for _ in range(3):
        pair.step(other, other_labels)
    x *= 0.5  # written by its owner, as a loader does
    pair.step(x, labels)
    x *= 2.0
    for array, copy in zip((x, labels, other, other_labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    pair.same()


def test_the_input_is_never_written_in_place(backend: Any, rng: Any) -> None:
    x, labels = data(rng)
    x = np.abs(x)
    before = x.copy()
    nodes = [
        Node("flat", Flatten()),
        Node("relu", ReLU()),
        Node("drop", Dropout(0.5)),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    net = Net(nodes, IN_SHAPE, device=backend)
    given = backend.asarray(x)
    for _ in range(3):
        net.train_step(given, labels, SGD(net.params))
    net.predict(given)
    np.testing.assert_array_equal(backend.to_host(given), before)


def test_bad_input_is_refused_as_ever(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    pair.step(*data(rng))
    x, labels = data(rng)
    for wrong in ((x.astype(np.float64), labels), (x, labels + CLASSES), (x[:, :-1], labels)):
        with pytest.raises(ValueError, match="expected"):
            pair.nets[0].train_step(*wrong, pair.sgds[0])
    pair.step(x, labels)
    pair.same()
