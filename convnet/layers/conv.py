"""Convolution."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from convnet import ops
from convnet.common.checks import check_choice, check_int, check_pair
from convnet.common.deprecated import renamed_keyword
from convnet.layers.initializers import Initializer
from convnet.layers.layer import Array, Shape, image_shape, window_text
from convnet.layers.parametric import ParametricLayer


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
        bias: whether there is a b [K].
        relu: whether max(0, y) follows.
        init: of w [K, R, S, C / groups]: "gaussian" or "uniform" of standard deviation `std`,
            "xavier", "he", or a function (rng, shape, fan_in, fan_out) -> array.
        std: 0 or more.
        bias_init: initial value of b.
        w_lr, w_decay, b_lr, b_decay: multipliers of learning rate and weight decay, 0 or more.
            Biases do not decay by default, as in cuda-convnet.
        precision: the multiply precision (see `convnet.ops`); None: that of the net.

    Source: paper, section 3.5.
    """

    what = "a convolution"

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
        rates = w_lr, w_decay, b_lr, b_decay
        super().__init__(bias, relu, init, std, bias_init, rates, precision)
        self.filters = check_int("filters", filters)
        self.size = check_pair("size", size)
        self.stride = check_pair("stride", stride)
        self.pad = check_pair("pad", pad, 0)
        self.groups = check_int("groups", groups)
        self.rounding = check_choice("rounding", rounding, ("floor", "ceil"))

    def shard(self, first: int, last: int, channels: int) -> Self:
        part = super().shard(first, last, channels)
        part.filters = last - first
        part.groups = max(1, self.groups * (last - first) // channels)
        return part

    @property
    def _window(self) -> dict[str, Any]:
        names = ("stride", "pad", "groups", "rounding")
        return {name: getattr(self, name) for name in names}

    @property
    def _options(self) -> dict[str, Any]:
        return {**self._window, "precision": self.effective_precision}

    def _shapes(self, filters: Shape, out_shape: Shape) -> tuple[Shape, Shape]:
        """Those of w and b, from that of the filters at one place and that of the output."""
        return filters, (self.filters,)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = image_shape(in_shape, self.what)
        filters = (self.filters, *self.size, shape[2] // self.groups)
        out_shape = self._sized(
            shape, ops.conv_output_shape((1, *shape), filters, **self._window)[1:]
        )
        area = math.prod(self.size)
        fans = (area * filters[3], area * self.filters // self.groups)
        self._make(rng, *self._shapes(filters, out_shape), fans)
        return out_shape

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
        return self._described(f"{type(self).__name__.lower()} {window}{groups}")
