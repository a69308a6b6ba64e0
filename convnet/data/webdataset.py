"""Shards as WebDataset has them: tar files in which an image and its label have one name.

    000017.jpg  000017.cls          or 000017.png 000017.json, where the label is a key of the JSON

The headers are read once; an image is read at its offset when it is asked for. Names, sizes and
texts are whatever somebody wrote: each shard has a budget.
Source: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from convnet.common.progress import counted
from convnet.common.reading import Budget, BudgetError, Limit, open_file, parse_json
from convnet.data.dataset import (
    DataError,
    Images,
    check_labels,
    expanded,
    mismatch,
    readable,
    shown,
)
from convnet.data.image import ImageError, Resize, decode
from convnet.data.inflate import DamagedError
from convnet.data.tar_files import BLOCK, parse_header
from convnet.data.workers.decoded import DecodedDataset

_MEMBERS = Limit(10_000_000, "members in a shard")
_LABEL = Limit(1 << 20, "bytes in a label")
_IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
_KEYS = ("cls", "label", "class")  # of a label in JSON


class _Place(NamedTuple):
    """Where a member lies: the shard, the offset and the length."""

    shard: int
    offset: int
    length: int


@dataclass(frozen=True)
class ShardDecoder:
    """Reads and decodes an image of a shard.

    Attributes:
        paths: of the shards.
        size: (height, width) of the images.
        channels: 3 for red, green and blue; 1 for grey.
        resize: how images get their size, as for `decode`.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]
    channels: int
    resize: Resize = "crop"

    def __call__(self, item: tuple[str, _Place]) -> Images:
        stem, place = item
        path = self.paths[place.shard]
        with readable(path), open_file(path) as file:
            file.seek(place.offset)
            content = io.BytesIO(file.read(place.length))
        name = stem.removeprefix("/")
        try:
            shortened = f"{shown(path)}: {shown(name[:200])}"
            return decode(content, shortened, self.size, self.channels, self.resize)
        except ImageError as error:
            raise DataError(f"{error}{_way_out(path, name)}") from None


class WebDataset(DecodedDataset):
    """Images in the shards of a WebDataset.

    Args:
        shards: .tar files, in order; not compressed.
        size: (height, width) of the images.
        classes: names of the classes; None: the numbers, or, where labels are texts, the texts
            sorted.
        channels: 3 for red, green and blue; 1 for grey.
        resize: how images get their size: "crop", "pad" or "stretch", as `data.resize` has it.

    Raises: DataError: damaged, or an image without a label.
    """

    def __init__(
        self,
        shards: Sequence[str | os.PathLike[str]],
        size: tuple[int, int],
        classes: Sequence[str] | None = None,
        channels: int = 3,
        resize: Resize = "crop",
    ) -> None:
        self.resize = resize
        self.paths = [Path(shard) for shard in shards]
        self.places: list[_Place] = []
        self.names: list[str] = []
        labels: list[int | str] = []
        told = counted(self.paths, len(self.paths), "reading", "shards")
        for number, path in enumerate(told):
            with readable(path):
                self._index(number, path, labels)
        if not labels:
            raise DataError("WebDataset: expected images with labels in the shards, got none")
        names, numbers = _numbered(labels, classes)
        description = f"WebDataset of {len(self.paths)} shards, {len(labels):,} images"
        checked = check_labels(numbers, len(names), description)
        decoder = ShardDecoder(tuple(self.paths), size, channels, resize)
        super().__init__(checked, names, (*size, channels), description, decoder)

    def _index(self, number: int, path: Path, labels: list[int | str]) -> None:
        """Notes the images of a shard and reads their labels."""
        groups: dict[str, dict[str, _Place]] = {}
        with open_file(path) as file:
            try:
                for name, offset, length in _members(file):
                    folder, _, base = name.rpartition("/")
                    stem, _, kind = base.partition(".")
                    group = groups.setdefault(f"{folder}/{stem}", {})
                    group[kind.lower()] = _Place(number, offset, length)
                for stem, group in groups.items():
                    image = next((group[kind] for kind in _IMAGES if kind in group), None)
                    if image is not None:
                        labels.append(_label(file, group, f"{shown(path)}: {shown(stem[:200])}"))
                        self.places.append(image)
                        self.names.append(stem)
            except (DamagedError, BudgetError) as error:
                raise mismatch(path, "a sound tar file", str(error)) from None
            except EOFError:
                raise mismatch(path, "a sound tar file", "one that ends early") from None

    def items(self, indices: npt.NDArray[np.int64]) -> list[tuple[str, _Place]]:
        return [(self.names[index], self.places[index]) for index in indices.tolist()]

    def part(self, indices: npt.NDArray[np.int64], description: str) -> WebDataset:
        """Some of the images, with the same classes.

        Args:
            indices: their numbers, int64 [n]; description: of what they are, one line.

        Returns: a set that reads the same shards.
        """
        other = copy.copy(self)
        other.labels, other.description = self.labels[indices], description
        other.places = [self.places[index] for index in indices.tolist()]
        other.names = [self.names[index] for index in indices.tolist()]
        return other


def open_shards(
    folder: Path, size: tuple[int, int], val_fraction: float, resize: Resize = "crop"
) -> tuple[WebDataset, WebDataset]:
    """Training and validation images in a folder of shards.

    Validation shards lie in a folder `val` (or `valid`, `validation`, `test`) beside one called
    `train`, or their names begin so. Where there are none, images are held out by a hash of their
    names: the same ones each time, whatever the order of the shards.

    Args:
        folder: with .tar files.
        size: (height, width) of the images.
        val_fraction: the share that is held out where there are no shards of them, in (0, 1).
        resize: how images get their size, as for `convnet.data.image.decode`.

    Raises: DataError: no shards, one that is damaged, an image without a label, or no size.
    """
    folder = expanded(folder)
    if min(size) < 1:
        raise mismatch("data.size", "a height and a width, for the images of shards", list(size))
    with readable(folder, "a folder of shards"):
        shards = sorted([*folder.glob("*.tar"), *folder.glob("*/*.tar")])
    words = {path: _part_of(path, folder) for path in shards}
    held_out = [path for path in shards if words[path] == "val"]
    rest = [path for path in shards if path not in held_out]
    if not rest:
        got = "none" if not shards else "validation shards alone"
        raise mismatch(folder, "shards of training images, *.tar or train/*.tar", got)
    train = WebDataset(rest, size, resize=resize)
    at = f"shards in {shown(folder)}"
    if held_out:
        val = WebDataset(held_out, size, train.classes, resize=resize)
        val.description = f"{at}: {len(val):,} validation images"
        train.description = f"{at}: {len(train):,} training images, {len(train.classes)} classes"
        return train, val
    digests = [hashlib.blake2b(name.encode("utf-8", "replace")).digest() for name in train.names]
    ranks = np.array([int.from_bytes(digest[:7], "big") for digest in digests])
    count = max(1, round(val_fraction * len(ranks)))
    if count == len(ranks):
        raise mismatch(folder, "several images, to hold some out", len(ranks))
    order = np.argsort(ranks, kind="stable")
    chosen, others = np.sort(order[:count]), np.sort(order[count:])
    text = f"{at}: {len(others):,} training images, {len(train.classes)} classes"
    return (
        train.part(others, text),
        train.part(chosen, f"{at}: {count:,} validation images (held out by name)"),
    )


def _way_out(path: Path, name: str) -> str:
    """How an image is taken out of a shard, where its name can stand in a command."""
    if not name.isprintable() or any(letter in name for letter in "*?[\\"):
        return ""
    words = (str(path), f"{name}.*")
    return f"; take it out: tar --delete --wildcards -f {shlex.join(words)}"


def _part_of(path: Path, folder: Path) -> str:
    """ "val" for a validation shard, by its folder or the beginning of its name; else ""."""
    name = path.name if path.parent == folder else path.parent.name
    return "val" if re.match(r"(?:val|valid|validation|test)(?![a-z])", name.lower()) else ""


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of each regular file in a tar file."""
    members, offset = Budget(_MEMBERS), 0
    end = os.fstat(file.fileno()).st_size
    while offset < end:
        file.seek(offset)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise EOFError
        if not header.strip(b"\0"):
            return
        members.spend()
        name, size, is_file = parse_header(header)
        if offset + BLOCK + size > end:
            raise EOFError
        if is_file:
            yield name, offset + BLOCK, size
        offset += BLOCK + size + -size % BLOCK


def _label(file: BinaryIO, group: dict[str, _Place], name: str) -> int | str:
    """The label of an image: the text of .cls, or a key of .json."""
    for kind in ("cls", "json"):
        if kind not in group:
            continue
        _LABEL.check(group[kind].length)
        file.seek(group[kind].offset)
        text = file.read(group[kind].length).decode("utf-8", "replace").strip()
        if kind == "cls":
            return int(text) if text.isdecimal() and len(text) < 10 else text
        try:
            table = parse_json(text)
        except ValueError as error:
            raise mismatch(f"{name}.json", "JSON", str(error)) from None
        for key in _KEYS:
            if isinstance(table, dict) and isinstance(table.get(key), int | str):
                return table[key]
        raise mismatch(f"{name}.json", f"a label, as one of {', '.join(_KEYS)}", "none of them")
    raise mismatch(name, "a label, .cls or .json", "an image without")


def _numbered(
    labels: list[int | str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """The names of the classes, and the labels as numbers of them."""
    texts = [label for label in labels if isinstance(label, str)]
    if not texts:
        count = max(int(label) for label in labels) + 1
        names = tuple(map(str, range(min(count, 1 << 20)))) if classes is None else tuple(classes)
        return names, [int(label) for label in labels]
    names = tuple(sorted({str(label) for label in labels})) if classes is None else tuple(classes)
    places = {name: number for number, name in enumerate(names)}
    for label in labels:
        if str(label) not in places:
            raise DataError(f"WebDataset: the class {str(label)[:60]!a} is none of those given")
    return names, [places[str(label)] for label in labels]
