"""Softmax as a layer within a net; `SoftmaxCrossEntropy` is the one that a net ends with."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.layers.layer import Array, Gradients, Layer, Shape


class Softmax(Layer):
    """y_k = e^x_k / sum_j e^x_j, which other layers may read."""

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if len(in_shape) != 1:
            raise ValueError(f"a softmax expects scores of shape (classes,), got {in_shape}")
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, Array]:
        y = ops.softmax_fprop(x)
        return y, y

    def bprop(self, saved: Array, dy: Array) -> tuple[Array, Gradients]:
        total = (dy * saved).sum(axis=1, keepdims=True)
        return (dy - total) * saved, []
