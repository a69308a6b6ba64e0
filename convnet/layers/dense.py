"""Dense (fully connected) layer."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from convnet import ops
from convnet.common.checks import check_int
from convnet.common.deprecated import renamed_keyword
from convnet.layers.initializers import Initializer
from convnet.layers.layer import Array, Shape
from convnet.layers.parametric import ParametricLayer


class Dense(ParametricLayer):
    """y = x w^T + b.

    An input of shape (H, W, C) is taken as one row of H W C numbers, in that order.

    Args:
        units: number of outputs, K; w is [K, C].
        bias, relu, init, std, bias_init, w_lr, w_decay, b_lr, b_decay, precision: as in `Conv`.

    Source: paper, section 3.5.
    """

    @renamed_keyword("math", "precision")
    def __init__(
        self,
        units: int,
        bias: bool = True,
        relu: bool = False,
        init: str | Initializer = "gaussian",
        std: float = 0.01,
        bias_init: float = 0.0,
        w_lr: float = 1.0,
        w_decay: float = 1.0,
        b_lr: float = 1.0,
        b_decay: float = 0.0,
        precision: str | None = None,
    ) -> None:
        rates = w_lr, w_decay, b_lr, b_decay
        super().__init__(bias, relu, init, std, bias_init, rates, precision)
        self.units = check_int("units", units)

    def shard(self, first: int, last: int, channels: int) -> Self:
        part = super().shard(first, last, channels)
        part.units = last - first
        return part

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        columns = math.prod(in_shape)
        self._make(rng, (self.units, columns), (self.units,), (columns, self.units))
        return self._sized(in_shape, (self.units,))

    def _fprop(self, x: Array) -> Array:
        given = _flat(x), self.w.data, self.b_data
        return ops.dense_fprop(*given, relu=self.relu, precision=self.effective_precision)

    def _dgrad(self, dy: Array, x: Array) -> Array:
        dx = ops.dense_dgrad(dy, self.w.data, precision=self.effective_precision)
        return dx.reshape(x.shape)

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        return ops.dense_wgrad(_flat(x), dy, bias=self.bias, precision=self.effective_precision)

    @property
    def macs(self) -> int:
        return self.w.size

    def describe(self) -> str:
        return self._described("dense")


def _flat(x: Array) -> Array:
    """[N, ...] as [N, C], without a copy."""
    return x.reshape(x.shape[0], -1)
