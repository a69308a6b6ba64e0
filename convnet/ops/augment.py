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
    noise: Array | None = None,
    scale: float = 1.0,
    dtype: str | None = None,
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
        noise: [N, C] float32, added to every pixel of an image, or None.
        scale: factor on the result.
        dtype: of the result: "float32", as by default, or "bfloat16".
        out: [N, P, Q, C] of that type.

    Returns:
        [N, P, Q, C].
    """
    return call("augment", x, offsets, mirror, noise, mean, out, crop, scale, dtype)
