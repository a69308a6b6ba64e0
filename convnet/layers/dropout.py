"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import ops
from convnet.layer import Array, Layer, Shape, choice, number


class Dropout(Layer):
    """Sets each element to zero with probability `drop` when training.

    The mask is a function of the net's seed, the node's name, the step and the position, drawn
    again in bprop and stored nowhere.

    Args:
        drop: probability in [0, 1).
        mode: "paper" multiplies by the mask when training and by 1 - drop when testing;
            "inverted" multiplies by mask / (1 - drop) when training and does nothing when testing.

    Source: paper, section 4.2.
    """

    can_run_in_place = True
    dx_over_dy = True
    # A dropped element is 0 and so not positive; its gradient is 0 with either mask.
    keeps_relu_mask = True

    def __init__(self, drop: float = 0.5, mode: str = "paper") -> None:
        super().__init__()
        self.drop = number("drop", drop, 0.0, 1.0)
        if self.drop == 1.0:
            raise ValueError("drop: expected a number in [0, 1), got 1")
        self.mode = choice("mode", mode, ("paper", "inverted"))

    @property
    def _draw(self) -> dict[str, Any]:
        return {
            "seed": self.random.seed,
            "layer": self.stream,
            "step": self.random.step,
            "mode": self.mode,
        }

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        y = x if self.in_place else self.buffer("y", x.shape, x)
        if train:
            return ops.dropout_fprop(x, self.drop, **self._draw, out=y)
        scale = 1.0 - self.drop if self.mode == "paper" else 1.0
        if scale != 1.0 or y is not x:
            ops.activation_fprop("linear", x, scale, 0.0, out=y)
        return y

    def bprop(self, dy: Array) -> Array:
        dx = dy if self.overwrite_dy else self.buffer("dx", dy.shape, dy)
        return ops.dropout_bprop(dy, self.drop, **self._draw, out=dx)

    def describe(self) -> str:
        return f"dropout {self.drop:g}" + (" inverted" if self.mode == "inverted" else "")
