"""Locally connected layers: every output position has filters of its own."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.ops.call import Pair, Shape, call, given, outputs


def local_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
) -> Shape:
    """The shape of the output of a locally connected layer.

    Args:
        x_shape: (N, H, W, C).
        w_shape: (P, Q, K, R, S, C/groups).
        stride, pad, groups, rounding: as in `conv_fprop`.

    Returns:
        (N, P, Q, K).

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    module = _backend.get("cpu").module
    return module.local_output_shape(x_shape, w_shape, stride, pad, rounding, groups)


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
        stride, pad, groups, rounding, relu: as in `conv_fprop`.
        out: [N, P, Q, K].

    Returns:
        y [N, P, Q, K].
    """
    return call("local_fprop", x, w, b, out, stride, pad, rounding, groups, relu)


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
    """Gradient of `local_fprop` with respect to x.

    Args:
        dy: [N, P, Q, K].
        w: [P, Q, K, R, S, C/groups].
        x_shape, stride, pad, groups, rounding, relu_mask, out: as in `conv_dgrad`.

    Returns:
        dx [N, H, W, C].
    """
    dx = given(out, x_shape)
    return call("local_dgrad", dy, w, relu_mask, dx, stride, pad, rounding, groups)


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
    """Gradients of `local_fprop` with respect to w and b.

    Args:
        x: [N, H, W, C].
        dy: [N, P, Q, K].
        w_shape: (P, Q, K, R, S, C/groups).
        stride, pad, groups, rounding, bias, out: as in `conv_wgrad`.

    Returns:
        dw [P, Q, K, R, S, C/groups], and db [P, Q, K] or None.
    """
    dw, db = outputs("local_wgrad", out, given(None, w_shape), True if bias else None)
    return call("local_wgrad", x, dy, dw, db, stride, pad, rounding, groups)
