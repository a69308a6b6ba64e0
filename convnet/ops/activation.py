"""Elementwise nonlinearities, and adding into an array."""

from __future__ import annotations

from convnet import backend as _backend
from convnet.backend import Array
from convnet.ops.call import call


def activation_saves_output(kind: str) -> bool:
    """Whether the backward pass of an activation needs its output y (else its input x).

    Args:
        kind: as in `activation_fprop`.
    """
    return bool(_backend.get("cpu").module.activation_saves_output(kind))


def activation_fprop(
    kind: str, x: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """An elementwise nonlinearity.

    Args:
        kind: relu max(0, x); tanh a tanh(b x); logistic 1/(1+e^-x); abs |x|; softrelu log(1+e^x);
            square x^2; sqrt; log log(a + x); brelu min(a, max(0, x)); linear a x + b;
            drelu x - a tanh(x/a).
        x: any shape.
        a, b: where the formula has them.
        out: same shape; may be x.

    Returns:
        y, of the shape of x.
    """
    return call("activation_fprop", kind, x, out, a, b)


def activation_bprop(
    kind: str, saved: Array, dy: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """Gradient of :func:`activation_fprop`.

    Args:
        kind, a, b: as in `activation_fprop`.
        saved: y where ``activation_saves_output(kind)``, else x.
        dy: same shape.
        out: same shape; may be dy.

    Returns:
        dx, of the same shape; at a kink, that of the side towards 0.
    """
    return call("activation_bprop", kind, saved, dy, out, a, b)


def relu_fprop(x: Array, *, out: Array | None = None) -> Array:
    """max(0, x) (paper, section 3.1).

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("relu", x, out=out)


def relu_bprop(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0.

    Args:
        y: what :func:`relu_fprop` returned.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("relu", y, dy, out=out)


def tanh_fprop(x: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None) -> Array:
    """a tanh(b x).

    Args:
        x, a, b, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("tanh", x, a, b, out=out)


def tanh_bprop(
    y: Array, dy: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """Gradient of :func:`tanh_fprop`.

    Args:
        y: what :func:`tanh_fprop` returned.
        dy, a, b, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("tanh", y, dy, a, b, out=out)


def logistic_fprop(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e^-x).

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("logistic", x, out=out)


def logistic_bprop(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`logistic_fprop`.

    Args:
        y: what :func:`logistic_fprop` returned.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("logistic", y, dy, out=out)


def abs_fprop(x: Array, *, out: Array | None = None) -> Array:
    """|x|.

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("abs", x, out=out)


def abs_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`abs_fprop`; 0 at 0.

    Args:
        x: the input of :func:`abs_fprop`.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("abs", x, dy, out=out)


def softrelu_fprop(x: Array, *, out: Array | None = None) -> Array:
    """log(1 + e^x).

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("softrelu", x, out=out)


def softrelu_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`softrelu_fprop`.

    Args:
        x: the input of :func:`softrelu_fprop`.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("softrelu", x, dy, out=out)


def accumulate(dst: Array, src: Array) -> Array:
    """``dst += src``.

    Args:
        dst, src: of the same shape, in memory apart.

    Returns:
        dst.
    """
    call("accumulate", src, dst)
    return dst
