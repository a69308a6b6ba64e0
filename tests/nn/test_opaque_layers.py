"""Layers of one's own, which programs cannot look into."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from nets import CLASSES, IN_SHAPE, data, dense
from pairs import Pair, calls_of

from convnet import layers
from convnet.layers import Dense, Dropout, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.nn.trace import TraceError


class Doubled(ReLU):
    """A layer of a user's own, which does something that is no operation of convnet."""

    def fprop(self, x: Any, train: bool) -> Any:
        y, saved = super().fprop(x, train)
        return y * np.float32(2), saved

    def bprop(self, saved: Any, dy: Any) -> Any:
        return super().bprop(saved, dy * np.float32(2))


class OwnDense(Dense):
    """A layer of a user's own that only calls operations, and says so."""

    traced = True


def own_layers() -> list[Node]:
    return [
        Node("fc1", OwnDense(8, init="he")),
        Node("own", Doubled()),
        Node("drop", Dropout(0.3)),
        Node("fc2", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def test_layers_of_ones_own_are_calls_of_python(backend: Any, rng: Any) -> None:
    pair = Pair(own_layers, backend.name)
    for _ in range(4):
        pair.step(*data(rng))
    pair.same()
    assert [name for name, nodes in calls_of(pair.nets[0]) if "own" in nodes] == ["fprop", "bprop"]
    x, _ = data(rng)
    for name in pair.nets[0].shapes:
        one, other = (net.forward(x, name) for net in pair.nets)
        np.testing.assert_array_equal(one, other)


class Wrong(ReLU):
    traced = True

    def fprop(self, x: Any, train: bool) -> Any:
        return (x * 2 if train else x), x


def test_a_layer_that_says_it_can_be_traced_and_cannot() -> None:
    net = Net(
        [Node("own", Wrong()), Node("fc", dense(3)), Node("s", SoftmaxCrossEntropy())], IN_SHAPE
    )
    with pytest.raises(TraceError, match="node 'own': the values of a tensor are not known"):
        calls_of(net)


def test_layers_that_work_on_arrays_themselves_say_so() -> None:
    for name in layers.__all__:
        layer = getattr(layers, name)
        if not isinstance(layer, type) or layer in (layers.Layer, layers.Loss):
            continue
        bodies = "".join(
            inspect.getsource(method)
            for kind in layer.__mro__
            if kind.__module__.startswith("convnet.layers")
            for method in vars(kind).values()
            if inspect.isfunction(method) and method.__name__ not in ("setup", "__init__")
        )
        touches = any(sign in bodies for sign in (".xp", "[...] =", ".sum(", "xp = "))
        assert not (layer.traced and touches), name
