"""A Gaussian blur of each channel."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.call import call


def blur_fprop(x: Array, size: int, std: float, *, out: Array | None = None) -> Array:
    """y[n,h,w,c] = sum_{r,s} g_r g_s x[n, h - size/2 + r, w - size/2 + s, c], with zeros outside.

        g_i = exp(-(i - size/2)^2 / (2 std^2)) / sum,  size/2 in whole numbers

    Args:
        x: [N, H, W, C].
        size: of the filter, in pixels: 3, 5, 7 or 9.
        std: standard deviation in pixels, above 0.
        out: [N, H, W, C].

    Returns:
        y [N, H, W, C].

    Source: cuda-convnet's `blur` layer.
    """
    return call("blur", x, out, size, std)


def blur_bprop(dy: Array, size: int, std: float, *, out: Array | None = None) -> Array:
    """Gradient of `blur_fprop`: as the filter is symmetric, the blur of dy.

    Args:
        dy: [N, H, W, C].
        size, std: as in the forward pass.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    return call("blur", dy, out, size, std)
