"""Layers of several inputs: Sum, Max, Concat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_float
from convnet.layers.layer import Array, Gradients, Layer, Shape, same_shape


class Sum(Layer):
    """y = the sum of all inputs, which have one shape.

    Args:
        coeffs: one number for each input, which multiplies it; none: 1 for all.
    """

    traced = True
    split_by = "channel"
    multi_input = True

    def __init__(self, coeffs: Sequence[float] = ()) -> None:
        super().__init__()
        self.coeffs = tuple(check_float("coeffs", coeff) for coeff in coeffs)

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        shape, self.inputs = same_shape(in_shape), len(in_shape)
        if self.coeffs and len(self.coeffs) != self.inputs:
            raise ValueError(
                f"coeffs: expected one for each of {self.inputs} inputs, got {len(self.coeffs)}"
            )
        return self._sized(shape, shape)

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, None]:
        first, *others = self._weighted(x)
        y = ops.copy(backend.of(first).empty(first.shape, first.dtype), first)
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
        return [ops.activation_fprop("affine", each, coeff, 0.0) for each, coeff in pairs]

    def describe(self) -> str:
        return " ".join(["sum", *(f"{coeff:g}" for coeff in self.coeffs)])


class Max(Layer):
    """y = the largest of all inputs, which have one shape; dy goes to the first that is as large.

    Computed by the array library (NumPy, CuPy): there is no kernel for it. cuda-convnet's `eltmax`
    credits every input that is as large; the first one alone gets it here, as in the pools.
    """

    split_by = "channel"
    multi_input = True

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        shape, self.inputs = same_shape(in_shape), len(in_shape)
        if self.inputs > 255:
            raise ValueError(f"expected at most 255 inputs, got {self.inputs}")
        return self._sized(shape, shape)

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, Array]:
        xp = backend.of(x[0]).xp
        y, winner = x[0], xp.zeros(x[0].shape, np.uint8)
        for index, other in enumerate(x[1:], 1):
            larger = other > y
            y = xp.where(larger, other, y)
            winner[larger] = index
        return y, winner

    def bprop(self, saved: Array, dy: Array) -> tuple[list[Array], Gradients]:
        return [dy * (saved == index) for index in range(self.inputs)], []


class Concat(Layer):
    """The channels of all inputs, one input after the other; their other sizes are the same."""

    traced = True
    split_by = "input"
    multi_input = True

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        if len({shape[:-1] for shape in in_shape}) != 1:
            shapes = " and ".join(map(str, dict.fromkeys(in_shape)))
            raise ValueError(f"expected inputs that differ in their channels only, got {shapes}")
        self.channels = [shape[-1] for shape in in_shape]
        shape = (*in_shape[0][:-1], sum(self.channels))
        return self._sized(shape, shape)  # the inputs have as many numbers together

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, None]:
        y = backend.of(x[0]).empty((*x[0].shape[:-1], self.out_shape[-1]), x[0].dtype)
        start = 0
        for each, channels in zip(x, self.channels, strict=True):
            ops.peer_copy(_rows(y), _rows(each), dst_col=start, cols=channels)
            start += channels
        return y, None

    def bprop(self, saved: None, dy: Array) -> tuple[list[Array], Gradients]:
        dx, start = [], 0
        for channels in self.channels:
            dx.append(backend.of(dy).empty((*dy.shape[:-1], channels), dy.dtype))
            ops.peer_copy(_rows(dx[-1]), _rows(dy), src_col=start, cols=channels)
            start += channels
        return dx, []


def _rows(x: Array) -> Array:
    """[N, H, W, C] as [N H W, C], without a copy."""
    return x.reshape(-1, x.shape[-1])
