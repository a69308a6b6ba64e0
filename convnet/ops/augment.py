"""Data augmentation."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.call import Pair, call


def augment(
    x: Array,
    offsets: Array,
    mirror: Array,
    mean: Array,
    *,
    crop: Pair,
    affine: Array | None = None,
    noise: Array | None = None,
    scale: float = 1.0,
    dtype: str | None = None,
    out: Array | None = None,
) -> Array:
    """Crop, mirror, turn, add colour noise, subtract the mean, scale (paper, sections 2 and 4.1).

        y[p, q] = scale * v[h, w],   v = x + noise - mean inside the image, 0 outside

    With `affine`, (h, w) is the crop's centre plus the matrix times the distance of (p, q) from it,
    and v is interpolated linearly along both axes; the identity gives the crop, to the bit. An
    image is shown s times as large by the identity over s. It is not smoothed before: sizes far
    below 1 alias.

    Args:
        x: [N, H, W, C] uint8.
        offsets: [N, 2] int32, row and column of each crop's corner; crops may reach outside, where
            the result is 0.
        mirror: [N] uint8, not 0 to flip left and right.
        mean: [H, W, C] or [1, 1, C] float32, subtracted before the crop is taken.
        crop: (P, Q), size of the result.
        affine: [N, 2, 2] float32, a matrix of (rows, columns) for each image; None: no turning.
        noise: [N, C] float32, added to every pixel of an image, or None.
        scale: factor on the result.
        dtype: of the result: "float32", as by default, or "bfloat16".
        out: [N, P, Q, C] of that type.

    Returns:
        [N, P, Q, C].

    Source: interpolation: Jaderberg et al., "Spatial transformer networks", NIPS 2015, equation 5.
    """
    return call("augment", x, offsets, mirror, affine, noise, mean, out, crop, scale, dtype)
