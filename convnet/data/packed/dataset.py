"""Packed images: what `convnet data pack` writes, read by index.

    packed.json              what this is: size, classes, shards of each part
    train-000000.tar ...     000000042.jpg, 000000042.cls (the label), as WebDataset has them
    train.index.npy          where each image lies: shard, offset, length, label
    train.tsv                number of the image, class, file it was made from
    statistics.safetensors   written by `convnet data mean`

Reading needs no list of a million Python objects: the index is mapped into memory, and an image is
one read at its offset.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.reading import map_npy, open_handle
from convnet.data.dataset import Images, check_labels, damaged, mismatch, readable, shown
from convnet.data.folder.class_folders import content_hash
from convnet.data.image import Resize, decode
from convnet.data.packed.manifest import PARTS, SUFFIXES, Part, read_manifest
from convnet.data.packed.sums import read_sums
from convnet.data.sums import Sums
from convnet.data.workers.decoded import CACHE_BYTES, DecodedDataset

INDEX = np.dtype(
    [("key", "<i8"), ("offset", "<i8"), ("length", "<i4"), ("shard", "<i4"), ("label", "<i4")]
)
_OPEN_FILES = 256  # shards a process keeps open

Item = tuple[int, int, int, int]  # key, offset, length, shard


def shard_name(part: str, number: int) -> str:
    return f"{part}-{number:06d}.tar"


def member_name(key: int, encoding: str) -> str:
    return f"{key:09d}.{SUFFIXES[encoding]}"


@dataclass(frozen=True)
class PackedDecoder:
    """Reads and decodes one image of a part.

    Attributes:
        stored: (height, width) of the packed images.
        size: (height, width) wanted.
        resize: how images get it, as for `decode`.
    """

    root: Path
    part: str
    encoding: str
    stored: tuple[int, int]
    size: tuple[int, int]
    resize: Resize = "crop"
    _files: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, item: Item) -> Images:
        key, _, _, shard = item
        name = (
            f"{shown(self.root / shard_name(self.part, shard))}: {member_name(key, self.encoding)}"
        )
        content = self.bytes_of(item, name)
        if self.encoding == "raw" and self.size == self.stored:
            head = ppm_head(self.stored)
            if content.startswith(head) and len(content) == len(head) + 3 * np.prod(self.stored):
                return np.frombuffer(content, np.uint8, offset=len(head)).reshape(*self.stored, 3)
        return decode(io.BytesIO(content), name, self.size, resize=self.resize)

    def bytes_of(self, item: Item, name: str) -> bytes:
        """The encoded image.

        Raises:
            DataError: the shard is gone or shorter than it was.
        """
        _, offset, length, shard = item
        path = self.root / shard_name(self.part, shard)
        with readable(path):
            handle = self._files.get(shard)
            kept = handle is not None
            if handle is None:
                handle = open_handle(path)
                # Of two threads that open the same shard, the first keeps its handle.
                room = len(self._files) < _OPEN_FILES
                kept = room and self._files.setdefault(shard, handle) == handle
            try:
                content = os.pread(handle, length, offset)
            finally:
                if not kept:
                    os.close(handle)
        if len(content) != length:
            raise mismatch(name, f"{length} bytes", len(content))
        return content

    def close(self) -> None:
        """Closes the shards; reading opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        self.close()


class PackedDataset(DecodedDataset):
    """One part of packed images.

    Args:
        decoder: reads them.
        index: records as `INDEX`, e.g. a mapped file.
        classes, description, keep, threads: as `DecodedDataset`.
    """

    def __init__(
        self,
        decoder: PackedDecoder,
        index: npt.NDArray[np.void],
        classes: tuple[str, ...],
        description: str,
        keep: bool = False,
        threads: int = 0,
    ) -> None:
        self.index = index
        self.packed = decoder
        labels = check_labels(index["label"], len(classes), f"{description}: index")
        shape = (*decoder.size, 3)
        super().__init__(labels, classes, shape, description, decoder, keep, threads)

    def items(self, indices: npt.NDArray[np.int64]) -> list[Item]:
        rows = self.index[indices]
        columns = [rows[name].tolist() for name in ("key", "offset", "length", "shard")]
        return list(zip(*columns, strict=True))

    def stored_sums(self, colour: bool = True) -> Sums | None:
        """What `convnet data mean` has stored, if the images are read at the packed size.

        Raises:
            DataError: the file is damaged, or of other images.
        """
        if self.packed.part != "train" or self.packed.size != self.packed.stored:
            return None
        return read_sums(self.packed.root)

    def close(self) -> None:
        super().close()
        self.packed.close()


def ppm_head(size: tuple[int, int]) -> bytes:
    """The first bytes of a raw image: a PPM file, which most programs can show."""
    return b"P6\n%d %d\n255\n" % (size[1], size[0])


# ---- opening -------------------------------------------------------------------------------------


def open_packed(
    root: Path,
    size: tuple[int, int] = (0, 0),
    *,
    resize: Resize | None = None,
    threads: int = 0,
    cache_bytes: int = CACHE_BYTES,
) -> tuple[PackedDataset, PackedDataset]:
    """Training and validation images of a packed folder.

    Args:
        root: the folder.
        size: (height, width) of the images; (0, 0): as they are packed. Others are scaled from
            there when they are read.
        resize: how the images got their size when they were packed; None: however that was.
        threads: how many threads decode; 0: one per usable CPU.
        cache_bytes: images are kept decoded in memory if all of them take no more than this.

    Raises:
        DataError: files that are missing, damaged or shorter than they were.
    """
    manifest = read_manifest(root)
    if resize not in (None, manifest.resize):
        expected = f'"{manifest.resize}", as {shown(root)} was packed'
        raise mismatch("data.resize", expected, f'"{resize}"')
    if min(size) < 1:
        if max(size) != 0:
            raise mismatch("data.size", "a height and a width, or [0, 0]", list(size))
        size = manifest.size
    indices = {part: _index(root, part, manifest.parts[part]) for part in PARTS}
    count = sum(map(len, indices.values()))
    keep = count * size[0] * size[1] * 3 <= cache_bytes
    height, width = manifest.size
    scaled = "" if size == manifest.size else f", scaled to {size[0]}x{size[1]}"
    # Said once, with the training images.
    old = "; packed by an earlier convnet, without a checksum of the labels"
    notes = ("" if manifest.complete else old, "")
    found = []
    for part, what, note in zip(PARTS, ("training", "validation"), notes, strict=True):
        text = (
            f"packed images in {shown(root)}: {len(indices[part]):,} {what} images;"
            f" {len(manifest.classes)} classes at {height}x{width}{scaled}{note}"
        )
        decoder = PackedDecoder(root, part, manifest.encoding, manifest.size, size, manifest.resize)
        found.append(PackedDataset(decoder, indices[part], manifest.classes, text, keep, threads))
    return found[0], found[1]


def _index(root: Path, part: str, said: Part) -> npt.NDArray[np.void]:
    """The mapped index of a part, held against its checksum and the shards that are there."""
    path = root / f"{part}.index.npy"
    with readable(path, content="an index of images"):
        index = map_npy(path, INDEX)
    if index.shape != (said.images,):
        raise mismatch(path, f"an index of {said.images} images", list(index.shape))
    if said.index is not None and content_hash(path).hex() != said.index:
        raise damaged(path)
    for number, shard in enumerate(said.shards):
        place = root / shard_name(part, number)
        size = place.stat().st_size if place.is_file() else None
        if size != shard.bytes:
            got = "no such file" if size is None else f"{size:,}"
            raise mismatch(place, f"{shard.bytes:,} bytes", got)
    sizes = np.array([shard.bytes for shard in said.shards], np.int64)
    inside = (index["shard"] >= 0) & (index["shard"] < len(sizes))
    inside &= (index["offset"] >= 0) & (index["length"] >= 0)
    if inside.all():
        inside = index["length"] <= sizes[index["shard"]] - index["offset"]
    if not inside.all():
        first = int(np.flatnonzero(~inside)[0])
        raise mismatch(f"{shown(path)}: image {first}", "a place inside a shard", "none")
    return index
