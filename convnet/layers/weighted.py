"""What convolution, local and dense layers have in common: a weight, a bias, and a ReLU to fuse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from convnet import init as initialisers
from convnet import ops
from convnet.layer import Array, Layer, Parameter, Shape, choice, flag, number


class Weighted(Layer):
    """y = op(x, w) + b, then max(0, y) if there is a ReLU.

    A subclass says which shapes w and b have, and calls its three operations.

    Attributes that a net sets when it fuses nodes:
        fuse_relu: the ReLU node above runs in the epilogue of fprop.
        dy_masked: the mask of the ReLU is in the dy that arrives, as the consumer has applied it.
        mask_dx: x is the output of a ReLU; its mask is applied in the epilogue of dgrad.
        late: bprop returns dx at once and leaves the gradients of w and b to `finish_bprop`, so
            that dx can be sent on meanwhile. So it does where the weights are updated at once.
    """

    reach = "filters"
    late = False
    math: str | None = None  # how products are formed; None: as the net says
    maths: tuple[str, ...] = ops.MATHS  # the ways that there are

    fuse_relu = False
    dy_masked = False
    mask_dx = False
    # Of the update that the weights get as soon as their gradient is known (see
    # `convnet.fusedupdate`): lr, momentum, weight decay, number. None: the gradient is kept.
    _update: tuple[float, float, float, int] | None = None
    _rows = 0  # the first case of the slice that is being computed

    def __init__(
        self,
        bias: bool,
        relu: bool,
        init: str | initialisers.Initialiser,
        std: float,
        bias_init: float,
        multipliers: tuple[float, float, float, float],
    ) -> None:
        super().__init__()
        self.bias = flag("bias", bias)
        self.relu = flag("relu", relu)
        self.init = init
        self._due: tuple[Array, Array] | None = None  # x and dy, until finish_bprop
        self.std = number("std", std, 0.0)
        self.bias_init = number("bias_init", bias_init)
        names = ("w_lr", "w_decay", "b_lr", "b_decay")
        checked = [number(n, value, 0.0) for n, value in zip(names, multipliers, strict=True)]
        self.w_lr, self.w_decay, self.b_lr, self.b_decay = checked

    # ---- for subclasses -------------------------------------------------------------------------

    def _make(
        self, rng: np.random.Generator, w_shape: Shape, b_shape: Shape, fans: tuple[int, int]
    ) -> None:
        """Makes w and b; `fans` are the numbers of inputs of an output and outputs of an input."""
        if self.sizes_only:
            w, b = (np.broadcast_to(np.float32(0), shape) for shape in (w_shape, b_shape))
        else:
            w = initialisers.weights(self.init, rng, w_shape, *fans, self.std)
            b = initialisers.constant(rng, b_shape, *fans, self.bias_init)
        self.params = [Parameter("w", w, self.w_lr, self.w_decay)]
        if self.bias:
            self.params.append(Parameter("b", b, self.b_lr, self.b_decay))

    def _fprop(self, x: Array, relu: bool, train: bool) -> Array:
        raise NotImplementedError

    def _dgrad(self, dy: Array, relu_mask: Array | None, dx: Array) -> None:
        raise NotImplementedError

    def _wgrad(self, x: Array, dy: Array, out: tuple[Array, Array | None]) -> None:
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
        """How products are formed: the `math` of :mod:`convnet.ops`."""
        return self.math or self.net_math

    @property
    def has_relu(self) -> bool:
        return self.relu or self.fuse_relu

    @property
    def saved_output(self) -> int:  # type: ignore[override]
        return 1 if self.has_relu and not self.dy_masked else 0

    def fprop(self, x: Array, train: bool) -> Array:
        y = self._fprop(x, self.has_relu, train)
        self.saved = (x, y) if train else None
        return y

    def fprop_by_slices(self, x: Array, slices: Iterable[tuple[int, int]], train: bool) -> Array:
        """As `fprop`, case by case: the same bits, wherever the operations give each case those.

        Args:
            x: [N, ...], of which a part may still be on its way.
            slices: first and last + 1 of cases that are there, one slice after the other.
        """
        y = self.buffer("y", (x.shape[0], *self.out_shape), x)
        try:
            for first, last in slices:
                self._rows = first
                self._fprop(x[first:last], self.has_relu, train)
        finally:
            self._rows = 0
        self.saved = (x, y) if train else None
        return y

    def buffer(
        self, name: str, shape: Sequence[int], like: Array, dtype: Any = np.float32
    ) -> Array:
        """As ever; while cases are computed by slices, the rows of those."""
        if not self._rows:
            return super().buffer(name, shape, like, dtype)
        return self._buffers[name][self._rows : self._rows + shape[0]]

    def bprop(self, dy: Array) -> Array | None:
        x, y = self.recall()
        if self.has_relu and not self.dy_masked:
            out = dy if self.overwrite_dy else self.buffer("masked", dy.shape, dy)
            dy = ops.relu_bprop(y, dy, out=out)
        # dgrad reads w, so an update of w comes after it
        now = not self.late and (self._update is None or not self.need_dx)
        if now:
            self._add_gradients(x, dy)
        if not self.need_dx:
            return None
        dx = self.buffer("dx", x.shape, x)
        self._dgrad(dy, x if self.mask_dx else None, dx)
        self._due = None if now else (x, dy)
        return dx

    def finish_bprop(self) -> None:
        if self._due is not None:
            self._add_gradients(*self._due)
            self._due = None

    def _add_gradients(self, x: Array, dy: Array) -> None:
        if self.learns:
            with self.w.gradient() as dw, self.b.gradient() if self.b else nullcontext() as db:
                self._wgrad(x, dy, (dw, db))

    def gradient_bytes(self, batch: int) -> int:
        masks_apart = self.has_relu and not self.dy_masked and not self.overwrite_dy
        masked = 4 * batch * math.prod(self.out_shape) if masks_apart else 0
        return super().gradient_bytes(batch) + masked

    def _checked_math(self, math: str | None) -> str | None:
        return None if math is None else choice("math", math, self.maths)

    def _relu_text(self) -> str:
        return " + relu" if self.has_relu else ""

    def _math_text(self) -> str:
        return "" if self.products == "fp32" else f" in {self.products}"


def window_text(size: Any, stride: tuple[int, int], pad: tuple[int, int], rounding: str) -> str:
    """ "5x5 /2 pad 2 ceil": a window in a few words."""
    text = "x".join(map(str, size))
    if stride != (1, 1):
        text += f" /{stride[0]}" if stride[0] == stride[1] else f" /{stride[0]}x{stride[1]}"
    if pad != (0, 0):
        text += f" pad {pad[0]}" if pad[0] == pad[1] else f" pad {pad[0]}x{pad[1]}"
    return text + (f" {rounding}" if stride != (1, 1) else "")
