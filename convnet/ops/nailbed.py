"""Every stride-th pixel of an image."""

from __future__ import annotations

from collections.abc import Sequence

from convnet.backend import Array
from convnet.ops.call import call, given


def nailbed_fprop(x: Array, stride: int, start: int = 0, *, out: Array | None = None) -> Array:
    """y[n,p,q,c] = x[n, start + p stride, start + q stride, c].

    Args:
        x: [N, H, W, C].
        stride: pixels from one to the next, at least 1.
        start: row and column of the first, from 0.
        out: [N, P, Q, C].

    Returns:
        y [N, P, Q, C], P = ceil((H - start) / stride), Q of W alike.

    Source: cuda-convnet's `nailbed` layer.
    """
    return call("nailbed_fprop", x, out, stride, start)


def nailbed_bprop(
    dy: Array, x_shape: Sequence[int], stride: int, start: int = 0, *, out: Array | None = None
) -> Array:
    """Gradient of `nailbed_fprop`: dy where it was taken from, zeros elsewhere.

    Args:
        dy: [N, P, Q, C].
        x_shape: (N, H, W, C).
        stride, start: as in the forward pass.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    return call("nailbed_bprop", dy, given(out, x_shape), stride, start)
