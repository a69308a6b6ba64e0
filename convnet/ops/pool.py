"""Max and average pooling."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.ops.call import Pair, Shape, call, given, outputs


def pool_output_shape(
    x_shape: Sequence[int], size: Pair, stride: Pair, pad: Pair = 0, rounding: str = "ceil"
) -> Shape:
    """The shape of the output of a pool.

    Args:
        x_shape: (N, H, W, C).
        size, stride, pad, rounding: as in `maxpool_fprop`.

    Returns:
        (N, P, Q, C).

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    return _backend.get("cpu").module.pool_output_shape(x_shape, size, stride, pad, rounding)


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
        size: of the window, in pixels: at most 256 of them.
        stride, pad: in pixels; at least 1, and less than the size.
        rounding: ``"ceil"``, cuda-convnet's, or ``"floor"``.
        out: (y, argmax).

    Returns:
        y [N, P, Q, C], and argmax [N, P, Q, C] uint8: the winner's index in its window,
        ``r * size_w + s``.
    """
    y, argmax = outputs("maxpool_fprop", out, None, None)
    return call("maxpool_fprop", x, y, argmax, size, stride, pad, rounding)


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
    """Gradient of `maxpool_fprop`: each dy goes to the winner of its window.

    Args:
        dy: [N, P, Q, C].
        argmax: [N, P, Q, C] uint8, from the forward pass.
        x_shape: (N, H, W, C).
        size, stride, pad, rounding: as in the forward pass.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    return call("maxpool_bprop", dy, argmax, given(out, x_shape), size, stride, pad, rounding)


def avgpool_fprop(
    x: Array,
    size: Pair,
    stride: Pair,
    pad: Pair = 0,
    rounding: str = "ceil",
    *,
    out: Array | None = None,
) -> Array:
    """Average pooling, which divides by the size of the clipped window.

    Args:
        x: [N, H, W, C].
        size, stride, pad, rounding: as in `maxpool_fprop`; any size.
        out: [N, P, Q, C].

    Returns:
        y [N, P, Q, C].
    """
    return call("avgpool_fprop", x, out, size, stride, pad, rounding)


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
    """Gradient of `avgpool_fprop` with respect to x.

    Args:
        dy: [N, P, Q, C].
        x_shape: (N, H, W, C).
        size, stride, pad, rounding: as in the forward pass.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    return call("avgpool_bprop", dy, given(out, x_shape), size, stride, pad, rounding)
