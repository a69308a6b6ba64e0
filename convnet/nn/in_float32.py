"""Layers that compute in float32 in a net that stores its activations in bfloat16.

A layer that works on arrays itself, beside `convnet.ops`, knows of float32 alone; so do layers from
outside the package. What such a layer is given is converted, and so is what it returns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import ops
from convnet.layers.layer import Array, Gradients, Layer
from convnet.layers.loss import Loss


def is_opaque(layer: Layer) -> bool:
    """Whether a layer does more than call `ops`, as far as one can know."""
    kind = type(layer)
    if kind.__module__.partition(".")[0] == "convnet":
        return not layer.traced
    return not vars(kind).get("traced", False)


def in_float32(layer: Layer, stand_in: Any, stored: Any) -> Any:
    """What runs a layer in a net with activations of this type.

    Args:
        layer: of the net.
        stand_in: what runs in its place, which may work on arrays; or itself.
        stored: the type.
    """
    wide = (is_opaque(layer) or stand_in is not layer) and stored != np.float32
    return InFloat32(layer, stand_in, stored) if wide else stand_in


class InFloat32:
    """Stands for a layer while the passes of a net run.

    Args:
        layer, stand_in, stored: as in `in_float32`.
    """

    def __init__(self, layer: Layer, stand_in: Any, stored: Any) -> None:
        self.is_loss = isinstance(layer, Loss)
        self.layer, self.stored = stand_in, stored

    def fprop(self, x: Any, train: bool) -> tuple[Array, Any]:
        """The forward pass. What a loss gives is for the caller, and stays float32."""
        y, saved = self.layer.fprop(self._wide(x), train)
        return y if self.is_loss else self._stored(y), saved

    def bprop(self, saved: Any, dy: Array) -> tuple[Any, Gradients]:
        """The backward pass; gradients of parameters are float32."""
        dx, gradients = self.layer.bprop(saved, self._wide(dy))
        return self._stored(dx), gradients

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        """A loss and its gradient."""
        each, rank, dx = self.layer.loss(self._wide(x), labels, scale, gradient)
        return each, rank, self._stored(dx)

    def _wide(self, x: Any) -> Any:
        return _converted(x, "float32")

    def _stored(self, x: Any) -> Any:
        return _converted(x, self.stored)


def _converted(x: Any, dtype: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [_converted(each, dtype) for each in x]
    return x if x is None else ops.convert(x, dtype)
