"""Local response normalization, also in one pass with the max-pool above it."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.call import Pair, call, outputs


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

    Returns:
        y, of the shape of x.
    """
    return call("lrn_fprop", x, out, n, k, alpha, beta, groups, alpha_mode)


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
    """Gradient of `lrn_fprop` with respect to x.

    Args:
        x, dy: [..., C].
        n, k, alpha, beta, groups, alpha_mode: as in `lrn_fprop`.
        out: same shape as x, another array.

    Returns:
        dx, of the shape of x.
    """
    return call("lrn_bprop", x, dy, out, n, k, alpha, beta, groups, alpha_mode)


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
    y, argmax = outputs("lrn_maxpool_fprop", out, None, None)
    norm, pool = (n, k, alpha, beta, groups, alpha_mode), (size, stride, pad, rounding)
    return call("lrn_maxpool_fprop", x, y, argmax, *norm, *pool)


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
    """Gradient of `lrn_maxpool_fprop` with respect to x.

    Args:
        x: [N, H, W, C].
        dy: [N, P, Q, C].
        argmax: [N, P, Q, C] uint8, from the forward pass.
        size, stride, pad, rounding: as in `maxpool_fprop`.
        n, k, alpha, beta, groups, alpha_mode: as in `lrn_fprop`.
        relu_mask: x is the output of a ReLU: dx becomes 0 where x <= 0.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C], with the bits that `maxpool_bprop` and `lrn_bprop` would give it.
    """
    norm, pool = (n, k, alpha, beta, groups, alpha_mode), (size, stride, pad, rounding)
    return call("lrn_maxpool_bprop", x, dy, argmax, out, relu_mask, *norm, *pool)
