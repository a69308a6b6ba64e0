"""Layers that cut out, and that turn images into rows of numbers and back, plane by plane."""

from __future__ import annotations

import math

import numpy as np

from convnet import backend
from convnet.common.checks import check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape


class Crop(Layer):
    """Rows top .. top + height - 1 and columns left .. left + width - 1 of an image.

    Args:
        top, left: the first row and column.
        height, width: how many.
    """

    reach = "own"

    def __init__(self, height: int, width: int, top: int = 0, left: int = 0) -> None:
        super().__init__()
        self.height, self.width = check_int("height", height), check_int("width", width)
        self.top, self.left = check_int("top", top, 0), check_int("left", left, 0)

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

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return _contiguous(self._window(x)), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        dx = backend.of(dy).zeros((dy.shape[0], *self.in_shape))
        self._window(dx)[...] = dy
        return dx, []

    def describe(self) -> str:
        return f"crop {self.height}x{self.width} at {self.top}, {self.left}"


class Slice(Layer):
    """Channels start .. stop - 1 of an image, or elements start .. stop - 1 of a row.

    Args:
        start, stop: a range as in Python, of which something is left.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = check_int("start", start, 0)
        self.stop = check_int("stop", stop, self.start + 1)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        if self.stop > self.in_shape[-1]:
            raise ValueError(f"stop: expected at most {self.in_shape[-1]}, got {self.stop}")
        self.out_shape = (*self.in_shape[:-1], self.stop - self.start)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return _contiguous(x[..., self.start : self.stop]), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        dx = backend.of(dy).zeros((dy.shape[0], *self.in_shape))
        dx[..., self.start : self.stop] = dy
        return dx, []

    def describe(self) -> str:
        return f"slice {self.start}..{self.stop - 1}"


class FlattenCHW(Layer):
    """(H, W, C) to (C H W,): one channel after the other, as cuda-convnet's rows of numbers are.

    `Flatten`, which keeps the order of memory, costs nothing; this one copies.
    """

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = image_shape(in_shape, "a change to planes")
        self.out_shape = (math.prod(self.in_shape),)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        planes = x.transpose(0, 3, 1, 2)
        return _contiguous(planes).reshape(x.shape[0], -1), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        height, width, channels = self.in_shape
        planes = dy.reshape(-1, channels, height, width)
        return _contiguous(planes.transpose(0, 2, 3, 1)), []


class UnflattenCHW(Layer):
    """(C S S,) to (S, S, C): planes, one after the other, as a square image.

    Args:
        channels: how many planes, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = check_int("channels", channels)

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

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        side, _, channels = self.out_shape
        planes = x.reshape(-1, channels, side, side)
        return _contiguous(planes.transpose(0, 2, 3, 1)), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        return _contiguous(dy.transpose(0, 3, 1, 2)).reshape(dy.shape[0], *self.in_shape), []


def _contiguous(x: Array) -> Array:
    return backend.of(x).xp.ascontiguousarray(x)
