"""Layers that join or reshape: Flatten, Sum, Concat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_float
from convnet.layers.layer import Array, Gradients, Layer, Shape


class Flatten(Layer):
    """(H, W, C) to (H W C,), in that order, without a copy."""

    traced = True
    reach = "own"

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = tuple(in_shape)
        self.out_shape = (math.prod(in_shape),)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, Shape]:
        return x.reshape(x.shape[0], -1), x.shape

    def bprop(self, saved: Shape, dy: Array) -> tuple[Array, Gradients]:
        return dy.reshape(saved), []


class Sum(Layer):
    """y = the sum of all inputs, which have one shape.

    Args:
        coeffs: one number for each input, which multiplies it; none: 1 for all.
    """

    traced = True
    reach = "own"
    several_inputs = True

    def __init__(self, coeffs: Sequence[float] = ()) -> None:
        super().__init__()
        self.coeffs = tuple(check_float("coeffs", coeff) for coeff in coeffs)

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        if len(set(in_shape)) != 1:
            shapes = " and ".join(map(str, dict.fromkeys(in_shape)))
            raise ValueError(f"expected inputs of one shape, got {shapes}")
        if self.coeffs and len(self.coeffs) != len(in_shape):
            raise ValueError(
                f"coeffs: expected one for each of {len(in_shape)} inputs, got {len(self.coeffs)}"
            )
        self.in_shape = self.out_shape = in_shape[0]
        self.inputs = len(in_shape)
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, None]:
        first, *others = self._weighted(x)
        y = ops.copy(backend.of(first).empty(first.shape), first)
        for other in others:
            ops.accumulate(y, other)
        return y, None

    def bprop(self, saved: None, dy: Array) -> tuple[list[Array], Gradients]:
        return self._weighted([dy] * self.inputs), []

    def _weighted(self, x: list[Array]) -> list[Array]:
        """Each times its coefficient."""
        if not self.coeffs:
            return x
        pairs = zip(x, self.coeffs, strict=True)
        return [ops.activation_fprop("linear", part, coeff, 0.0) for part, coeff in pairs]

    def describe(self) -> str:
        return " ".join(["sum", *(f"{coeff:g}" for coeff in self.coeffs)])


class Concat(Layer):
    """The channels of all inputs, one input after the other; their other sizes are the same."""

    traced = True
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

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, None]:
        y = backend.of(x[0]).empty((*x[0].shape[:-1], self.out_shape[-1]))
        start = 0
        for part, channels in zip(x, self.channels, strict=True):
            ops.peer_copy(_rows(y), _rows(part), dst_col=start, cols=channels)
            start += channels
        return y, None

    def bprop(self, saved: None, dy: Array) -> tuple[list[Array], Gradients]:
        parts, start = [], 0
        for channels in self.channels:
            part = backend.of(dy).empty((*dy.shape[:-1], channels))
            ops.peer_copy(_rows(part), _rows(dy), src_col=start, cols=channels)
            parts.append(part)
            start += channels
        return parts, []


def _rows(x: Array) -> Array:
    """[N, H, W, C] as [N H W, C], without a copy."""
    return x.reshape(-1, x.shape[-1])
