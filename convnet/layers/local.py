"""Locally connected layer: a convolution whose filters are not shared between positions."""

from __future__ import annotations

import math

import numpy as np

from convnet import ops
from convnet.layers.conv import Conv
from convnet.layers.layer import Array, Shape, image_shape


class Local(Conv):
    """As `Conv`, with filters and biases of its own at every output position.

    w is [P, Q, K, R, S, C / groups] and b is [P, Q, K]. Arguments are those of `Conv`; products
    are formed in float32 only, so `precision` is "fp32" or "ffma", whatever that of the net is.

    Source: paper, footnote 3; cuda-convnet's `local` layer.
    """

    channel_axis = 2
    precisions = ("fp32", "ffma")

    @property
    def products(self) -> str:
        return "fp32"

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, channels = image_shape(in_shape, "a locally connected layer")
        filter_shape = (self.filters, *self.size, channels // self.groups)
        y_shape = ops.conv_output_shape((1, height, width, channels), filter_shape, **self._window)
        self.in_shape = (height, width, channels)
        self.out_shape = tuple(y_shape[1:])
        area = math.prod(self.size)
        fans = (area * filter_shape[3], area * self.filters // self.groups)
        self._make(rng, (*self.out_shape[:2], *filter_shape), self.out_shape, fans)
        return self.out_shape

    def _fprop(self, x: Array) -> Array:
        return ops.local_fprop(x, self.w.data, self.b_data, **self._window, relu=self.relu)

    def _dgrad(self, dy: Array, x: Array) -> Array:
        return ops.local_dgrad(dy, self.w.data, x.shape, **self._window)

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        return ops.local_wgrad(x, dy, self.w.shape, **self._window, bias=self.bias)

    @property
    def macs(self) -> int:
        return self.w.size

    def describe(self) -> str:
        return super().describe().replace("conv", "local", 1)
