"""Elementwise non-linearities."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.layer import Array, Layer, Shape, number


class Activation(Layer):
    """y = f(x), element by element; a subclass for each f.

    Attributes that a net sets when it fuses nodes, for a ReLU only:
        fused: the layer below has applied it; this node passes x and dy on.
        dy_masked: the layer above has applied its mask to dy.
    """

    kind = ""
    reach = "own"
    dx_over_dy = True
    fused = False
    dy_masked = False

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        self.a = number("a", a)
        self.b = number("b", b)

    @property
    def is_view(self) -> bool:  # type: ignore[override]
        return self.fused

    @property
    def passes_dy(self) -> bool:  # type: ignore[override]
        return self.fused or self.dy_masked

    @property
    def can_run_in_place(self) -> bool:  # type: ignore[override]
        return ops.activation_saves_output(self.kind)

    @property
    def saved_output(self) -> int:  # type: ignore[override]
        if self.passes_dy or not ops.activation_saves_output(self.kind):
            return 0
        return 1 if self.kind == "relu" else 2

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> Array:
        if self.fused:
            return x
        out = x if self.in_place else self.buffer("y", x.shape, x)
        y = ops.activation_fprop(self.kind, x, self.a, self.b, out=out)
        self.saved = (y if ops.activation_saves_output(self.kind) else x) if train else None
        return y

    def bprop(self, dy: Array) -> Array:
        if self.passes_dy:
            return dy
        saved = self.recall()
        out = dy if self.overwrite_dy else self.buffer("dx", dy.shape, dy)
        return ops.activation_bprop(self.kind, saved, dy, self.a, self.b, out=out)

    def describe(self) -> str:
        return self.kind + (" (fused)" if self.fused else "")


class ReLU(Activation):
    """max(0, x). Source: paper, section 3.1."""

    kind = "relu"

    def __init__(self) -> None:
        super().__init__()


class Tanh(Activation):
    """a tanh(b x)."""

    kind = "tanh"


class Logistic(Activation):
    """1 / (1 + e^-x)."""

    kind = "logistic"

    def __init__(self) -> None:
        super().__init__()


class Abs(Activation):
    """|x|."""

    kind = "abs"

    def __init__(self) -> None:
        super().__init__()


class SoftReLU(Activation):
    """log(1 + e^x)."""

    kind = "softrelu"

    def __init__(self) -> None:
        super().__init__()


class Square(Activation):
    """x^2."""

    kind = "square"

    def __init__(self) -> None:
        super().__init__()


class Sqrt(Activation):
    """sqrt(x), for x that is never negative."""

    kind = "sqrt"

    def __init__(self) -> None:
        super().__init__()


class Log(Activation):
    """log(a + x)."""

    kind = "log"

    def __init__(self, a: float = 1.0) -> None:
        super().__init__(a)


class BReLU(Activation):
    """min(a, max(0, x))."""

    kind = "brelu"

    def __init__(self, a: float = 1.0) -> None:
        super().__init__(a)


class LinearUnit(Activation):
    """a x + b."""

    kind = "linear"

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__(a, b)


class DReLU(Activation):
    """x - a tanh(x / a)."""

    kind = "drelu"

    def __init__(self, a: float = 1.0) -> None:
        super().__init__(a)
