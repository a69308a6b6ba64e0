"""Data augmentation."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.arguments import Pair, backend_of, dims_of, pair_of, real_of


def augment(
    x: Array,
    offsets: Array,
    mirror: Array,
    mean: Array,
    *,
    crop: Pair,
    noise: Array | None = None,
    scale: float = 1.0,
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
        out: [N, P, Q, C] float32.

    Returns:
        [N, P, Q, C] float32.
    """
    op = "augment"
    be = backend_of(op, x=x, offsets=offsets, mirror=mirror, mean=mean, noise=noise, out=out)
    crop_h, crop_w = pair_of(op, "crop", crop)
    shape = dims_of(op, "x", x, 4)
    if out is None:
        if not (0 < crop_h <= 2**20 and 0 < crop_w <= 2**20):
            raise ValueError(f"{op}: crop: expected sizes of 1 to 2^20, got {crop!r}")
        out = be.empty((shape[0], crop_h, crop_w, shape[3]))
    be.module.augment(
        x,
        offsets,
        mirror,
        noise,
        mean,
        out,
        crop_h,
        crop_w,
        real_of(op, "scale", scale),
        be.stream(),
    )
    return out
