"""Convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convnet import ops
from convnet.common.checks import check_choice, check_int, check_pair
from convnet.common.deprecated import renamed_keyword
from convnet.layers.initializers import Initializer
from convnet.layers.layer import Array, Shape, image_shape
from convnet.layers.parametric import ParametricLayer, window_text


class Conv(ParametricLayer):
    """2-D cross-correlation with shared filters.

        y[n,p,q,k] = b[k] + sum_{r,s,c} x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, c]
                                        w[k,r,s,c]

    over the channels c of filter k's group.

    Args:
        filters: number of filters, K, over all groups.
        size: filter height and width; one number or (R, S).
        stride, pad: one number or (h, w).
        groups: splits the input and output channels into this many independent parts.
        rounding: "floor" drops the last, incomplete step of the window; "ceil" keeps it, and the
            window then overhangs on the right and the bottom and reads zeros.
        bias: whether there is a b.
        relu: whether max(0, y) follows.
        init: "gaussian" or "uniform" of standard deviation `std`, "xavier", "he", or a function
            (rng, shape, fan_in, fan_out) -> array.
        bias_init: initial value of b.
        w_lr, w_decay, b_lr, b_decay: multipliers of learning rate and weight decay. Biases do not
            decay by default, as in cuda-convnet.
        precision: in which products are formed (see :mod:`convnet.ops`); None: that of the net.

    Source: paper, section 3.5.
    """

    @renamed_keyword("math", "precision")
    def __init__(
        self,
        filters: int,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        pad: int | tuple[int, int] = 0,
        groups: int = 1,
        rounding: str = "floor",
        bias: bool = True,
        relu: bool = False,
        init: str | Initializer = "gaussian",
        std: float = 0.01,
        bias_init: float = 0.0,
        w_lr: float = 1.0,
        w_decay: float = 1.0,
        b_lr: float = 1.0,
        b_decay: float = 0.0,
        precision: str | None = None,
    ) -> None:
        super().__init__(bias, relu, init, std, bias_init, (w_lr, w_decay, b_lr, b_decay))
        self.filters = check_int("filters", filters)
        self.size = check_pair("size", size)
        self.stride = check_pair("stride", stride)
        self.pad = check_pair("pad", pad, 0)
        self.groups = check_int("groups", groups)
        self.precision = self._checked_precision(precision)
        self.rounding = check_choice("rounding", rounding, ("floor", "ceil"))

    def block(self, first: int, last: int, channels: int) -> Conv:
        part = super().block(first, last, channels)
        assert isinstance(part, Conv)
        part.filters = last - first
        part.groups = max(1, self.groups * (last - first) // channels)
        return part

    @property
    def _window(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "pad": self.pad,
            "groups": self.groups,
            "rounding": self.rounding,
        }

    @property
    def _options(self) -> dict[str, Any]:
        return {**self._window, "precision": self.products}

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        height, width, channels = image_shape(in_shape, "a convolution")
        w_shape = (self.filters, *self.size, channels // self.groups)
        y_shape = ops.conv_output_shape((1, height, width, channels), w_shape, **self._window)
        self.in_shape = (height, width, channels)
        self.out_shape = tuple(y_shape[1:])
        area = math.prod(self.size)
        fans = (area * w_shape[3], area * self.filters // self.groups)
        self._make(rng, w_shape, (self.filters,), fans)
        return self.out_shape

    def _fprop(self, x: Array) -> Array:
        return ops.conv_fprop(x, self.w.data, self.b_data, **self._options, relu=self.relu)

    def _dgrad(self, dy: Array, x: Array) -> Array:
        return ops.conv_dgrad(dy, self.w.data, x.shape, **self._options)

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        return ops.conv_wgrad(x, dy, self.w.shape, **self._options, bias=self.bias)

    @property
    def macs(self) -> int:
        p, q, _ = self.out_shape
        return p * q * self.w.size

    def describe(self) -> str:
        window = window_text(self.size, self.stride, self.pad, self.rounding)
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return f"conv {window}{groups}{self._relu_text()}{self._precision_text()}"
