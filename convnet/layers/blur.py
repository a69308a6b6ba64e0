"""A Gaussian blur of each channel."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.common.checks import check_float, check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape


class Blur(Layer):
    """y = the image under a separable Gaussian, zeros outside; each channel on its own.

        g_i = exp(-(size/2 - i)^2 / (2 std^2)) / sum,  size/2 in whole numbers,  0 <= i < size

    The filter is no parameter.

    Args:
        size: pixels of the filter: 3, 5, 7 or 9.
        std: standard deviation in pixels, above 0.

    Raises: ValueError: another size, or a standard deviation that is not positive.

    Source: cuda-convnet's `blur` layer.
    """

    traced = True
    split_by = "channel"

    def __init__(self, size: int, std: float) -> None:
        super().__init__()
        self.size = check_int("size", size)
        if self.size not in (3, 5, 7, 9):
            raise ValueError(f"size: expected 3, 5, 7 or 9, got {size}")
        self.std = check_float("std", std, above=0.0)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, _channels = image_shape(in_shape, "a blur")
        if self.size > min(height, width):
            raise ValueError(
                f"size: expected at most {min(height, width)}, as large as the image, "
                f"got {self.size}"
            )
        return self._sized(in_shape, in_shape)

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return ops.blur_fprop(x, self.size, self.std), None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        return ops.blur_bprop(dy, self.size, self.std), []

    def describe(self) -> str:
        return f"blur {self.size}x{self.size} std {self.std:g}"


def gaussian_filter(size: int, std: float) -> np.ndarray:
    """The Gaussian of `Blur`, float32 [size].

    Args:
        size: pixels; std: standard deviation in pixels.
    """
    with np.errstate(over="ignore"):  # of a standard deviation near 0
        values = np.exp(-(((np.arange(size) - size // 2) / std) ** 2) / 2.0)
    return (values / values.sum()).astype(np.float32)
