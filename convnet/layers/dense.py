"""Dense (fully connected) layer."""

from __future__ import annotations

import math

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
        super().__init__(bias, relu, init, std, bias_init, (w_lr, w_decay, b_lr, b_decay))
        self.precision = self._checked_precision(precision)
        self.units = check_int("units", units)

    def block(self, first: int, last: int, channels: int) -> Dense:
        part = super().block(first, last, channels)
        assert isinstance(part, Dense)
        part.units = last - first
        return part

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        self.out_shape = (self.units,)
        columns = math.prod(self.in_shape)
        self._make(rng, (self.units, columns), (self.units,), (columns, self.units))
        return self.out_shape

    def _fprop(self, x: Array) -> Array:
        given = _flat(x), self.w.data, self.b_data
        return ops.dense_fprop(*given, relu=self.relu, precision=self.products)

    def _dgrad(self, dy: Array, x: Array) -> Array:
        return ops.dense_dgrad(dy, self.w.data, precision=self.products).reshape(x.shape)

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        return ops.dense_wgrad(_flat(x), dy, bias=self.bias, precision=self.products)

    @property
    def macs(self) -> int:
        return self.w.size

    def describe(self) -> str:
        return f"dense{self._relu_text()}{self._precision_text()}"


def _flat(x: Array) -> Array:
    """[N, ...] as [N, C], without a copy."""
    return x.reshape(x.shape[0], -1)
