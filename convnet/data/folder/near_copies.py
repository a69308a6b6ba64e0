"""Images that look the same although their files differ: scaled, compressed anew, turned grey.

Each image has a perceptual hash of 64 bits, which of its lowest spatial frequencies are strong
(imagehash's `phash`: 32 x 32 pixels, cosine transform, median). Images whose hashes differ in a few
bits look alike; chains of such pairs are one group.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.common import distribution
from convnet.common.progress import counted, progress
from convnet.data.dataset import shown
from convnet.data.folder.class_folders import in_threads
from convnet.data.image import decode

# Bits, of 64, in which near-copies differ at most. Drawings at 60 % of their size and as JPEG of
# quality 60 differ in 2 at most, different ones nearly always in 12 and more.
NEAR = 4
_BITS = 64
_SIDE = 128  # images are decoded to this before they are hashed
_PAIRS = 1 << 22  # compared at a time

Hashes = npt.NDArray[np.uint64]


def require(key: str) -> None:
    """Raises ConfigError, naming what asks for it and the extra, where imagehash is missing."""
    distribution.require("imagehash", "dedup", key)


def perceptual_hash(path: Path) -> int:
    """The hash of an image file, 64 bits.

    Raises: DataError: it cannot be decoded.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010,
    section 3.2; computed by imagehash.
    """
    import imagehash

    pixels = decode(path, shown(path), (_SIDE, _SIDE), channels=1, resize="stretch")
    bits = imagehash.phash(Image.fromarray(pixels[:, :, 0])).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_groups(hashes: Hashes, distance: int = NEAR) -> list[list[int]]:
    """Groups of images whose hashes lie near each other, or are joined by such pairs.

    Args:
        hashes: uint64 [N].
        distance: bits in which a pair differs at most, 0 to 63.

    Returns: for each group of two and more its numbers, ascending; groups by the first of them.
    """
    different, place = np.unique(hashes, return_inverse=True)
    parent = np.arange(len(different))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = int(parent[at])
        return at

    for one, other in _pairs(different, distance):
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    rows: dict[int, list[int]] = {}
    for row, at in enumerate(place.tolist()):
        rows.setdefault(root(at), []).append(row)
    return sorted(group for group in rows.values() if len(group) > 1)


def _pairs(hashes: Hashes, distance: int) -> Iterator[tuple[int, int]]:
    """Pairs within a distance d of each other. Of d + 1 bands of bits they share at least one, so
    that only hashes that share a band are compared."""
    ends = np.linspace(0, _BITS, distance + 2).astype(int)
    bands = list(itertools.pairwise(ends.tolist()))
    for low, high in counted(bands, len(bands), "grouping copies", "parts of hashes"):
        band = hashes >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            yield from _pairs_among(hashes, rows, distance)


def _pairs_among(
    hashes: Hashes, rows: npt.NDArray[np.intp], distance: int
) -> Iterator[tuple[int, int]]:
    """Pairs within a distance among some hashes, all compared with all."""
    step = max(1, _PAIRS // max(1, len(rows)))
    for start in range(0, len(rows) if len(rows) > 1 else 0, step):
        some = rows[start : start + step]
        far = np.bitwise_count(hashes[some, None] ^ hashes[None, rows])
        for a, b in np.argwhere(far <= distance).tolist():
            if some[a] < rows[b]:
                yield int(some[a]), int(rows[b])


def hashes_of(paths: Sequence[Path], threads: int = 0) -> Hashes:
    """The perceptual hash of each file, uint64 [N]. Raises: DataError."""
    with progress("looking for copies", "files") as tell:
        return np.array(in_threads(perceptual_hash, paths, threads, tell), np.uint64)


def as_one_file(digests: Sequence[bytes], groups: Sequence[Sequence[int]]) -> list[bytes]:
    """Hashes of contents in which all images of a group have the same, the smallest of theirs."""
    found = list(digests)
    for group in groups:
        least = min(found[row] for row in group)
        for row in group:
            found[row] = least
    return found
