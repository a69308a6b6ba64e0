"""Layers that a trace cannot look into: each pass through one is a single call of its Python.

A layer from outside the package, and one that works on arrays itself beside `ops`, is run as it is
whenever the program comes to it. It is given arrays, and what it returns is copied. What it saves
for its backward pass may be its input or output, so these stay in place until that has run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet.layers.layer import Gradients, Layer
from convnet.layers.loss import Loss
from convnet.nn.trace import Tensor


@dataclass
class Saved:
    """What a forward pass leaves for the backward pass, in each run of a program."""

    value: Any = None


class Opaque:
    """Stands for an opaque layer while its passes are traced."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def fprop(self, x: Any, train: bool) -> tuple[Tensor, Any]:
        """Notes a forward pass."""
        first = x[0] if isinstance(x, list) else x
        y = first.traced_on.empty((first.shape[0], *self.layer.out_shape))
        saved = Saved()
        rest = {"layer": self.layer, "train": train, "saved": saved}
        y.traced_on.note_python(_fprop, {"x": x}, {"y": y}, rest)
        return y, (saved, x, y)

    def bprop(self, saved: Any, dy: Tensor) -> tuple[Any, Gradients]:
        """Notes a backward pass."""
        kept, x, y = saved
        device, sources = dy.traced_on, x if isinstance(x, list) else [x]
        dx = [device.empty(source.shape) for source in sources]
        grads = [device.empty(param.shape) for param in self.layer.params]
        reads, writes = {"dy": dy, "x": x, "y": y}, {"dx": dx, "grads": grads}
        device.note_python(_bprop, reads, writes, {"layer": self.layer, "saved": kept})
        return dx if isinstance(x, list) else dx[0], grads

    def loss(
        self, x: Tensor, labels: Tensor, scale: float, gradient: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Notes a loss and its gradient."""
        assert isinstance(self.layer, Loss)
        device = x.traced_on
        each = device.empty((x.shape[0],))
        rank = device.empty((x.shape[0],), np.int32) if self.layer.classifies else None
        dx = device.empty(x.shape) if gradient else None
        writes = {"each": each, "rank": rank, "dx": dx}
        rest = {"layer": self.layer, "scale": scale, "gradient": gradient}
        device.note_python(_loss, {"x": x, "labels": labels}, writes, rest)
        return each, rank, dx


def tell(function: Callable[[Any], None], about: Any, array: Tensor) -> None:
    """Adds a call of a function to the trace, for when an array has been written."""
    rest = {"function": function, "about": about}
    array.traced_on.note_python(_tell, {"array": array}, {}, rest, effects=True)


def _fprop(x: Any, y: Any, layer: Layer, train: bool, saved: Saved) -> None:
    y[...], saved.value = layer.fprop(x, train)


def _bprop(
    dy: Any, x: Any, y: Any, dx: Sequence[Any], grads: Any, layer: Layer, saved: Saved
) -> None:
    found, own = layer.bprop(saved.value, dy)
    for into, part in zip(dx, found if layer.multi_input else [found], strict=True):
        into[...] = part
    for into, part in zip(grads, own, strict=True):
        into[...] = part
    saved.value = None


def _loss(
    x: Any, labels: Any, each: Any, rank: Any, dx: Any, layer: Loss, scale: float, gradient: bool
) -> None:
    each[...], order, slope = layer.loss(x, labels, scale, gradient)
    if rank is not None:
        rank[...] = order
    if dx is not None:
        dx[...] = slope


def _tell(array: Any, function: Callable[[Any], None], about: Any) -> None:
    function(about)
