"""Local response normalization across channels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from convnet import ops
from convnet.common.checks import check_choice, check_float, check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape


class LRN(Layer):
    """y_i = x_i (k + alpha sum_j x_j^2)^-beta over n channels j around i, clipped at the ends.

    Args:
        n: channels in the window: i - n/2 .. i - n/2 + n - 1.
        k, alpha, beta: as in the equation, k > 0 and the others 0 or more; the defaults are the
            paper's.
        groups: channels are in this many parts, and a window never reaches into another one.
        alpha_mode: "sum" as in the equation; "mean" divides alpha by n.

    Source: paper, section 3.3.
    """

    traced = True
    split_by = "group"

    def __init__(
        self,
        n: int = 5,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        groups: int = 1,
        alpha_mode: str = "sum",
    ) -> None:
        super().__init__()
        self.n = check_int("n", n)
        self.k = check_float("k", k, above=0.0)
        self.alpha = check_float("alpha", alpha, 0.0)
        self.beta = check_float("beta", beta, 0.0)
        self.groups = check_int("groups", groups)
        self.alpha_mode = check_choice("alpha_mode", alpha_mode, ("sum", "mean"))

    def shard(self, first: int, last: int, channels: int) -> Self:
        part = super().shard(first, last, channels)
        part.groups = self.groups * (last - first) // channels
        return part

    @property
    def terms(self) -> dict[str, Any]:
        """The keyword arguments of the operations."""
        names = ("n", "k", "alpha", "beta", "groups", "alpha_mode")
        return {name: getattr(self, name) for name in names}

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if in_shape[-1] % self.groups:
            raise ValueError(
                f"groups: expected a divisor of the {in_shape[-1]} channels, got {self.groups}"
            )
        return super().setup(in_shape, rng)

    def fprop(self, x: Array, train: bool) -> tuple[Array, Array]:
        return ops.lrn_fprop(x, **self.terms), x

    def bprop(self, saved: Array, dy: Array) -> tuple[Array, Gradients]:
        return ops.lrn_bprop(saved, dy, **self.terms), []

    def describe(self) -> str:
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return f"lrn {self.n}{groups}"
