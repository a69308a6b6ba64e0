"""Layers that join or reshape: Flatten, Sum, Concat."""

from __future__ import annotations

import math

import numpy as np

from convnet import ops
from convnet.layer import Array, Layer, Shape


class Flatten(Layer):
    """(H, W, C) to (H W C,), in that order, without a copy."""

    reach = "own"
    is_view = True
    passes_dy = True

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        self.out_shape = (math.prod(in_shape),)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        return x.reshape(x.shape[0], -1)

    def bprop(self, dy: Array) -> Array:
        return dy.reshape(dy.shape[0], *self.in_shape)


class Sum(Layer):
    """y = the sum of all inputs, which have one shape."""

    reach = "own"
    several_inputs = True
    passes_dy = True

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        if len(set(in_shape)) != 1:
            shapes = " and ".join(map(str, dict.fromkeys(in_shape)))
            raise ValueError(f"expected inputs of one shape, got {shapes}")
        self.in_shape = self.out_shape = in_shape[0]
        self.inputs = len(in_shape)
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> Array:
        y = self.buffer("y", x[0].shape, x[0])
        ops.copy(y, x[0])
        for other in x[1:]:
            ops.accumulate(y, other)
        return y

    def bprop(self, dy: Array) -> list[Array]:
        return [dy] * self.inputs


class Concat(Layer):
    """The channels of all inputs, one input after the other; their other sizes are the same."""

    reach = "joined"
    several_inputs = True

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        if len({shape[:-1] for shape in in_shape}) != 1:
            shapes = " and ".join(map(str, dict.fromkeys(in_shape)))
            raise ValueError(f"expected inputs that differ in their channels only, got {shapes}")
        self.channels = [shape[-1] for shape in in_shape]
        self.out_shape = (*in_shape[0][:-1], sum(self.channels))
        self.in_shape = self.out_shape  # as many numbers as all inputs have
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> Array:
        y = self.buffer("y", (*x[0].shape[:-1], self.out_shape[-1]), x[0])
        start = 0
        for part, channels in zip(x, self.channels, strict=True):
            ops.peer_copy(_rows(y), _rows(part), dst_col=start, cols=channels)
            start += channels
        return y

    def bprop(self, dy: Array) -> list[Array]:
        parts = []
        start = 0
        for index, channels in enumerate(self.channels):
            part = self.buffer(f"dx{index}", (*dy.shape[:-1], channels), dy)
            ops.peer_copy(_rows(part), _rows(dy), src_col=start, cols=channels)
            parts.append(part)
            start += channels
        return parts


def _rows(x: Array) -> Array:
    """[N, H, W, C] as [N H W, C], without a copy."""
    return x.reshape(-1, x.shape[-1])
