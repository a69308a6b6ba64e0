"""A Gaussian blur of each channel."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_float, check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape


class Blur(Layer):
    """y = the image under a separable Gaussian, zeros outside; each channel on its own.

        g_i = exp(-(size/2 - i)^2 / (2 std^2)) / sum,  size/2 in whole numbers,  0 <= i < size

    Two convolutions of one filter a channel, down and across: kernels of the contract on every
    backend. The filters are no parameters.

    Args:
        size: pixels of the filter: 3, 5, 7 or 9.
        std: standard deviation in pixels, above 0.

    Raises: ValueError: another size, or a standard deviation that is not positive.

    Source: cuda-convnet's `blur` layer.
    """

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

    def _passes(self, x: Array) -> list[tuple[Array, dict[str, Any]]]:
        """The filters down and across, and how they are applied."""
        half, channels = self.size // 2, self.in_shape[2]
        down = _filters(backend.of(x), self.size, self.std, channels)
        common = {"stride": (1, 1), "groups": channels, "rounding": "floor", "precision": "fp32"}
        across = down.reshape(channels, 1, self.size, 1)
        return [(down, {"pad": (half, 0), **common}), (across, {"pad": (0, half), **common})]

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        for filters, options in self._passes(x):
            x = ops.conv_fprop(x, filters, None, **options)
        return x, None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        for filters, options in reversed(self._passes(dy)):
            dy = ops.conv_dgrad(dy, filters, dy.shape, **options)
        return dy, []

    def describe(self) -> str:
        return f"blur {self.size}x{self.size} std {self.std:g}"


def gaussian_filter(size: int, std: float) -> np.ndarray:
    """The Gaussian of `Blur`, float32 [size].

    Args:
        size: pixels; std: standard deviation in pixels.
    """
    places = np.arange(size, dtype=np.float64)
    values = np.exp(-((size // 2 - places) ** 2) / (2.0 * std**2)).astype(np.float32)
    return values / values.sum(dtype=np.float32)


@functools.lru_cache(maxsize=32)
def _filters(device: backend.Backend, size: int, std: float, channels: int) -> Array:
    """One for each channel, down, float32 [C, size, 1, 1] on a device."""
    row = gaussian_filter(size, std).reshape(1, size, 1, 1)
    return device.asarray(np.ascontiguousarray(np.broadcast_to(row, (channels, size, 1, 1))))
