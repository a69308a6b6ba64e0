"""What convolution, local and dense layers have in common: a weight, a bias, and a ReLU to fuse."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import ops
from convnet.common.checks import check_bool, check_choice, check_float
from convnet.layers import initializers
from convnet.layers.layer import Array, Gradients, Layer, Parameter, Shape


class ParametricLayer(Layer):
    """y = op(x, w) + b, then max(0, y) if there is a ReLU.

    A subclass says which shapes w and b have, and calls its three operations.
    """

    traced = True
    reach = "filters"
    precision: str | None = None  # how products are formed; None: as the net says
    precisions: tuple[str, ...] = ops.PRECISIONS  # the ways that there are

    def __init__(
        self,
        bias: bool,
        relu: bool,
        init: str | initializers.Initializer,
        std: float,
        bias_init: float,
        multipliers: tuple[float, float, float, float],
    ) -> None:
        super().__init__()
        self.bias = check_bool("bias", bias)
        self.relu = check_bool("relu", relu)
        self.init = init
        self.std = check_float("std", std, 0.0)
        self.bias_init = check_float("bias_init", bias_init)
        names = ("w_lr", "w_decay", "b_lr", "b_decay")
        checked = [check_float(n, value, 0.0) for n, value in zip(names, multipliers, strict=True)]
        self.w_lr, self.w_decay, self.b_lr, self.b_decay = checked

    # ---- for subclasses -------------------------------------------------------------------------

    def _make(
        self, rng: np.random.Generator, w_shape: Shape, b_shape: Shape, fans: tuple[int, int]
    ) -> None:
        """Makes w and b; `fans` are the numbers of inputs of an output and outputs of an input."""
        if self.sizes_only:
            w, b = (np.broadcast_to(np.float32(0), shape) for shape in (w_shape, b_shape))
        else:
            w = initializers.weights(self.init, rng, w_shape, *fans, self.std)
            b = initializers.constant(rng, b_shape, *fans, self.bias_init)
        self.params = [Parameter("w", w, self.w_lr, self.w_decay)]
        if self.bias:
            self.params.append(Parameter("b", b, self.b_lr, self.b_decay))

    def _fprop(self, x: Array) -> Array:
        """y, with the ReLU where there is one."""
        raise NotImplementedError

    def _dgrad(self, dy: Array, x: Array) -> Array:
        """dx, of the shape of x."""
        raise NotImplementedError

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        """dw and db."""
        raise NotImplementedError

    # ---- the layer ------------------------------------------------------------------------------

    @property
    def w(self) -> Parameter:
        return self.params[0]

    @property
    def b(self) -> Parameter | None:
        return self.params[1] if self.bias else None

    @property
    def b_data(self) -> Array | None:
        return self.params[1].data if self.bias else None

    @property
    def products(self) -> str:
        """The precision of products, see :mod:`convnet.ops`."""
        return self.precision or self.net_precision

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        y = self._fprop(x)
        return y, (x, y if self.relu else None)

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        x, y = saved
        if y is not None:
            dy = ops.relu_bprop(y, dy)
        dx = self._dgrad(dy, x)
        dw, db = self._wgrad(x, dy)
        return dx, [dw, db] if self.bias else [dw]

    def _checked_precision(self, precision: str | None) -> str | None:
        return None if precision is None else check_choice("precision", precision, self.precisions)

    def _relu_text(self) -> str:
        return " + relu" if self.relu else ""

    def _precision_text(self) -> str:
        return "" if self.products == "fp32" else f" in {self.products}"


def window_text(size: Any, stride: tuple[int, int], pad: tuple[int, int], rounding: str) -> str:
    """ "5x5 /2 pad 2 ceil": a window in a few words."""
    text = "x".join(map(str, size))
    if stride != (1, 1):
        text += f" /{stride[0]}" if stride[0] == stride[1] else f" /{stride[0]}x{stride[1]}"
    if pad != (0, 0):
        text += f" pad {pad[0]}" if pad[0] == pad[1] else f" pad {pad[0]}x{pad[1]}"
    return text + (f" {rounding}" if stride != (1, 1) else "")
