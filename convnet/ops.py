"""The operations of convnet as functions on arrays.

Usable without any net. The backend follows the arrays (NumPy: CPU, CuPy: GPU) unless one is chosen
with :func:`convnet.backend.use`. Arrays are C-contiguous float32 unless said otherwise; nothing is
converted silently, and a wrong dtype, shape, layout or device raises ``ValueError`` with what was
expected and what was found. Results are deterministic.

Shapes: N batch, H W C input, K R S filters, P Q output, G groups. Activations are NHWC, filters
KRSC with C/G channels. ``stride``, ``pad`` and ``size`` take a number or a pair (height, width).
``rounding`` is ``"floor"`` (the last incomplete window is dropped) or ``"ceil"`` (it may overhang
on the right and the bottom). ``out=`` takes the array(s) to write the result to.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from convnet import backend as _backend
from convnet.backend import Array

Shape = tuple[int, ...]
Pair = int | tuple[int, int]


def _pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """(height, width) from a number or a pair."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError:
        pair = ()
    if len(pair) != 2 or any(isinstance(v, bool) for v in values):
        raise ValueError(f"{op}: {name}: expected a whole number or a pair of them, got {value!r}")
    if not all(-(2**31) <= v < 2**31 for v in pair):
        raise ValueError(f"{op}: {name}: expected numbers below 2^31, got {value!r}")
    return pair[0], pair[1]


def _whole(op: str, name: str, value: Any, low: int = -(2**31), high: int = 2**31 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{op}: {name}: expected a whole number, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{op}: {name}: expected {low} to {high}, got {number}")
    return number


def _real(op: str, name: str, value: Any) -> float:
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{op}: {name}: expected a number, got {value!r}") from None


def _text(op: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{op}: {name}: expected a string, got {value!r}")
    return value


def _shape(op: str, name: str, value: Any) -> Shape:
    try:
        return tuple(operator.index(v) for v in value)
    except TypeError:
        raise ValueError(f"{op}: {name}: expected a tuple of sizes, got {value!r}") from None


def _dims(op: str, name: str, array: Any, rank: int | None = None) -> Shape:
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple):
        raise ValueError(f"{op}: {name}: expected an array, got {type(array).__name__}")
    if rank is not None and len(shape) != rank:
        raise ValueError(f"{op}: {name}: expected {rank} dimensions, got shape {shape}")
    return shape


def _windows(op: str, stride: Pair, pad: Pair, rounding: str) -> tuple[int, int, int, int, str]:
    return *_pair(op, "stride", stride), *_pair(op, "pad", pad), _text(op, "rounding", rounding)


def _backend_of(op: str, **arrays: Any) -> _backend.Backend:
    for name, array in arrays.items():
        if array is not None and not hasattr(array, "shape"):
            raise ValueError(f"{op}: {name}: expected an array, got {type(array).__name__}")
    try:
        return _backend.of(*arrays.values())
    except ValueError as error:
        raise ValueError(f"{op}: {error}") from None


def _outputs(op: str, out: Any, count: int) -> Sequence[Any]:
    """The arrays of an ``out=`` that takes several."""
    if out is None:
        return (None,) * count
    if not isinstance(out, (tuple, list)) or len(out) != count:
        raise ValueError(f"{op}: out: expected {count} arrays, got {type(out).__name__}")
    return out


# ---- output shapes -------------------------------------------------------------------------------


def conv_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
) -> Shape:
    """Shape [N, P, Q, K] of a convolution of x [N, H, W, C] with w [K, R, S, C/groups]."""
    windows = _windows("conv", stride, pad, rounding)
    groups = _whole("conv", "groups", groups)
    x_shape, w_shape = _shape("conv", "x", x_shape), _shape("conv", "w", w_shape)
    shape: Shape = _backend.get("cpu").module.conv_output_shape(x_shape, w_shape, *windows, groups)
    return shape


def pool_output_shape(
    x_shape: Sequence[int], size: Pair, stride: Pair, pad: Pair = 0, rounding: str = "ceil"
) -> Shape:
    """Shape [N, P, Q, C] of a pool over x [N, H, W, C]."""
    sizes, windows = _pair("pool", "size", size), _windows("pool", stride, pad, rounding)
    x_shape = _shape("pool", "x", x_shape)
    shape: Shape = _backend.get("cpu").module.pool_output_shape(x_shape, *sizes, *windows)
    return shape


# ---- convolution ---------------------------------------------------------------------------------


def conv_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """2-D cross-correlation (paper, section 3.5).

    ``y[n,p,q,k] = b[k] + sum_{r,s,c} x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, c] w[k,r,s,c]``
    with c over the channels of k's group; reads outside the picture are zero.

    Args:
        x: [N, H, W, C].
        w: [K, R, S, C/groups].
        b: [K], or None.
        stride, pad: at least 1, at least 0.
        groups: divides both C and K; group g of the filters sees group g of the channels.
        rounding: ``"floor"`` or ``"ceil"``; ceil makes 224, 11, stride 4 give 55.
        relu: return max(0, y).
        out: [N, P, Q, K], written and returned.

    Returns:
        y [N, P, Q, K].

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    op = "conv_fprop"
    be = _backend_of(op, x=x, w=w, b=b, out=out)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    shapes = _dims(op, "x", x), _dims(op, "w", w)
    space = be.workspace(be.module.conv_workspace("fprop", *shapes, *windows, groups))
    if out is None:
        out = be.empty(be.module.conv_output_shape(*shapes, *windows, groups))
    be.module.conv_fprop(x, w, b, out, *windows, groups, bool(relu), space, be.stream())
    return out


def conv_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu_mask: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`conv_fprop` with respect to x.

    Args:
        dy: [N, P, Q, K].
        w: [K, R, S, C/groups].
        x_shape: (N, H, W, C).
        relu_mask: [N, H, W, C], or None. Where it is <= 0, dx becomes 0: the backward pass of the
            ReLU that x came out of, for free.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    op = "conv_dgrad"
    be = _backend_of(op, dy=dy, w=w, relu_mask=relu_mask, out=out)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    shapes = _shape(op, "x_shape", x_shape), _dims(op, "w", w)
    space = be.workspace(be.module.conv_workspace("dgrad", *shapes, *windows, groups))
    if out is None:
        out = be.empty(shapes[0])
    be.module.conv_dgrad(dy, w, relu_mask, out, *windows, groups, space, be.stream())
    return out


def conv_wgrad(
    x: Array,
    dy: Array,
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    bias: bool = True,
    out: tuple[Array, Array | None] | None = None,
) -> tuple[Array, Array | None]:
    """Gradients of :func:`conv_fprop` with respect to w and b.

    Args:
        x: [N, H, W, C].
        dy: [N, P, Q, K].
        w_shape: (K, R, S, C/groups).
        bias: whether db is wanted.
        out: (dw, db), written and returned; db may be None.

    Returns:
        dw [K, R, S, C/groups], and db [K] or None.
    """
    op = "conv_wgrad"
    dw, db = _outputs(op, out, 2)
    be = _backend_of(op, x=x, dy=dy, dw=dw, db=db)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    shapes = _dims(op, "x", x), _shape(op, "w_shape", w_shape)
    space = be.workspace(be.module.conv_workspace("wgrad", *shapes, *windows, groups))
    if out is None:
        dw, db = be.empty(shapes[1]), be.empty(shapes[1][:1]) if bias else None
    be.module.conv_wgrad(x, dy, dw, db, *windows, groups, space, be.stream())
    return dw, db


# ---- locally connected: filters of its own for every output position ----------------------------


def local_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
) -> Shape:
    """Shape [N, P, Q, K] for x [N, H, W, C] and w [P, Q, K, R, S, C/groups]."""
    windows = _windows("local", stride, pad, rounding)
    groups = _whole("local", "groups", groups)
    x_shape, w_shape = _shape("local", "x", x_shape), _shape("local", "w", w_shape)
    shape: Shape = _backend.get("cpu").module.local_output_shape(x_shape, w_shape, *windows, groups)
    return shape


def local_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Locally connected layer (paper, footnote 3): a convolution whose filters are not shared.

    Args:
        x: [N, H, W, C].
        w: [P, Q, K, R, S, C/groups].
        b: [P, Q, K], or None.
        out: [N, P, Q, K].

    Other arguments and errors as :func:`conv_fprop`.
    """
    op = "local_fprop"
    be = _backend_of(op, x=x, w=w, b=b, out=out)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    if out is None:
        shapes = _dims(op, "x", x), _dims(op, "w", w)
        out = be.empty(be.module.local_output_shape(*shapes, *windows, groups))
    be.module.local_fprop(x, w, b, out, *windows, groups, bool(relu), be.stream())
    return out


def local_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu_mask: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`local_fprop` with respect to x; arguments as :func:`conv_dgrad`."""
    op = "local_dgrad"
    be = _backend_of(op, dy=dy, w=w, relu_mask=relu_mask, out=out)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    shapes = _shape(op, "x_shape", x_shape), _dims(op, "w", w)
    be.module.local_output_shape(*shapes, *windows, groups)  # refuse a bad shape before allocating
    if out is None:
        out = be.empty(shapes[0])
    be.module.local_dgrad(dy, w, relu_mask, out, *windows, groups, be.stream())
    return out


def local_wgrad(
    x: Array,
    dy: Array,
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    bias: bool = True,
    out: tuple[Array, Array | None] | None = None,
) -> tuple[Array, Array | None]:
    """Gradients of :func:`local_fprop`: dw [P, Q, K, R, S, C/groups], and db [P, Q, K] or None."""
    op = "local_wgrad"
    dw, db = _outputs(op, out, 2)
    be = _backend_of(op, x=x, dy=dy, dw=dw, db=db)
    windows = _windows(op, stride, pad, rounding)
    groups = _whole(op, "groups", groups)
    shapes = _dims(op, "x", x), _shape(op, "w_shape", w_shape)
    be.module.local_output_shape(*shapes, *windows, groups)
    if out is None:
        dw, db = be.empty(shapes[1]), be.empty(shapes[1][:3]) if bias else None
    be.module.local_wgrad(x, dy, dw, db, *windows, groups, be.stream())
    return dw, db


# ---- dense ---------------------------------------------------------------------------------------


def dense_fprop(
    x: Array, w: Array, b: Array | None = None, *, relu: bool = False, out: Array | None = None
) -> Array:
    """Fully connected layer: ``y = x w^T + b``.

    Args:
        x: [N, C].
        w: [K, C].
        b: [K], or None.
        relu: return max(0, y).
        out: [N, K].

    Returns:
        y [N, K].
    """
    op = "dense_fprop"
    be = _backend_of(op, x=x, w=w, b=b, out=out)
    shapes = _dims(op, "x", x), _dims(op, "w", w)
    space = be.workspace(be.module.dense_workspace("fprop", *shapes))
    if out is None:
        out = be.empty((shapes[0][0], shapes[1][0]))
    be.module.dense_fprop(x, w, b, out, bool(relu), space, be.stream())
    return out


def dense_dgrad(
    dy: Array, w: Array, *, relu_mask: Array | None = None, out: Array | None = None
) -> Array:
    """Gradient of :func:`dense_fprop` with respect to x: ``dx = dy w`` [N, C].

    Args:
        dy: [N, K].
        w: [K, C].
        relu_mask: [N, C], or None; dx becomes 0 where it is <= 0.
        out: [N, C].
    """
    op = "dense_dgrad"
    be = _backend_of(op, dy=dy, w=w, relu_mask=relu_mask, out=out)
    shapes = (_dims(op, "dy", dy, 2)[0], _dims(op, "w", w, 2)[1]), _dims(op, "w", w)
    space = be.workspace(be.module.dense_workspace("dgrad", *shapes))
    if out is None:
        out = be.empty(shapes[0])
    be.module.dense_dgrad(dy, w, relu_mask, out, space, be.stream())
    return out


def dense_wgrad(
    x: Array, dy: Array, *, bias: bool = True, out: tuple[Array, Array | None] | None = None
) -> tuple[Array, Array | None]:
    """Gradients of :func:`dense_fprop`: ``dw = dy^T x`` [K, C], and db [K] or None.

    Args:
        x: [N, C].
        dy: [N, K].
        bias: whether db is wanted.
        out: (dw, db), written and returned; db may be None.
    """
    op = "dense_wgrad"
    dw, db = _outputs(op, out, 2)
    be = _backend_of(op, x=x, dy=dy, dw=dw, db=db)
    x_shape = _dims(op, "x", x, 2)
    w_shape = _dims(op, "dy", dy, 2)[1], x_shape[1]
    space = be.workspace(be.module.dense_workspace("wgrad", x_shape, w_shape))
    if out is None:
        dw, db = be.empty(w_shape), be.empty(w_shape[:1]) if bias else None
    be.module.dense_wgrad(x, dy, dw, db, space, be.stream())
    return dw, db


# ---- pooling -------------------------------------------------------------------------------------


def maxpool_fprop(
    x: Array,
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Max-pooling, overlapping where stride < size (paper, section 3.4).

    Windows are clipped to the picture. On a tie the first element in row-major order wins.

    Args:
        x: [N, H, W, C].
        size: window, at most 256 elements.
        out: (y, argmax).

    Returns:
        y [N, P, Q, C], and argmax [N, P, Q, C] uint8: the winner's index in its window,
        ``r * size_w + s``.
    """
    op = "maxpool_fprop"
    y, argmax = _outputs(op, out, 2)
    be = _backend_of(op, x=x, y=y, argmax=argmax)
    sizes, windows = _pair(op, "size", size), _windows(op, stride, pad, rounding)
    if out is None:
        shape = be.module.pool_output_shape(_dims(op, "x", x), *sizes, *windows)
        y, argmax = be.empty(shape), be.empty(shape, np.uint8)
    be.module.maxpool_fprop(x, y, argmax, *sizes, *windows, be.stream())
    return y, argmax


def maxpool_bprop(
    dy: Array,
    argmax: Array,
    x_shape: Sequence[int],
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`maxpool_fprop`: each dy goes to the winner of its window.

    Args:
        dy: [N, P, Q, C].
        argmax: [N, P, Q, C] uint8, from the forward pass.
        x_shape: (N, H, W, C).
        out: [N, H, W, C].
    """
    op = "maxpool_bprop"
    be = _backend_of(op, dy=dy, argmax=argmax, out=out)
    sizes, windows = _pair(op, "size", size), _windows(op, stride, pad, rounding)
    x_shape = _shape(op, "x_shape", x_shape)
    be.module.pool_output_shape(x_shape, *sizes, *windows)
    if out is None:
        out = be.empty(x_shape)
    be.module.maxpool_bprop(dy, argmax, out, *sizes, *windows, be.stream())
    return out


def avgpool_fprop(
    x: Array,
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    out: Array | None = None,
) -> Array:
    """Average pooling of x [N, H, W, C]; divides by the size of the window clipped to the picture."""
    op = "avgpool_fprop"
    be = _backend_of(op, x=x, out=out)
    sizes, windows = _pair(op, "size", size), _windows(op, stride, pad, rounding)
    if out is None:
        out = be.empty(be.module.pool_output_shape(_dims(op, "x", x), *sizes, *windows))
    be.module.avgpool_fprop(x, out, *sizes, *windows, be.stream())
    return out


def avgpool_bprop(
    dy: Array,
    x_shape: Sequence[int],
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`avgpool_fprop` with respect to x: dx of shape ``x_shape``."""
    op = "avgpool_bprop"
    be = _backend_of(op, dy=dy, out=out)
    sizes, windows = _pair(op, "size", size), _windows(op, stride, pad, rounding)
    x_shape = _shape(op, "x_shape", x_shape)
    be.module.pool_output_shape(x_shape, *sizes, *windows)
    if out is None:
        out = be.empty(x_shape)
    be.module.avgpool_bprop(dy, out, *sizes, *windows, be.stream())
    return out


# ---- local response normalization ----------------------------------------------------------------


def _lrn(op: str, n: int, k: float, alpha: float, beta: float, groups: int, mode: str) -> tuple:
    return (
        _whole(op, "n", n),
        _real(op, "k", k),
        _real(op, "alpha", alpha),
        _real(op, "beta", beta),
        _whole(op, "groups", groups),
        _text(op, "alpha_mode", mode),
    )


def lrn_fprop(
    x: Array,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    *,
    out: Array | None = None,
) -> Array:
    """Local response normalization across channels (paper, section 3.3).

    ``y_i = x_i / (k + alpha sum_j x_j^2)^beta`` with j over the n channels ``i - n//2 ...
    i - n//2 + n - 1``, clipped to i's group.

    Args:
        x: [..., C].
        n: channels in the window, at least 1.
        k, alpha, beta: k > 0, alpha >= 0, beta >= 0.
        groups: divides C; a window never crosses a group.
        alpha_mode: ``"sum"`` as in the paper, or ``"mean"`` as in cuda-convnet, Caffe and PyTorch,
            where alpha is divided by n.
        out: same shape as x, another array.
    """
    op = "lrn_fprop"
    be = _backend_of(op, x=x, out=out)
    parameters = _lrn(op, n, k, alpha, beta, groups, alpha_mode)
    if out is None:
        out = be.empty(_dims(op, "x", x))
    be.module.lrn_fprop(x, out, *parameters, be.stream())
    return out


def lrn_bprop(
    x: Array,
    dy: Array,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    *,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`lrn_fprop` with respect to x, from x and dy [..., C]."""
    op = "lrn_bprop"
    be = _backend_of(op, x=x, dy=dy, out=out)
    parameters = _lrn(op, n, k, alpha, beta, groups, alpha_mode)
    if out is None:
        out = be.empty(_dims(op, "x", x))
    be.module.lrn_bprop(x, dy, out, *parameters, be.stream())
    return out


# ---- activations ---------------------------------------------------------------------------------


def activation_saves_output(kind: str) -> bool:
    """Whether the backward pass of an activation needs its output y (else its input x)."""
    kind = _text("activation", "kind", kind)
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
    """
    op = "activation_fprop"
    be = _backend_of(op, x=x, out=out)
    kind, a, b = _text(op, "kind", kind), _real(op, "a", a), _real(op, "b", b)
    if out is None:
        out = be.empty(_dims(op, "x", x))
    be.module.activation_fprop(kind, x, out, a, b, be.stream())
    return out


def activation_bprop(
    kind: str,
    saved: Array,
    dy: Array,
    a: float = 1.0,
    b: float = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`activation_fprop`.

    Args:
        saved: y where ``activation_saves_output(kind)``, else x.
        dy: same shape.
        out: same shape; may be dy.
    """
    op = "activation_bprop"
    be = _backend_of(op, saved=saved, dy=dy, out=out)
    kind, a, b = _text(op, "kind", kind), _real(op, "a", a), _real(op, "b", b)
    if out is None:
        out = be.empty(_dims(op, "dy", dy))
    be.module.activation_bprop(kind, saved, dy, out, a, b, be.stream())
    return out


def relu_fprop(x: Array, *, out: Array | None = None) -> Array:
    """max(0, x) (paper, section 3.1); ``out`` may be x."""
    return activation_fprop("relu", x, out=out)


def relu_bprop(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """dy where y > 0, else 0; ``out`` may be dy."""
    return activation_bprop("relu", y, dy, out=out)


def tanh_fprop(x: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None) -> Array:
    """a tanh(b x); ``out`` may be x."""
    return activation_fprop("tanh", x, a, b, out=out)


def tanh_bprop(
    y: Array, dy: Array, a: float = 1.0, b: float = 1.0, *, out: Array | None = None
) -> Array:
    """Gradient of :func:`tanh_fprop` from its output."""
    return activation_bprop("tanh", y, dy, a, b, out=out)


def logistic_fprop(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + e^-x); ``out`` may be x."""
    return activation_fprop("logistic", x, out=out)


def logistic_bprop(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`logistic_fprop` from its output."""
    return activation_bprop("logistic", y, dy, out=out)


def abs_fprop(x: Array, *, out: Array | None = None) -> Array:
    """|x|."""
    return activation_fprop("abs", x, out=out)


def abs_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`abs_fprop` from its input; 0 at 0."""
    return activation_bprop("abs", x, dy, out=out)


def softrelu_fprop(x: Array, *, out: Array | None = None) -> Array:
    """log(1 + e^x)."""
    return activation_fprop("softrelu", x, out=out)


def softrelu_bprop(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """Gradient of :func:`softrelu_fprop` from its input."""
    return activation_bprop("softrelu", x, dy, out=out)


def accumulate(dst: Array, src: Array) -> Array:
    """``dst += src``; returns dst."""
    be = _backend_of("accumulate", dst=dst, src=src)
    be.module.accumulate(src, dst, be.stream())
    return dst


# ---- dropout -------------------------------------------------------------------------------------


def dropout_fprop(
    x: Array,
    drop: float = 0.5,
    *,
    seed: int,
    layer: int = 0,
    step: int = 0,
    mode: str = "paper",
    row_offset: int = 0,
    col_offset: int = 0,
    global_cols: int | None = None,
    out: Array | None = None,
) -> Array:
    """Dropout in training (paper, section 4.2): elements become 0 with probability ``drop``.

    The mask is a pure function of (seed, layer, step, position): the same on every backend.

    Args:
        x: [..., C].
        drop: in [0, 1).
        seed, layer, step: 64, 32 and 32 bits: key and counter of Philox4x32-10.
        mode: ``"paper"`` leaves the kept elements as they are (outputs are multiplied by 1 - drop
            at test time); ``"inverted"`` divides them by 1 - drop (and leaves test time alone).
        row_offset, col_offset, global_cols: where x lies as a block of a larger [rows, global_cols]
            tensor; the block gets its part of the whole's mask.
        out: same shape; may be x.
    """
    return _dropout("dropout_fprop", x, drop, seed, layer, step, mode, row_offset, col_offset,
                    global_cols, out)  # fmt: skip


def dropout_bprop(
    dy: Array,
    drop: float = 0.5,
    *,
    seed: int,
    layer: int = 0,
    step: int = 0,
    mode: str = "paper",
    row_offset: int = 0,
    col_offset: int = 0,
    global_cols: int | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`dropout_fprop`: the same mask, drawn again. ``out`` may be dy."""
    return _dropout("dropout_bprop", dy, drop, seed, layer, step, mode, row_offset, col_offset,
                    global_cols, out)  # fmt: skip


def _dropout(
    op: str,
    x: Array,
    drop: float,
    seed: int,
    layer: int,
    step: int,
    mode: str,
    row_offset: int,
    col_offset: int,
    global_cols: int | None,
    out: Array | None,
) -> Array:
    be = _backend_of(op, x=x, out=out)
    if mode not in ("paper", "inverted"):
        raise ValueError(f'{op}: mode: expected "paper" or "inverted", got {mode!r}')
    drop = _real(op, "drop", drop)
    if not 0.0 <= drop < 1.0:
        raise ValueError(f"{op}: drop: expected a probability in [0, 1), got {drop}")
    shape = _dims(op, "x", x)
    if global_cols is None:
        global_cols = shape[-1] + _whole(op, "col_offset", col_offset) if shape else 1
    counters = (
        _whole(op, "seed", seed, 0, 2**64 - 1),
        _whole(op, "layer", layer, 0, 2**32 - 1),
        _whole(op, "step", step, 0, 2**32 - 1),
        _whole(op, "row_offset", row_offset, 0, 2**40),
        _whole(op, "col_offset", col_offset),
        _whole(op, "global_cols", global_cols),
    )
    if out is None:
        out = be.empty(shape)
    scale = 1.0 / (1.0 - drop) if mode == "inverted" else 1.0
    be.module.dropout(x, out, drop, scale, *counters, be.stream())
    return out


# ---- softmax and cross-entropy -------------------------------------------------------------------


def softmax_fprop(logits: Array, *, out: Array | None = None) -> Array:
    """Softmax over the classes of logits [N, classes] (paper, section 3.5)."""
    op = "softmax_fprop"
    be = _backend_of(op, logits=logits, out=out)
    if out is None:
        out = be.empty(_dims(op, "logits", logits))
    be.module.softmax_fprop(logits, out, be.stream())
    return out


def softmax_xent(
    logits: Array,
    labels: Array,
    *,
    scale: float | None = None,
    dlogits: bool = True,
    out: tuple[Array, Array | None, Array] | None = None,
) -> tuple[Array, Array | None, Array]:
    """Softmax with cross-entropy: the multinomial logistic regression objective of the paper.

    Args:
        logits: [N, classes].
        labels: [N] int32, each in 0 .. classes - 1. On a GPU, where reading them would stall, a
            label out of range gives NaN and not an error.
        scale: factor on dlogits; 1/N by default, the gradient of the mean loss.
        dlogits: whether the gradient is wanted.
        out: (loss, dlogits or None, rank).

    Returns:
        loss [N] in nats; dlogits [N, classes] or None; rank [N] int32, how many classes score above
        the right one (equals count when they come first): top-k is right where rank < k.
    """
    op = "softmax_xent"
    loss, gradient, rank = _outputs(op, out, 3)
    be = _backend_of(op, logits=logits, labels=labels, loss=loss, dlogits=gradient, rank=rank)
    shape = _dims(op, "logits", logits, 2)
    if scale is None:
        scale = 1.0 / max(shape[0], 1)
    scale = _real(op, "scale", scale)
    if out is None:
        loss, rank = be.empty(shape[:1]), be.empty(shape[:1], np.int32)
        gradient = be.empty(shape) if dlogits else None
    be.module.softmax_xent(logits, labels, loss, gradient, rank, scale, be.stream())
    return loss, gradient, rank


# ---- update and augmentation ---------------------------------------------------------------------


def sgd_update(
    tensors: Iterable[tuple[Array, Array, Array, float, float]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> None:
    """The update rule of the paper (section 5), in place, for all parameters in one launch.

    ``v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;  w = w + v``

    Args:
        tensors: (w, velocity, grad, lr_mult, decay_mult) per parameter; w, velocity and grad of
            equal shape.
        lr: learning rate.
    """
    op = "sgd_update"
    columns: list[list[Any]] = [[], [], [], [], []]
    for entry in tensors:
        if not isinstance(entry, (tuple, list)) or len(entry) != 5:
            raise ValueError(
                f"{op}: tensors: expected (w, velocity, grad, lr_mult, decay_mult), got {entry!r}"
            )
        columns[3].append(_real(op, "lr_mult", entry[3]))
        columns[4].append(_real(op, "decay_mult", entry[4]))
        for column, array in zip(columns[:3], entry[:3], strict=True):
            column.append(array)
    if not columns[0]:
        return
    be = _backend_of(op, w=columns[0][0], velocity=columns[1][0], grad=columns[2][0])
    hyper = (_real(op, "lr", lr), _real(op, "momentum", momentum))
    be.module.sgd_update(*columns, *hyper, _real(op, "weight_decay", weight_decay), be.stream())


def augment(
    x: Array,
    offsets: Array,
    mirror: Array,
    mean: Array,
    *,
    crop: Pair,
    noise: Array | None = None,
    scale: float = 1.0,
    out: Array | None = None,
) -> Array:
    """Crop, mirror, add colour noise, subtract the mean, scale (paper, sections 2 and 4.1).

    Args:
        x: [N, H, W, C] uint8.
        offsets: [N, 2] int32, row and column of each crop's corner; crops may reach outside, where
            the result is 0.
        mirror: [N] uint8, not 0 to flip left and right.
        mean: [H, W, C] or [1, 1, C] float32, subtracted before the crop is taken.
        crop: (P, Q), size of the result.
        noise: [N, C] float32, added to every pixel of a picture, or None.
        scale: factor on the result.
        out: [N, P, Q, C] float32.

    Returns:
        [N, P, Q, C] float32.
    """
    op = "augment"
    be = _backend_of(op, x=x, offsets=offsets, mirror=mirror, mean=mean, noise=noise, out=out)
    crop_h, crop_w = _pair(op, "crop", crop)
    shape = _dims(op, "x", x, 4)
    if out is None:
        if not (0 < crop_h <= 2**20 and 0 < crop_w <= 2**20):
            raise ValueError(f"{op}: crop: expected sizes of 1 to 2^20, got {crop!r}")
        out = be.empty((shape[0], crop_h, crop_w, shape[3]))
    be.module.augment(
        x, offsets, mirror, noise, mean, out, crop_h, crop_w, _real(op, "scale", scale), be.stream()
    )
    return out


def philox(seed: int, stream: int, step: int, indices: np.ndarray) -> np.ndarray:
    """Random bits of Philox4x32-10 at counters (index, stream, step) under a 64-bit key.

    Args:
        seed: 64 bits. stream, step: 32 bits each.
        indices: [M] int64, not negative.

    Returns:
        [M, 4] uint32, on the host.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    op = "philox"
    key = _whole(op, "seed", seed, 0, 2**64 - 1)
    counters = _whole(op, "stream", stream, 0, 2**32 - 1), _whole(op, "step", step, 0, 2**32 - 1)
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu" or (indices.size and indices.min() < 0):
        got = f"{indices.dtype}" + (f", {indices.min()}" if indices.size else "")
        raise ValueError(f"{op}: indices: expected whole numbers from 0 on, got {got}")
    positions = np.ascontiguousarray(indices, dtype=np.int64).reshape(-1)
    bits: np.ndarray = _backend.get("cpu").module.philox(key, *counters, positions)
    return bits


# ---- between devices -----------------------------------------------------------------------------


def peer_copy(
    dst: Array, src: Array, *, dst_col: int = 0, src_col: int = 0, cols: int | None = None
) -> Array:
    """Copy a block of columns between devices (paper, section 3.2).

    Args:
        dst: [rows, D]. src: [rows, S].
        dst_col, src_col: first column on either side.
        cols: how many; by default all of src from src_col on.

    Returns:
        dst.
    """
    return _peer("peer_copy", dst, src, dst_col, src_col, cols)


def peer_add(
    dst: Array, src: Array, *, dst_col: int = 0, src_col: int = 0, cols: int | None = None
) -> Array:
    """As :func:`peer_copy`, adding to what is in dst."""
    return _peer("peer_add", dst, src, dst_col, src_col, cols)


def _peer(op: str, dst: Array, src: Array, dst_col: int, src_col: int, cols: int | None) -> Array:
    for name, array in (("dst", dst), ("src", src)):
        _dims(op, name, array, 2)
    be = _backend_of(op, dst=dst)
    source = _backend_of(op, src=src)
    if source.name != be.name:
        raise ValueError(f"{op}: src: expected an array on {be.name}, got {source.name}")
    dst_col, src_col = _whole(op, "dst_col", dst_col), _whole(op, "src_col", src_col)
    cols = src.shape[1] - src_col if cols is None else _whole(op, "cols", cols)
    getattr(be.module, op)(src, dst, src_col, dst_col, cols, source.index, be.index, be.stream())
    return dst
