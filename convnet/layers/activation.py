"""Elementwise non-linearities."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.common.checks import check_float
from convnet.layers.layer import Array, Gradients, Layer, Shape


class Activation(Layer):
    """y = f(x), element by element; a subclass for each f."""

    kind = ""
    traced = True
    reach = "own"

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        self.a = check_float("a", a)
        self.b = check_float("b", b)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, Array]:
        y = ops.activation_fprop(self.kind, x, self.a, self.b)
        return y, y if ops.activation_saves_output(self.kind) else x

    def bprop(self, saved: Array, dy: Array) -> tuple[Array, Gradients]:
        return ops.activation_bprop(self.kind, saved, dy, self.a, self.b), []


class ReLU(Activation):
    """max(0, x). Source: paper, section 3.1."""

    kind = "relu"

    def __init__(self) -> None:
        super().__init__()


class Tanh(Activation):
    """a tanh(b x)."""

    kind = "tanh"


class Sigmoid(Activation):
    """1 / (1 + e^-x)."""

    kind = "logistic"

    def __init__(self) -> None:
        super().__init__()


class Abs(Activation):
    """|x|."""

    kind = "abs"

    def __init__(self) -> None:
        super().__init__()


class Softplus(Activation):
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


class Affine(Activation):
    """a x + b."""

    kind = "linear"

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__(a, b)


class DReLU(Activation):
    """x - a tanh(x / a)."""

    kind = "drelu"

    def __init__(self, a: float = 1.0) -> None:
        super().__init__(a)
