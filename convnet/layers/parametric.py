"""The base of convolution, local and dense layers: a weight, a bias, and a ReLU to fuse."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import ops
from convnet.common.checks import check_bool, check_choice, check_float
from convnet.common.deprecated import renamed_attribute
from convnet.layers import initializers
from convnet.layers.layer import Array, Gradients, Layer, Parameter, Shape


class ParametricLayer(Layer):
    """y = op(x, w) + b, then max(0, y) if there is a ReLU.

    A subclass makes its parameters by `_make` and calls its three operations, for `_fprop`,
    `_dgrad` and `_wgrad`.

    Args:
        bias, relu, init, std, bias_init, precision: as in `Conv`.
        multipliers: `w_lr`, `w_decay`, `b_lr` and `b_decay` of `Conv`.
    """

    traced = True
    split_by = "filter"
    precisions: tuple[str, ...] = ops.PRECISIONS  # those there are

    math = renamed_attribute("math", "precision")

    def __init__(
        self,
        bias: bool,
        relu: bool,
        init: str | initializers.Initializer,
        std: float,
        bias_init: float,
        multipliers: tuple[float, float, float, float],
        precision: str | None,
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
        if precision is not None:
            check_choice("precision", precision, self.precisions)
        self.precision = precision

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

    def _described(self, what: str) -> str:
        in_precision = self.effective_precision
        return (
            what
            + (" + relu" if self.relu else "")
            + (f" in {in_precision}" if in_precision != "fp32" else "")
        )

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
    def effective_precision(self) -> str:
        """In which it multiplies: its own precision, or else that of the net."""
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
