"""Layers that cut out, and that turn pictures into rows of numbers and back, plane by plane."""

from __future__ import annotations

import math

import numpy as np

from convnet.layer import Array, Layer, Shape, image_shape, whole


class Crop(Layer):
    """Rows top .. top + height - 1 and columns left .. left + width - 1 of an image.

    Args:
        top, left: the first row and column.
        height, width: how many.
    """

    works_on_arrays = True

    reach = "own"

    def __init__(self, height: int, width: int, top: int = 0, left: int = 0) -> None:
        super().__init__()
        self.height, self.width = whole("height", height), whole("width", width)
        self.top, self.left = whole("top", top, 0), whole("left", left, 0)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, channels = self.in_shape = image_shape(in_shape, "a crop")
        for what, first, size, there in (
            ("rows", self.top, self.height, height),
            ("columns", self.left, self.width, width),
        ):
            if first + size > there:
                raise ValueError(f"{what}: expected at most {there}, got {first} + {size}")
        self.out_shape = (self.height, self.width, channels)
        return self.out_shape

    def _window(self, x: Array) -> Array:
        rows = slice(self.top, self.top + self.height)
        return x[:, rows, self.left : self.left + self.width]

    def fprop(self, x: Array, train: bool) -> Array:
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        y[...] = self._window(x)
        return y

    def bprop(self, dy: Array) -> Array:
        dx = self.buffer("dx", (dy.shape[0], *self.in_shape), dy)
        dx.fill(0)
        self._window(dx)[...] = dy
        return dx

    def describe(self) -> str:
        return f"crop {self.height}x{self.width} at {self.top}, {self.left}"


class Slice(Layer):
    """Channels start .. stop - 1 of an image, or elements start .. stop - 1 of a row.

    Args:
        start, stop: a range as in Python, of which something is left.
    """

    works_on_arrays = True

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = whole("start", start, 0)
        self.stop = whole("stop", stop, self.start + 1)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        if self.stop > self.in_shape[-1]:
            raise ValueError(f"stop: expected at most {self.in_shape[-1]}, got {self.stop}")
        self.out_shape = (*self.in_shape[:-1], self.stop - self.start)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        y[...] = x[..., self.start : self.stop]
        return y

    def bprop(self, dy: Array) -> Array:
        dx = self.buffer("dx", (dy.shape[0], *self.in_shape), dy)
        dx.fill(0)
        dx[..., self.start : self.stop] = dy
        return dx

    def describe(self) -> str:
        return f"slice {self.start}..{self.stop - 1}"


class Planes(Layer):
    """(H, W, C) to (C H W,): one channel after the other, as cuda-convnet's rows of numbers are.

    `Flatten`, which keeps the order of memory, costs nothing; this one copies.
    """

    works_on_arrays = True

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = image_shape(in_shape, "a change to planes")
        self.out_shape = (math.prod(self.in_shape),)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        height, width, channels = self.in_shape
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        y.reshape(-1, channels, height, width)[...] = x.transpose(0, 3, 1, 2)
        return y

    def bprop(self, dy: Array) -> Array:
        height, width, channels = self.in_shape
        dx = self.buffer("dx", (dy.shape[0], *self.in_shape), dy)
        dx[...] = dy.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        return dx


class Image(Layer):
    """(C S S,) to (S, S, C): planes, one after the other, as a square image.

    Args:
        channels: how many planes, C.
    """

    works_on_arrays = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = whole("channels", channels)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        count = math.prod(self.in_shape)
        side = math.isqrt(count // self.channels)
        if len(self.in_shape) != 1 or side * side * self.channels != count:
            raise ValueError(
                f"channels: expected a row of {self.channels} squares, got shape {self.in_shape}"
            )
        self.out_shape = (side, side, self.channels)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        side, _, channels = self.out_shape
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        y[...] = x.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
        return y

    def bprop(self, dy: Array) -> Array:
        side, _, channels = self.out_shape
        dx = self.buffer("dx", (dy.shape[0], *self.in_shape), dy)
        dx.reshape(-1, channels, side, side)[...] = dy.transpose(0, 3, 1, 2)
        return dx
