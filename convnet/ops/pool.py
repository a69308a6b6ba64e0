"""Max and average pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convnet import backend as _backend
from convnet.backend import Array
from convnet.ops.arguments import (
    Pair,
    Shape,
    backend_of,
    dims_of,
    outputs,
    pair_of,
    shape_of,
    windows_of,
)


def pool_output_shape(
    x_shape: Sequence[int], size: Pair, stride: Pair, pad: Pair = 0, rounding: str = "ceil"
) -> Shape:
    """Shape [N, P, Q, C] of a pool over x [N, H, W, C]."""
    sizes, windows = pair_of("pool", "size", size), windows_of("pool", stride, pad, rounding)
    x_shape = shape_of("pool", "x", x_shape)
    shape: Shape = _backend.get("cpu").module.pool_output_shape(x_shape, *sizes, *windows)
    return shape


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

    Windows are clipped to the image. On a tie the first element in row-major order wins.

    Args:
        x: [N, H, W, C].
        size: window, at most 256 elements.
        out: (y, argmax).

    Returns:
        y [N, P, Q, C], and argmax [N, P, Q, C] uint8: the winner's index in its window,
        ``r * size_w + s``.
    """
    op = "maxpool_fprop"
    y, argmax = outputs(op, out, 2)
    be = backend_of(op, x=x, y=y, argmax=argmax)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    if out is None:
        shape = be.module.pool_output_shape(dims_of(op, "x", x), *sizes, *windows)
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
    be = backend_of(op, dy=dy, argmax=argmax, out=out)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    x_shape = shape_of(op, "x_shape", x_shape)
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
    """Average pooling of x [N, H, W, C]; divides by the size of the clipped window."""
    op = "avgpool_fprop"
    be = backend_of(op, x=x, out=out)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    if out is None:
        out = be.empty(be.module.pool_output_shape(dims_of(op, "x", x), *sizes, *windows))
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
    be = backend_of(op, dy=dy, out=out)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    x_shape = shape_of(op, "x_shape", x_shape)
    be.module.pool_output_shape(x_shape, *sizes, *windows)
    if out is None:
        out = be.empty(x_shape)
    be.module.avgpool_bprop(dy, out, *sizes, *windows, be.stream())
    return out
