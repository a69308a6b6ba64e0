"""Max and average pooling."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_choice, check_pair
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape, window_text


class _Pool(Layer):
    """Windows over the image, each channel on its own; arguments are those of `MaxPool`."""

    kind = ""
    traced = True
    split_by = "channel"

    def __init__(
        self,
        size: int | tuple[int, int],
        stride: int | tuple[int, int],
        pad: int | tuple[int, int] = 0,
        rounding: str = "ceil",
    ) -> None:
        super().__init__()
        self.size = check_pair("size", size)
        self.stride = check_pair("stride", stride)
        self.pad = check_pair("pad", pad, 0)
        self.rounding = check_choice("rounding", rounding, ("floor", "ceil"))

    @property
    def _window(self) -> tuple[Any, ...]:
        return self.size, self.stride, self.pad, self.rounding

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = image_shape(in_shape, f"{self.kind} pooling")
        return self._sized(shape, ops.pool_output_shape((1, *shape), *self._window)[1:])

    def describe(self) -> str:
        return f"{self.kind} pool {window_text(*self._window)}"


class MaxPool(_Pool):
    """y[n,p,q,c] = the largest x in window (p, q); the gradient goes to the first largest.

    Args:
        size: window height and width; one number or two; at most 256 elements.
        stride: steps between windows; smaller than `size`, windows overlap (paper, section 3.4).
        pad: rows and columns around the image that windows may cover and that hold nothing.
        rounding: "ceil" lets the last window overhang the image, and clips it; "floor" drops it.

    Source: paper, section 3.4.
    """

    kind = "max"

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if math.prod(self.size) > 256:
            raise ValueError(
                f"size: expected a window of at most 256 elements, got {math.prod(self.size)}"
            )
        return super().setup(in_shape, rng)

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        y, argmax = ops.maxpool_fprop(x, *self._window)
        return y, (argmax, x.shape)

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        return ops.maxpool_bprop(dy, *saved, *self._window), []


class AvgPool(_Pool):
    """y[n,p,q,c] = the mean of x over window (p, q), clipped to the image.

    Args:
        size, stride, pad, rounding: as in `MaxPool`; windows may have any number of elements.
    """

    kind = "average"

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        return ops.avgpool_fprop(x, *self._window), x.shape

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        return ops.avgpool_bprop(dy, saved, *self._window), []


class SumPool(AvgPool):
    """y[n,p,q,c] = the sum of x over window (p, q), clipped to the image.

    An average pool times the number of pixels in each window.

    Args:
        size, stride, pad, rounding: as in `AvgPool`.

    Source: cuda-convnet, `sum=1`.
    """

    traced = False
    kind = "sum"

    def _count(self, x: Array) -> Array:
        places = self.in_shape[:2], self.out_shape[:2]
        return window_pixels(backend.of(x), *places, self.size, self.stride, self.pad)

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        y, saved = super().fprop(x, train)
        y *= self._count(x)
        return y, saved

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        return super().bprop(saved, dy * self._count(dy))


@functools.lru_cache(maxsize=64)
def window_pixels(
    device: backend.Backend, image: Shape, windows: Shape, size: Shape, stride: Shape, pad: Shape
) -> Array:
    """How many pixels each window has, float32 [P, Q, 1], on a device; all arguments have two
    numbers, for rows and columns."""
    sides = []
    for axis in (0, 1):
        first = np.arange(windows[axis]) * stride[axis] - pad[axis]
        last = np.minimum(first + size[axis], image[axis])
        sides.append(last - np.maximum(first, 0))
    return device.asarray(np.multiply.outer(*sides)[:, :, None].astype(np.float32))


class MaxAbsPool(MaxPool):
    """y[n,p,q,c] = the x in window (p, q) that is furthest from 0; the gradient goes to it.

    A max pool of x and one of -x, of which each y takes the larger, x where they are equal.

    Args:
        size, stride, pad, rounding: as in `MaxPool`.

    Source: cuda-convnet, `pool=maxabs`.
    """

    traced = False
    kind = "max abs"

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        y, at_high = ops.maxpool_fprop(x, *self._window)
        low, at_low = ops.maxpool_fprop(-x, *self._window)
        is_low = low > y
        backend.of(x).xp.copyto(y, -low, where=is_low)
        return y, (at_high, at_low, is_low, x.shape)

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        at_high, at_low, is_low, x_shape = saved
        low = dy * is_low
        dx = ops.maxpool_bprop(dy - low, at_high, x_shape, *self._window)
        return ops.accumulate(dx, ops.maxpool_bprop(low, at_low, x_shape, *self._window)), []
