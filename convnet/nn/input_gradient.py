"""Gradients at the input of a net, in test mode: how an image would have to change.

They are run operation by operation, on one device. A stand-in for a layer may have another backward
pass than its own: so a deconvolutional net is made of a net (`convnet.interpret.deconvolution`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convnet import ops
from convnet.common.checks import check_int
from convnet.layers import Dropout
from convnet.layers.graph import Node
from convnet.layers.layer import Array, Gradients, Layer
from convnet.layers.loss import Loss
from convnet.nn.eager import Passes
from convnet.nn.in_float32 import in_float32
from convnet.nn.inputs import checked_x
from convnet.nn.steps import Steps

StandIn = Callable[[Layer], Any]


def input_gradient(
    net: Steps,
    x: Any,
    labels: Any,
    node: str | None,
    dy: Any,
    batch: int,
    stand_in: StandIn | None = None,
) -> np.ndarray:
    """As `Net.input_gradient`, on one device; `stand_in`: what is run in place of a layer."""
    if (labels is None) == (node is None) or (node is None) is not (dy is None):
        raise ValueError("input_gradient: expected labels, or node and dy")
    stand_in = stand_in or in_test_mode
    x = checked_x(x, net.in_shape, net.backend, net.stored)
    if node is not None:
        dy = _checked_dy(net, node, dy, len(x))
    else:
        x, labels = net.checked(x, labels)
    dx = np.empty(x.shape, np.float32)
    batch = check_int("batch", batch)
    for first in range(0, len(x), batch):
        part = slice(first, first + batch)
        given = net.backend.asarray(x[part])
        if node is None:
            found = _of_losses(net, given, net.backend.asarray(labels[part]), stand_in)
        else:
            found = _of_node(net, given, node, net.backend.asarray(dy[part]), stand_in)
        dx[part] = 0.0 if found is None else net.backend.to_host(found)
    return dx


def _checked_dy(net: Steps, node: str, dy: Any, count: int) -> Any:
    """dy, if it is float32 of the shape of the node's output. Raises: ValueError."""
    if isinstance(net.node_of(node).layer, Loss):
        raise ValueError(f"node: expected one that is no loss, got {node!r}")
    shape = (count, *net.shapes[node])
    if getattr(dy, "shape", None) != shape or dy.dtype != np.float32:
        got = getattr(dy, "shape", type(dy).__name__)
        raise ValueError(f"dy: expected float32 of shape {shape}, got {got}")
    return dy


class _NothingDropped:
    """Stands for a dropout layer: what it does in test mode, and the gradient of that."""

    def __init__(self, layer: Dropout) -> None:
        self.layer = layer

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        """The output in test mode."""
        return self.layer.fprop(x, False)[0], None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        """Its gradient."""
        return self.layer.fprop(dy, False)[0], []  # linear, and the same for dy as for x


def in_test_mode(layer: Layer) -> Any:
    """What stands for a layer: itself, unless it draws random numbers in training."""
    return _NothingDropped(layer) if isinstance(layer, Dropout) else layer


def _passes(net: Steps, nodes: Sequence[Node], stand_in: StandIn) -> Passes:
    def runs(layer: Layer) -> Any:
        return in_float32(layer, stand_in(layer), net.stored)

    return Passes(nodes, lambda node: net.backend.active(), runs, stored=net.stored)


def _of_losses(net: Steps, x: Array, labels: Array, stand_in: StandIn) -> Array | None:
    """The gradient of the sum of all samples' losses with respect to x."""
    passes = _passes(net, net.step_nodes, stand_in)
    forward = passes.forward(x, True, labels, scale=1.0)
    return passes.backward(forward, lambda param, grad: None, to_input=True)


def _of_node(net: Steps, x: Array, node: str, dy: Array, stand_in: StandIn) -> Array | None:
    """The gradient of sum(dy * y), where y is the output of a node, with respect to x."""
    passes = _passes(net, net.needed_for([node]), stand_in)
    forward = passes.forward(x, True)
    dy = ops.convert(dy, net.stored)
    return passes.backward(forward, lambda param, grad: None, {node: dy}, to_input=True)
