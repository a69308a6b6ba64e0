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

    Attributes that a net sets when it fuses nodes:
        masked: y lies over the output of a ReLU, whose mask is taken from it: what was dropped is 0
            there, so that mask is this layer's too, and bprop draws no random numbers.
        fused: in training, the dense layer below has applied the mask to y, over which this layer
            would run in place.

    Source: paper, section 4.2.
    """

    reach = "own"
    columns: tuple[int, int, int] | None = None  # of a block: first, last + 1, and how many in all
    can_run_in_place = True
    dx_over_dy = True
    # A dropped element is 0 and so not positive; its gradient is 0 with either mask.
    keeps_relu_mask = True
    masked = False
    fused = False

    def __init__(self, drop: float = 0.5, mode: str = "paper") -> None:
        super().__init__()
        self.drop = number("drop", drop, 0.0, 1.0)
        if self.drop == 1.0:
            raise ValueError("drop: expected a number in [0, 1), got 1")
        self.mode = choice("mode", mode, ("paper", "inverted"))

    @property
    def passes_dy(self) -> bool:  # type: ignore[override]
        return self.masked and self.mode == "paper"

    def block(self, first: int, last: int, channels: int) -> Layer:
        part = super().block(first, last, channels)
        assert isinstance(part, Dropout)
        part.columns = (first, last, channels)
        return part

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        y = x if self.in_place else self.buffer("y", x.shape, x)
        if train and not self.fused:
            ops.dropout_fprop(self._rows(x), self.drop, **self.draw(x), out=self._rows(y))
        if train:
            return y
        scale = 1.0 - self.drop if self.mode == "paper" else 1.0
        if scale != 1.0 or y is not x:
            ops.activation_fprop("linear", x, scale, 0.0, out=y)
        return y

    def bprop(self, dy: Array) -> Array:
        if self.passes_dy:
            return dy
        dx = dy if self.overwrite_dy else self.buffer("dx", dy.shape, dy)
        if self.masked:
            return ops.activation_bprop("linear", dy, dy, 1.0 / (1.0 - self.drop), out=dx)
        ops.dropout_bprop(self._rows(dy), self.drop, **self.draw(dy), out=self._rows(dx))
        return dx

    def _rows(self, x: Array) -> Array:
        """x as [rows, channels], without a copy."""
        first, last, _ = self.columns or (0, x.shape[-1], 0)
        return x.reshape(-1, last - first)

    def draw(self, x: Array, first_case: int = 0) -> dict[str, Any]:
        """Which mask, and where x lies in the tensor that it is drawn for; its first case is number
        `first_case` of the batch."""
        first, _, channels = self.columns or (0, 0, x.shape[-1])
        rows_per_case = self._rows(x).shape[0] // x.shape[0]
        return {
            "seed": self.random.seed,
            "layer": self.stream,
            "step": self.random.step,
            "mode": self.mode,
            "row_offset": (self.random.first_case + first_case) * rows_per_case,
            "col_offset": first,
            "global_cols": channels,
            "state": self.random.state_for(x),
        }

    def describe(self) -> str:
        mode = " inverted" if self.mode == "inverted" else ""
        return f"dropout {self.drop:g}{mode}" + (" (fused)" if self.fused else "")
