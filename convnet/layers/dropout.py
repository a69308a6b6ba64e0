"""Dropout."""

from __future__ import annotations

from typing import Any, Self

from convnet import ops
from convnet.common.checks import check_choice, check_float
from convnet.layers.layer import Array, Gradients, Layer


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

    traced = True
    split_by = "channel"
    columns: tuple[int, int, int] | None = None  # of a shard: first, last + 1, and how many in all

    def __init__(self, drop: float = 0.5, mode: str = "paper") -> None:
        super().__init__()
        self.drop = check_float("drop", drop, 0.0, below=1.0)
        self.mode = check_choice("mode", mode, ("paper", "inverted"))

    def shard(self, first: int, last: int, channels: int) -> Self:
        part = super().shard(first, last, channels)
        part.columns = (first, last, channels)
        return part

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        if train:
            y = ops.dropout_fprop(self._rows(x), self.drop, **self._mask(x))
            return y.reshape(x.shape), None
        if self.mode == "inverted":
            return x, None
        return ops.activation_fprop("affine", x, 1.0 - self.drop, 0.0), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        dx = ops.dropout_bprop(self._rows(dy), self.drop, **self._mask(dy))
        return dx.reshape(dy.shape), []

    def _rows(self, x: Array) -> Array:
        """x as [rows, channels], without a copy."""
        first, last, _ = self.columns or (0, x.shape[-1], 0)
        return x.reshape(-1, last - first)

    def _mask(self, x: Array) -> dict[str, Any]:
        """Which mask, and where x lies in the tensor that it is drawn for."""
        first, _, channels = self.columns or (0, 0, x.shape[-1])
        rows_per_sample = self._rows(x).shape[0] // x.shape[0]
        return {
            "seed": self.random.seed,
            "layer": self.stream,
            "step": self.random.step,
            "mode": self.mode,
            "row_offset": self.random.first_sample * rows_per_sample,
            "col_offset": first,
            "global_cols": channels,
            "state": self.random.state_for(x),
        }

    def describe(self) -> str:
        return f"dropout {self.drop:g}{' inverted' if self.mode == 'inverted' else ''}"
