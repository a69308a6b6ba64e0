"""Max: the largest of several inputs, element by element."""

from __future__ import annotations

import numpy as np

from convnet import backend
from convnet.layers.layer import Array, Gradients, Layer, Shape


class Max(Layer):
    """y = the largest of all inputs, which have one shape; dy goes to the first that is as large.

    Computed by the array library (NumPy, CuPy): there is no kernel for it. cuda-convnet's `eltmax`
    credits every input that is as large; the first one alone gets it here, as in the pools.
    """

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
