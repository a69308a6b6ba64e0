"""Drawing the order of an epoch, and each image's crop, mirror, turn, size and colour noise.

All of it is a function of (seed, epoch, index of the image) through Philox counters, whatever the
batch size, the number of threads, or the number of interruptions. The pixels are then changed by
the operation `augment` on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convnet import ops
from convnet.config import AugmentConfig
from convnet.data.dataset import Labels, mismatch
from convnet.data.sums import Statistics

# Philox streams. Those of dropout are the numbers of the layers, far below these.
_ORDER_STREAM = 0x80000000
_CROP_STREAM = 0x80000001
_CHOICE_STREAM = 0x80000002
_TURN_STREAM = 0x80000003
_NOISE_STREAM = 0x80000100  # and the following ones, for more than four channels

_TWO_32 = 1 << 32
_GREY_LEVELS = 255.0

Indices = npt.NDArray[np.int64]


class Variation(NamedTuple):
    """How each image of a batch is varied: the arguments of `ops.augment`.

    Attributes:
        offsets: int32 [N, 2], row and column in the image at which the crop starts; may be
            negative, or end outside the image.
        mirror: uint8 [N], 1 where the crop is flipped left to right.
        noise: float32 [N, C], added to every pixel, in grey levels (0 .. 255); None without noise.
        affine: float32 [N, 2, 2], what takes a place of the crop, from its centre, to the place in
            the image; None where images are neither turned nor scaled.
    """

    offsets: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.float32] | None
    affine: npt.NDArray[np.float32] | None = None


def epoch_order(seed: int, epoch: int, count: int) -> Indices:
    """The order in which epoch `epoch` shows `count` images: a permutation, int64 [count].

    Images are sorted by 64 random bits each; of equal ones (never, in practice) the first stays
    first.
    """
    bits = ops.philox(seed, _ORDER_STREAM, epoch, np.arange((count + 1) // 2, dtype=np.int64))
    keys = np.ascontiguousarray(bits).view(np.uint64).reshape(-1)[:count]
    return np.argsort(keys, kind="stable").astype(np.int64)


def balanced_order(seed: int, epoch: int, labels: Labels) -> Indices:
    """An epoch of as many images as there are, in which each class comes equally often.

    Of a small class every image comes several times; of a large one, others are left out in each
    epoch. What does not divide evenly is left to chance.

    Args:
        labels: int32 [N], the class of each image.

    Returns: int64 [N], numbers of images; that of an image that comes for the k-th time has
    (k - 1) N added, so that it is varied otherwise each time.
    """
    count = len(labels)
    present, sizes = np.unique(labels, return_counts=True)
    quota = np.full(len(present), count // len(present))
    extra = epoch_order(seed, epoch, len(present))[: count % len(present)]
    quota[extra] += 1
    lots = _bits64(seed, _CHOICE_STREAM, epoch, np.arange(count, dtype=np.int64))
    drawn = []
    for label, size, wanted in zip(present, sizes, quota, strict=True):
        images = np.flatnonzero(labels == label)
        images = images[np.argsort(lots[images], kind="stable")]
        place = np.arange(wanted)
        drawn.append(images[place % size] + place // size * count)
    chosen = np.sort(np.concatenate(drawn)).astype(np.int64)
    return chosen[np.argsort(_bits64(seed, _ORDER_STREAM, epoch, chosen), kind="stable")]


def _bits64(seed: int, stream: int, epoch: int, indices: Indices) -> npt.NDArray[np.uint64]:
    """64 random bits for each index."""
    bits = ops.philox(seed, stream, epoch, indices)
    return np.ascontiguousarray(bits[:, :2]).view(np.uint64).reshape(-1)


def crop_size(shape: tuple[int, int, int], augment: AugmentConfig) -> tuple[int, int]:
    """(height, width) of what the net sees; a 0 in the config stands for the whole image.

    Args:
        shape: (H, W, C) of the images.

    Raises:
        DataError: the crop is larger than the image with its padding.
    """
    sizes = []
    for axis, whole, wanted in zip(("height", "width"), shape, augment.crop, strict=False):
        if not 0 <= wanted <= whole + 2 * augment.pad:
            raise mismatch(
                f"augment.crop: {axis}",
                f"at most {whole + 2 * augment.pad} (images of {shape[0]}x{shape[1]}, pad"
                f" {augment.pad})",
                wanted,
            )
        sizes.append(wanted or whole)
    return sizes[0], sizes[1]


def draw_variation(
    seed: int,
    epoch: int,
    indices: Indices,
    shape: tuple[int, int, int],
    augment: AugmentConfig,
    stats: Statistics | None = None,
) -> Variation:
    """Random crops, mirrors, turns, sizes and noise for these images in this epoch.

    Crops start anywhere from `pad` pixels outside the image to where they end `pad` pixels
    outside, each place equally likely.

    Args:
        indices: int64 [N], which images of the data set; those of an image that is shown several
            times in an epoch differ by multiples of the size of the set.
        shape: (H, W, C) of the images.
        stats: the eigenvalues and eigenvectors for the noise.

    Raises:
        DataError: as `crop_size`; or noise is asked for without statistics of its channels.
    """
    height, width = crop_size(shape, augment)
    bits = ops.philox(seed, _CROP_STREAM, epoch, indices).astype(np.uint64)
    places = np.array(
        [shape[0] - height + 2 * augment.pad + 1, shape[1] - width + 2 * augment.pad + 1], np.uint64
    )
    # Multiplying and keeping the high half maps 32 bits evenly onto 0 .. places - 1.
    offsets = (bits[:, :2] * places // _TWO_32).astype(np.int32) - np.int32(augment.pad)
    mirror = np.zeros(len(indices), np.uint8)
    if augment.mirror:
        mirror = (bits[:, 2] >> np.uint64(31)).astype(np.uint8)
    noise = None
    if augment.colour_noise > 0:
        noise = _draw_noise(seed, epoch, indices, shape[2], augment.colour_noise, stats)
    return Variation(offsets, mirror, noise, _draw_affine(seed, epoch, indices, augment))


def centre(count: int, shape: tuple[int, int, int], augment: AugmentConfig) -> Variation:
    """The centre of every image, as it is: for evaluation."""
    height, width = crop_size(shape, augment)
    middle = ((shape[0] - height) // 2, (shape[1] - width) // 2)
    offsets = np.tile(np.array(middle, np.int32), (count, 1))
    return Variation(offsets, np.zeros(count, np.uint8), None)


def _draw_affine(
    seed: int, epoch: int, indices: Indices, augment: AugmentConfig
) -> npt.NDArray[np.float32] | None:
    """A turn by an angle in -rotate .. rotate, each as likely, and a size whose logarithm is as
    likely everywhere in the range, so that half as large comes as often as twice as large."""
    small, large = augment.scale
    if small == large == 1.0 and augment.rotate == 0.0:
        return None
    bits = ops.philox(seed, _TURN_STREAM, epoch, indices).astype(np.float64) / _TWO_32
    angle = np.deg2rad(augment.rotate) * (2.0 * bits[:, 0] - 1.0)
    shrink = small**-1.0 * (small / large) ** bits[:, 1]  # of the place that is read
    cos, sin = shrink * np.cos(angle), shrink * np.sin(angle)
    return np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2).astype(np.float32)


def _draw_noise(
    seed: int, epoch: int, indices: Indices, channels: int, std: float, stats: Statistics | None
) -> npt.NDArray[np.float32]:
    """sum_i a_i lambda_i p_i with a_i ~ N(0, std), in grey levels [N, C].

    The eigenvalues are those of intensities in 0 .. 1, so the noise is in these units too, and is
    brought to grey levels by 255. (An eigenvalue is a square: with intensities in 0 .. 255 the
    same formula would swamp every image.) Source: paper, section 4.1.
    """
    if stats is None or len(stats.eigenvalues) != channels:
        got = "none" if stats is None else f"those of {len(stats.eigenvalues)} channels"
        raise mismatch("augment.colour_noise", f"colour statistics of {channels} channels", got)
    a = std * normals(seed, epoch, indices, channels)
    return ((a * stats.eigenvalues) @ stats.eigenvectors.T * _GREY_LEVELS).astype(np.float32)


def normals(seed: int, epoch: int, indices: Indices, columns: int) -> npt.NDArray[np.float64]:
    """Independent N(0, 1) numbers, float64 [len(indices), columns], by the Box-Muller transform."""
    drawn = []
    for stream in range((columns + 3) // 4):
        bits = ops.philox(seed, _NOISE_STREAM + stream, epoch, indices).astype(np.float64)
        radius = np.sqrt(-2.0 * np.log((bits[:, 0::2] + 1.0) / _TWO_32))  # of (0, 1]: finite
        angle = 2.0 * np.pi * bits[:, 1::2] / _TWO_32
        drawn += [radius * np.cos(angle), radius * np.sin(angle)]
    return np.concatenate(drawn, axis=1)[:, :columns]
