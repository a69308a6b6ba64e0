"""Locally connected layers: every output position has filters of its own."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.ops.arguments import (
    Pair,
    Shape,
    backend_of,
    dims_of,
    outputs,
    shape_of,
    whole_of,
    windows_of,
)


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
    windows = windows_of("local", stride, pad, rounding)
    groups = whole_of("local", "groups", groups)
    x_shape, w_shape = shape_of("local", "x", x_shape), shape_of("local", "w", w_shape)
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
    be = backend_of(op, x=x, w=w, b=b, out=out)
    windows = windows_of(op, stride, pad, rounding)
    groups = whole_of(op, "groups", groups)
    if out is None:
        shapes = dims_of(op, "x", x), dims_of(op, "w", w)
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
    be = backend_of(op, dy=dy, w=w, relu_mask=relu_mask, out=out)
    windows = windows_of(op, stride, pad, rounding)
    groups = whole_of(op, "groups", groups)
    shapes = shape_of(op, "x_shape", x_shape), dims_of(op, "w", w)
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
    dw, db = outputs(op, out, 2)
    be = backend_of(op, x=x, dy=dy, dw=dw, db=db)
    windows = windows_of(op, stride, pad, rounding)
    groups = whole_of(op, "groups", groups)
    shapes = dims_of(op, "x", x), shape_of(op, "w_shape", w_shape)
    be.module.local_output_shape(*shapes, *windows, groups)
    if out is None:
        dw, db = be.empty(shapes[1]), be.empty(shapes[1][:3]) if bias else None
    be.module.local_wgrad(x, dy, dw, db, *windows, groups, be.stream())
    return dw, db
