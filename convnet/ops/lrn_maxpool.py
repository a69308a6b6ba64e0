"""Local response normalization and the max-pool above it, in one pass over memory."""

from __future__ import annotations

import numpy as np

from convnet.backend import Array
from convnet.ops.arguments import Pair, backend_of, dims_of, outputs, pair_of, windows_of
from convnet.ops.lrn import lrn_arguments


def lrn_maxpool_fprop(
    x: Array,
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """`maxpool_fprop` of `lrn_fprop` of x, with the same bits; what LRN gives is not stored.

    Args:
        x: [N, H, W, C].
        size, stride, pad, rounding: as in `maxpool_fprop`.
        n, k, alpha, beta, groups, alpha_mode: as in `lrn_fprop`.
        out: (y, argmax).

    Returns:
        y [N, P, Q, C] and argmax [N, P, Q, C] uint8, as `maxpool_fprop`.

    Source: paper, sections 3.3 and 3.4.
    """
    op = "lrn_maxpool_fprop"
    y, argmax = outputs(op, out, 2)
    be = backend_of(op, x=x, y=y, argmax=argmax)
    norm = lrn_arguments(op, n, k, alpha, beta, groups, alpha_mode)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    if out is None:
        shape = be.module.pool_output_shape(dims_of(op, "x", x), *sizes, *windows)
        y, argmax = be.empty(shape), be.empty(shape, np.uint8)
    be.module.lrn_maxpool_fprop(x, y, argmax, *norm, *sizes, *windows, be.stream())
    return y, argmax


def lrn_maxpool_bprop(
    x: Array,
    dy: Array,
    argmax: Array,
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    relu_mask: bool = False,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`lrn_maxpool_fprop` with respect to x.

    Args:
        x: [N, H, W, C].
        dy: [N, P, Q, C].
        argmax: [N, P, Q, C] uint8, from the forward pass.
        relu_mask: x is the output of a ReLU: dx becomes 0 where x <= 0.
        out: [N, H, W, C].
    """
    op = "lrn_maxpool_bprop"
    be = backend_of(op, x=x, dy=dy, argmax=argmax, out=out)
    norm = lrn_arguments(op, n, k, alpha, beta, groups, alpha_mode)
    sizes, windows = pair_of(op, "size", size), windows_of(op, stride, pad, rounding)
    if out is None:
        out = be.empty(dims_of(op, "x", x))
    be.module.lrn_maxpool_bprop(
        x, dy, argmax, out, bool(relu_mask), *norm, *sizes, *windows, be.stream()
    )
    return out
