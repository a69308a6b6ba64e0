"""The passes of a net through its nodes: forward, and backward from its losses.

They are the same on arrays, where every operation runs at once, and on the tensors of a trace,
where it is noted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet import ops
from convnet.layers.graph import INPUT, Node, input_names, learning
from convnet.layers.layer import Array, Gradients, Layer, Parameter
from convnet.layers.loss import Loss
from convnet.nn.divergence import Watch
from convnet.nn.in_float32 import in_float32
from convnet.nn.structure import Structure

At = Callable[[Node], contextlib.AbstractContextManager[Any]]


@dataclass
class Forward:
    """What a forward pass leaves.

    Attributes:
        values: the output of each node, and the input.
        saved: what the backward pass of each node needs; of a loss, its gradient.
        losses: (coeff, loss [N]) of each loss.
        rank: of the labels, int32 [N]; None where no loss classifies.
    """

    values: dict[str, Array]
    saved: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[float, Array]] = field(default_factory=list)
    rank: Array | None = None


def _as_it_is(layer: Layer) -> Layer:
    return layer


class Passes:
    """Runs nodes one by one.

    Args:
        nodes: in order.
        at: what is entered around each node: its device, or its name in a trace.
        stand_in: what is run in place of a layer; the layer itself by default.
        watch: shown all that is computed, node by node.
        stored: the type of activations, to which x is converted.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        at: At,
        stand_in: Callable[[Layer], Any] = _as_it_is,
        watch: Watch | None = None,
        stored: Any = np.float32,
    ) -> None:
        self.nodes, self.at, self.stand_in, self.watch = nodes, at, stand_in, watch
        self.stored = np.dtype(stored)

    def forward(
        self,
        x: Array,
        train: bool,
        labels: Array | None = None,
        scale: float | None = None,
        gradient: bool = True,
    ) -> Forward:
        """Runs all nodes.

        Args:
            x: [N, ...].
            train: false for test mode.
            labels: int32 [N], which losses compare with; without them losses run as layers.
            scale: multiplies the gradient of the sum of the losses; 1 / N by default.
            gradient: whether `backward` follows.
        """
        done = Forward({INPUT: ops.convert(x, self.stored)})
        if self.watch:
            self.watch.see(INPUT, x)
        for node in self.nodes:
            layer = node.layer
            inputs = [done.values[name] for name in input_names(node)]
            with self.at(node):
                if isinstance(layer, Loss) and labels is not None:
                    each = layer.coeff * (1.0 / len(x) if scale is None else scale)
                    loss_layer = layer if train else layer.in_test_mode()
                    found = self.stand_in(loss_layer).loss(inputs[0], labels, each, gradient)
                    loss, rank, done.saved[node.name] = found
                    done.losses.append((layer.coeff, loss))
                    done.rank = done.rank if rank is None else rank
                else:
                    given = inputs if layer.multi_input else inputs[0]
                    y, saved = self.stand_in(layer).fprop(given, train)
                    done.values[node.name] = y
                    if train:
                        done.saved[node.name] = saved
            if self.watch:
                output = done.values.get(node.name)
                self.watch.see(node.name, loss if output is None else output, layer.params)
        return done

    def backward(
        self,
        forward: Forward,
        complete: Callable[[Parameter, Array], None],
        begin: Mapping[str, Array] | None = None,
        to_input: bool = False,
    ) -> Array | None:
        """Runs the bprop of all nodes that learn, or that a node below which learns feeds.

        Args:
            forward: of training, with its gradients.
            complete: told of each parameter's gradient when all nodes that share it have added to
                it, the last layer's first; not of frozen ones.
            begin: gradients of the outputs of nodes, besides those of the losses.
            to_input: run all nodes, down to the input.

        Returns: the gradient at the input, where that is wanted and anything depends on it.
        """
        learns = {INPUT, *(n.name for n in self.nodes)} if to_input else learning(self.nodes)
        gradients: dict[str, _Sum] = {}
        for name, dy in (begin or {}).items():
            gradients.setdefault(name, _Sum()).add(dy)
        own: dict[int, _Sum] = {}
        users = Counter(id(p) for node in self.nodes for p in node.layer.params)
        for node in reversed(self.nodes):
            total = gradients.pop(node.name, None)
            is_loss = isinstance(node.layer, Loss)
            if node.name not in learns or (total is None and not is_loss):
                continue
            with self.at(node):
                saved = forward.saved.pop(node.name)
                found: Gradients
                if total is None:
                    dx, found = saved, []
                else:
                    dx, found = self.stand_in(node.layer).bprop(saved, total.array)
                for param, grad in zip(node.layer.params, found, strict=True):
                    if param.frozen:
                        continue
                    own.setdefault(id(param), _Sum()).add(grad)
                    users[id(param)] -= 1
                    if not users[id(param)]:
                        complete(param, own.pop(id(param)).array)
                parts = dx if node.layer.multi_input else [dx]
                if self.watch:
                    self.watch.see_gradients(node.name, [*parts, *found])
                for name, part in zip(input_names(node), parts, strict=True):
                    if name in learns:
                        gradients.setdefault(name, _Sum()).add(part)
        at_input = gradients.pop(INPUT, None)
        return at_input.array if at_input is not None else None


class Eager:
    """Runs the passes of a net operation by operation, as `Programs` runs them as programs.

    Args:
        net: whose.
    """

    def __init__(self, net: Structure) -> None:
        self.net = net

    def passes(self, nodes: Sequence[Node], watch: Watch | None = None) -> Passes:
        """What runs nodes one by one, on their devices."""
        device_of = {} if self.net.partition is None else self.net.partition.device_of
        first = self.net.backend

        def at(node: Node) -> contextlib.AbstractContextManager[Any]:
            return device_of.get(node.name, first).active()

        return Passes(nodes, at, self._stand_in, watch, self.net.stored)

    def _stand_in(self, layer: Layer) -> Any:
        return in_float32(layer, layer, self.net.stored)

    def gradients(self, x: Array, labels: Array, scale: float | None) -> Forward:
        """Losses, and the gradients of all parameters in `Parameter.grad`."""
        for param in self.net.params:
            param.zero_grad()

        def complete(param: Parameter, grad: Array) -> None:
            param.grad = grad
            if self.net.gradient_ready is not None:
                self.net.gradient_ready(param)

        passes = self.passes(self.net.step_nodes)
        forward = passes.forward(x, True, labels, scale)
        passes.backward(forward, complete)
        return forward

    def losses(self, x: Array, labels: Array, train: bool) -> Forward:
        """Losses and ranks, in training or in test mode; no gradients."""
        return self.passes(self.net.step_nodes).forward(x, train, labels, gradient=False)

    def forward(self, x: Array, names: Sequence[str]) -> Forward:
        """The outputs of some nodes in test mode."""
        return self.passes(self.net.needed_for(names)).forward(x, False)


class _Sum:
    """A gradient that comes in parts; the first is only copied where another follows."""

    array: Array = None
    _copied = False

    def add(self, part: Array) -> None:
        if self.array is None:
            self.array = part
            return
        if not self._copied:
            copy = backends.of(self.array).empty(part.shape, part.dtype)
            self.array, self._copied = ops.copy(copy, self.array), True
        ops.accumulate(self.array, part)


def mean_loss(losses: Sequence[tuple[float, Array]]) -> float:
    """Of (coeff, loss [N] on the host) of each loss of a net: the sum of the means."""
    return float(sum(coeff * loss.mean(dtype=np.float64) for coeff, loss in losses))
