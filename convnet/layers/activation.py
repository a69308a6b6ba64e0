"""Elementwise non-linearities."""

from __future__ import annotations

from convnet import ops
from convnet.common.checks import check_float
from convnet.layers.layer import Array, Gradients, Layer


class Activation(Layer):
    """y = f(x), element by element; a subclass for each f.

    Attributes:
        kind: of `ops.activation_fprop`; a, b: its numbers, where f has them.
    """

    kind = ""
    a = b = 1.0
    traced = True
    split_by = "channel"

    def fprop(self, x: Array, train: bool) -> tuple[Array, Array]:
        y = ops.activation_fprop(self.kind, x, self.a, self.b)
        return y, y if ops.activation_saves_output(self.kind) else x

    def bprop(self, saved: Array, dy: Array) -> tuple[Array, Gradients]:
        return ops.activation_bprop(self.kind, saved, dy, self.a, self.b), []


class ReLU(Activation):
    """y = max(0, x). Source: paper, section 3.1."""

    kind = "relu"


class Sigmoid(Activation):
    """y = 1 / (1 + e^-x)."""

    kind = "sigmoid"


class Abs(Activation):
    """y = |x|."""

    kind = "abs"


class Softplus(Activation):
    """y = log(1 + e^x)."""

    kind = "softplus"


class Square(Activation):
    """y = x^2."""

    kind = "square"


class Sqrt(Activation):
    """y = sqrt(x), for x that is never negative."""

    kind = "sqrt"


class _OneNumber(Activation):
    def __init__(self, a: float = 1.0) -> None:
        super().__init__()
        self.a = check_float("a", a)


class Log(_OneNumber):
    """y = log(a + x).

    Args:
        a: what is added; a + x is positive.
    """

    kind = "log"


class BReLU(_OneNumber):
    """y = min(a, max(0, x)), the bounded ReLU.

    Args:
        a: the bound.

    Source: cuda-convnet, `brelu[a]`.
    """

    kind = "brelu"


class DReLU(_OneNumber):
    """y = x - a tanh(x / a).

    Args:
        a: the width of the flat part around 0; not 0.

    Source: cuda-convnet, `drelu[a]`.
    """

    kind = "drelu"


class Tanh(Activation):
    """y = a tanh(b x).

    Args:
        a, b: 1 for the plain tanh.
    """

    kind = "tanh"

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        self.a, self.b = check_float("a", a), check_float("b", b)


class Affine(Activation):
    """y = a x + b, with numbers that are not learned.

    Args:
        a, b: the factor and the summand.
    """

    kind = "affine"

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = check_float("a", a), check_float("b", b)
