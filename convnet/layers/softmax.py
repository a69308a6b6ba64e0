"""Softmax as a layer within a net; `SoftmaxXent` is the one that a net ends with."""

from __future__ import annotations

import math

import numpy as np

from convnet import backend, ops
from convnet.layer import Array, Layer, Shape


class Softmax(Layer):
    """y_k = e^x_k / sum_j e^x_j, which other layers may read."""

    works_on_arrays = True

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if len(in_shape) != 1:
            raise ValueError(f"a softmax expects scores of shape (classes,), got {in_shape}")
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        y = ops.softmax_fprop(x, out=self.buffer("y", x.shape, x))
        self.saved = y if train else None
        return y

    def bprop(self, dy: Array) -> Array:
        y, xp = self.recall(), backend.of(dy).xp
        dx = self.buffer("dx", dy.shape, dy)
        xp.multiply(dy, y, out=dx)
        total = dx.sum(axis=1, keepdims=True)
        xp.subtract(dy, total, out=dx)
        dx *= y
        return dx

    def gradient_bytes(self, batch: int) -> int:
        return 4 * batch * (math.prod(self.in_shape) + 1) if self.need_dx else 0
