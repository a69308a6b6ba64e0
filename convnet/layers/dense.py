"""Dense (fully connected) layer."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from convnet import ops
from convnet.init import Initialiser
from convnet.layer import Array, Shape, whole
from convnet.layers.dropout import Dropout
from convnet.layers.weighted import Weighted


class Dense(Weighted):
    """y = x w^T + b.

    An input of shape (H, W, C) is taken as one row of H W C numbers, in that order.

    Attributes that a net sets when it fuses nodes, besides those of `Weighted`:
        dropout: the dropout above, which fprop applies when training.

    Args:
        units: number of outputs, K; w is [K, C].
        bias, relu, init, std, bias_init, w_lr, w_decay, b_lr, b_decay, math: as in `Conv`.
    """

    dropout: Dropout | None = None

    def __init__(
        self,
        units: int,
        bias: bool = True,
        relu: bool = False,
        init: str | Initialiser = "gaussian",
        std: float = 0.01,
        bias_init: float = 0.0,
        w_lr: float = 1.0,
        w_decay: float = 1.0,
        b_lr: float = 1.0,
        b_decay: float = 0.0,
        math: str | None = None,
    ) -> None:
        super().__init__(bias, relu, init, std, bias_init, (w_lr, w_decay, b_lr, b_decay))
        self.math = self._checked_math(math)
        self.units = whole("units", units)

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

    def _fprop(self, x: Array, relu: bool, train: bool) -> Array:
        y = self.buffer("y", (x.shape[0], self.units), x)
        given, products = (_flat(x), self.w.data, self.b_data), self.products
        if self.dropout is None or not train:
            return ops.dense_fprop(*given, relu=relu, math=products, out=y)
        drop, mask = self.dropout.drop, self.dropout.draw(y, self._rows)
        return ops.dense_fprop_dropout(*given, drop, **mask, relu=relu, math=products, out=y)

    def _dgrad(self, dy: Array, relu_mask: Array | None, dx: Array) -> None:
        mask = None if relu_mask is None else _flat(relu_mask)
        ops.dense_dgrad(dy, self.w.data, relu_mask=mask, math=self.products, out=_flat(dx))

    def _wgrad(self, x: Array, dy: Array, out: tuple[Array, Array | None]) -> None:
        ops.dense_wgrad(_flat(x), dy, bias=self.bias, math=self.products, out=out)

    def _add_gradients(self, x: Array, dy: Array) -> None:
        if self._update is None:
            return super()._add_gradients(x, dy)
        *rates, number = self._update
        with self.b.gradient() if self.b else nullcontext() as db:
            ops.dense_wgrad_sgd(
                _flat(x),
                dy,
                self.w.data,
                self.w.velocity,
                *rates,
                lr_mult=self.w.lr_mult,
                decay_mult=self.w.decay_mult,
                bias=self.bias,
                math=self.products,
                state=self.random.state_for(x),
                number=number,
                out=db,
            )
        return self.w.use_up_gradient()

    def workspace_bytes(self, batch: int) -> int:
        shapes = (batch, math.prod(self.in_shape)), self.w.shape
        return ops.dense_workspace(*shapes, dgrad=self.need_dx, math=self.products)

    @property
    def macs(self) -> int:
        return self.w.size

    def describe(self) -> str:
        dropout = " + dropout" if self.dropout is not None else ""
        return f"dense{self._relu_text()}{dropout}{self._math_text()}"


def _flat(x: Array) -> Array:
    """[N, ...] as [N, C], without a copy."""
    return x.reshape(x.shape[0], -1)
