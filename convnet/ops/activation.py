"""Elementwise nonlinearities, and adding into an array."""

from __future__ import annotations

from convnet import backend as _backend
from convnet.backend import Array
from convnet.common.deprecated import note
from convnet.ops.call import call

_RENAMED = {"logistic": "sigmoid", "softrelu": "softplus", "linear": "affine"}


def _kind(name: str) -> str:
    """A kind of activation, which may be called as it was before."""
    if isinstance(name, str) and name in _RENAMED:  # else it is refused like any other
        note(f"activation kind {name!r}", repr(_RENAMED[name]), 4)
        return _RENAMED[name]
    return name


def activation_saves_output(kind: str) -> bool:
    """Whether the backward pass of an activation needs its output y (else its input x).

    Args:
        kind: as in `activation_fprop`.
    """
    return bool(_backend.get("cpu").module.activation_saves_output(_kind(kind)))


def activation_fprop(
    kind: str, x: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """An elementwise nonlinearity.

    Args:
        kind: relu max(0, x); tanh a tanh(b x); sigmoid 1/(1+e^-x); abs |x|; softplus log(1+e^x);
            square x^2; sqrt; log log(a + x); brelu min(a, max(0, x)); affine a x + b;
            drelu x - a tanh(x/a).
        x: any shape.
        a, b: where the formula has them.
        out: same shape; may be x.

    Returns:
        y, of the shape of x.
    """
    return call("activation_fprop", _kind(kind), x, out, a, b)


def activation_bprop(
    kind: str, saved: Array, dy: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """Gradient of `activation_fprop`.

    Args:
        kind, a, b: as in `activation_fprop`.
        saved: y where ``activation_saves_output(kind)``, else x.
        dy: same shape.
        out: same shape; may be dy.

    Returns:
        dx, of the same shape; at a kink, that of the side towards 0.
    """
    return call("activation_bprop", _kind(kind), saved, dy, out, a, b)


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
        y: what `relu_fprop` returned.
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
    """Gradient of `tanh_fprop`.

    Args:
        y: what `tanh_fprop` returned.
        dy, a, b, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("tanh", y, dy, a, b, out=out)


def sigmoid_fprop(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e^-x).

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("sigmoid", x, out=out)


def sigmoid_bprop(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of `sigmoid_fprop`.

    Args:
        y: what `sigmoid_fprop` returned.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("sigmoid", y, dy, out=out)


def abs_fprop(x: Array, *, out: Array | None = None) -> Array:
    """|x|.

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("abs", x, out=out)


def abs_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of `abs_fprop`; 0 at 0.

    Args:
        x: the input of `abs_fprop`.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("abs", x, dy, out=out)


def softplus_fprop(x: Array, *, out: Array | None = None) -> Array:
    """log(1 + e^x).

    Args:
        x, out: as in `activation_fprop`.

    Returns:
        y, of the shape of x.
    """
    return activation_fprop("softplus", x, out=out)


def softplus_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of `softplus_fprop`.

    Args:
        x: the input of `softplus_fprop`.
        dy, out: as in `activation_bprop`.

    Returns:
        dx, of the shape of dy.
    """
    return activation_bprop("softplus", x, dy, out=out)


def accumulate(dst: Array, src: Array) -> Array:
    """``dst += src``.

    Args:
        dst, src: of the same shape, in memory apart.

    Returns:
        dst.
    """
    call("accumulate", src, dst)
    return dst
