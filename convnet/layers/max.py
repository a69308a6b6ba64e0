"""Max: the largest of several inputs, element by element."""

from __future__ import annotations

import math

import numpy as np

from convnet import backend
from convnet.layer import Array, Layer, Shape


class Max(Layer):
    """y = the largest of all inputs, which have one shape; dy goes to the first that is as large.

    Computed by the array library (NumPy, CuPy): there is no kernel for it. cuda-convnet's `eltmax`
    credits every input that is as large; the first one alone gets it here, as in the pools.
    """

    works_on_arrays = True

    reach = "own"
    several_inputs = True

    def setup(self, in_shape: list[Shape], rng: np.random.Generator) -> Shape:
        if len(set(in_shape)) != 1:
            shapes = " and ".join(map(str, dict.fromkeys(in_shape)))
            raise ValueError(f"expected inputs of one shape, got {shapes}")
        if len(in_shape) > 255:
            raise ValueError(f"expected at most 255 inputs, got {len(in_shape)}")
        self.in_shape = self.out_shape = in_shape[0]
        self.inputs = len(in_shape)
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> Array:
        xp, shape = backend.of(x[0]).xp, x[0].shape
        y = self.buffer("y", shape, x[0])
        winner = self.buffer("winner", shape, x[0], np.uint8)
        larger = self.buffer("larger", shape, x[0], np.bool_)
        y[...] = x[0]
        winner.fill(0)
        for index, other in enumerate(x[1:], 1):
            xp.greater(other, y, out=larger)
            xp.copyto(y, other, where=larger)
            xp.copyto(winner, np.uint8(index), where=larger)
        self.saved = winner if train else None
        return y

    def bprop(self, dy: Array) -> list[Array]:
        xp, winner = backend.of(dy).xp, self.recall()
        own = self.buffer("larger", dy.shape, dy, np.bool_)
        parts = []
        for index in range(self.inputs):
            xp.equal(winner, np.uint8(index), out=own)
            part = self.buffer(f"dx{index}", dy.shape, dy)
            xp.multiply(dy, own, out=part)
            parts.append(part)
        return parts

    def output_bytes(self, batch: int) -> int:
        return 6 * batch * math.prod(self.out_shape)  # y, and two bytes for each element

    def gradient_bytes(self, batch: int) -> int:
        return 4 * batch * self.inputs * math.prod(self.in_shape) if self.need_dx else 0
