"""Every stride-th pixel of an image."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.common.checks import check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape


class Nailbed(Layer):
    """Every stride-th pixel: y[n,p,q,c] = x[n, start + p stride, start + q stride, c].

    Args:
        stride: pixels from one to the next.
        start: row and column of the first.

    Source: cuda-convnet's `nailbed` layer.
    """

    traced = True
    split_by = "channel"

    def __init__(self, stride: int, start: int = 0) -> None:
        super().__init__()
        self.stride, self.start = check_int("stride", stride), check_int("start", start, 0)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, channels = image_shape(in_shape, "a nailbed")
        if self.start >= min(height, width):
            raise ValueError(f"start: expected less than {min(height, width)}, got {self.start}")
        sides = (-(-(side - self.start) // self.stride) for side in (height, width))
        return self._sized(in_shape, (*sides, channels))

    def fprop(self, x: Array, train: bool) -> tuple[Array, Shape]:
        return ops.nailbed_fprop(x, self.stride, self.start), x.shape

    def bprop(self, saved: Shape, dy: Array) -> tuple[Array, Gradients]:
        return ops.nailbed_bprop(dy, saved, self.stride, self.start), []

    def describe(self) -> str:
        return f"nailbed /{self.stride} from {self.start}"
