"""Layers that reorder or cut out: Flatten, FlattenCHW, UnflattenCHW, Crop, Slice."""

from __future__ import annotations

import math

import numpy as np

from convnet import backend
from convnet.common.checks import check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape


class Flatten(Layer):
    """(H, W, C) to (H W C,), in that order, without a copy."""

    traced = True
    split_by = "channel"

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        return self._sized(in_shape, (math.prod(in_shape),))

    def fprop(self, x: Array, train: bool) -> tuple[Array, Shape]:
        return x.reshape(x.shape[0], -1), x.shape

    def bprop(self, saved: Shape, dy: Array) -> tuple[Array, Gradients]:
        return dy.reshape(saved), []


class FlattenCHW(Layer):
    """(H, W, C) to (C H W,): one channel after the other, as cuda-convnet's rows of numbers are.

    `Flatten`, which keeps the order of memory, costs nothing; this one copies.
    """

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        return self._sized(image_shape(in_shape, "flatten_chw"), (math.prod(in_shape),))

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return _flatten(x), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        return _unflatten(dy, self.in_shape), []


class UnflattenCHW(Layer):
    """(C S S,) to (S, S, C): one channel after the other, as a square image.

    Args:
        channels: how many, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = check_int("channels", channels)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        count = math.prod(in_shape)
        side = math.isqrt(count // self.channels)
        if len(in_shape) != 1 or side * side * self.channels != count:
            raise ValueError(
                f"channels: expected a row of {self.channels} squares, got shape {tuple(in_shape)}"
            )
        return self._sized(in_shape, (side, side, self.channels))

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return _unflatten(x, self.out_shape), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        return _flatten(dy), []


class _Window(Layer):
    """A part of the input, which `_window` gives as a view."""

    def _window(self, x: Array) -> Array:
        raise NotImplementedError

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return _contiguous(self._window(x)), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        dx = backend.of(dy).zeros((dy.shape[0], *self.in_shape))
        self._window(dx)[...] = dy
        return dx, []


class Crop(_Window):
    """Rows top .. top + height - 1 and columns left .. left + width - 1 of an image.

    Args:
        height, width: how many.
        top, left: the first row and column.
    """

    split_by = "channel"

    def __init__(self, height: int, width: int, top: int = 0, left: int = 0) -> None:
        super().__init__()
        self.height, self.width = check_int("height", height), check_int("width", width)
        self.top, self.left = check_int("top", top, 0), check_int("left", left, 0)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, channels = image_shape(in_shape, "a crop")
        for what, first, size, there in (
            ("rows", self.top, self.height, height),
            ("columns", self.left, self.width, width),
        ):
            if first + size > there:
                raise ValueError(f"{what}: expected at most {there}, got {first} + {size}")
        return self._sized(in_shape, (self.height, self.width, channels))

    def _window(self, x: Array) -> Array:
        rows = slice(self.top, self.top + self.height)
        return x[:, rows, self.left : self.left + self.width]

    def describe(self) -> str:
        return f"crop {self.height}x{self.width} at {self.top}, {self.left}"


class Slice(_Window):
    """Channels start .. stop - 1 of an image, or elements start .. stop - 1 of a row.

    Args:
        start, stop: a range as in Python, of which something is left.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start = check_int("start", start, 0)
        self.stop = check_int("stop", stop, self.start + 1)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if self.stop > in_shape[-1]:
            raise ValueError(f"stop: expected at most {in_shape[-1]}, got {self.stop}")
        return self._sized(in_shape, (*in_shape[:-1], self.stop - self.start))

    def _window(self, x: Array) -> Array:
        return x[..., self.start : self.stop]

    def describe(self) -> str:
        return f"slice {self.start}..{self.stop - 1}"


def _flatten(x: Array) -> Array:
    """[N, H, W, C] to [N, C H W]."""
    return _contiguous(x.transpose(0, 3, 1, 2)).reshape(x.shape[0], -1)


def _unflatten(x: Array, shape: Shape) -> Array:
    """[N, C H W] to [N, H, W, C]; `shape` is (H, W, C)."""
    height, width, channels = shape
    return _contiguous(x.reshape(-1, channels, height, width).transpose(0, 2, 3, 1))


def _contiguous(x: Array) -> Array:
    return backend.of(x).xp.ascontiguousarray(x)
