"""Max and average pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convnet import ops
from convnet.layer import Array, Layer, Shape, choice, image_shape, pair
from convnet.layers.lrn import LRN
from convnet.layers.weighted import window_text


class _Pool(Layer):
    """Windows over the image, each channel on its own.

    Args:
        size: window height and width; one number or two.
        stride: steps between windows; smaller than `size`, windows overlap (paper, section 3.4).
        pad: rows and columns around the image that windows may cover and that hold nothing.
        rounding: "ceil" lets the last window overhang the image, and clips it; "floor" drops it.
    """

    kind = ""
    reach = "own"

    def __init__(
        self,
        size: int | tuple[int, int],
        stride: int | tuple[int, int],
        pad: int | tuple[int, int] = 0,
        rounding: str = "ceil",
    ) -> None:
        super().__init__()
        self.size = pair("size", size)
        self.stride = pair("stride", stride)
        self.pad = pair("pad", pad, 0)
        self.rounding = choice("rounding", rounding, ("floor", "ceil"))

    @property
    def _window(self) -> tuple[Any, ...]:
        return self.size, self.stride, self.pad, self.rounding

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = image_shape(in_shape, f"{self.kind} pooling")
        self.out_shape = tuple(ops.pool_output_shape((1, *self.in_shape), *self._window)[1:])
        return self.out_shape

    def describe(self) -> str:
        return f"{self.kind} pool {window_text(*self._window)}"


class MaxPool(_Pool):
    """y[n,p,q,c] = the largest x in window (p, q); the gradient goes to the first largest.

    Attributes that a net sets when it fuses nodes:
        norm: the LRN below, which runs in this layer's operations; x is then what it normalises.
        mask_dx: with `norm`: x is the output of a ReLU, whose mask is applied to dx.

    Source: paper, section 3.4.
    """

    kind = "max"
    norm: LRN | None = None
    mask_dx = False

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if math.prod(self.size) > 256:
            raise ValueError(
                f"size: expected a window of at most 256 elements, got {math.prod(self.size)}"
            )
        return super().setup(in_shape, rng)

    def fprop(self, x: Array, train: bool) -> Array:
        shape = (x.shape[0], *self.out_shape)
        y = self.buffer("y", shape, x)
        argmax = self.buffer("argmax", shape, x, np.uint8)
        if self.norm is not None:
            ops.lrn_maxpool_fprop(x, *self._window, **self.norm.terms, out=(y, argmax))
        else:
            ops.maxpool_fprop(x, *self._window, out=(y, argmax))
        self.saved = (argmax, x) if train else None
        return y

    def bprop(self, dy: Array) -> Array:
        argmax, x = self.recall()
        dx = self.buffer("dx", x.shape, dy)
        if self.norm is None:
            return ops.maxpool_bprop(dy, argmax, x.shape, *self._window, out=dx)
        terms, mask = self.norm.terms, self.mask_dx
        ops.lrn_maxpool_bprop(x, dy, argmax, *self._window, **terms, relu_mask=mask, out=dx)
        return dx

    def output_bytes(self, batch: int) -> int:
        return super().output_bytes(batch) + batch * math.prod(self.out_shape)


class AvgPool(_Pool):
    """y[n,p,q,c] = the mean of x over window (p, q), clipped to the image."""

    kind = "average"

    def fprop(self, x: Array, train: bool) -> Array:
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        self.saved = x.shape if train else None
        return ops.avgpool_fprop(x, *self._window, out=y)

    def bprop(self, dy: Array) -> Array:
        x_shape = self.recall()
        dx = self.buffer("dx", x_shape, dy)
        return ops.avgpool_bprop(dy, x_shape, *self._window, out=dx)
