"""packed.json, which says what a folder of packed images holds, and checksums of all of it.

The manifest has a checksum of itself, of the shards and of the indices, which hold the labels.
Version 1 had those of the shards only; it is still read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convnet.common.reading import JSON, parse_json, read_bytes
from convnet.common.typecheck import MismatchError, convert
from convnet.data.dataset import damaged, mismatch, readable, shown
from convnet.data.image import MAX_PIXELS, Resize

MANIFEST = "packed.json"
# The words of files stay, whatever the things are called since.
FORMAT, VERSION = "convnet packed pictures", 2
PARTS = ("train", "val")
SUFFIXES = {"jpeg": "jpg", "raw": "ppm"}
_CHECKSUM = "blake2b"  # the key of a checksum, here and of each shard
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Shard:
    """A tar file: its size and its checksum."""

    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Part:
    """Training or validation: images, shards, and the checksum of the index (None: version 1)."""

    images: int
    shards: tuple[Shard, ...]
    index: str | None


@dataclass(frozen=True)
class Manifest:
    """What packed.json says.

    Attributes:
        size: (height, width) of the images.
        encoding: "jpeg" or "raw".
        classes: the name of each class.
        parts: "train" and "val" -> what each holds.
        resize: how the images got their size; see `convnet.data.image.decode`.
        digest: checksum of the file; stored statistics name it, to say which images they are of.
        complete: whether labels and classes have checksums (from version 2 on).
    """

    size: tuple[int, int]
    encoding: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    digest: str
    complete: bool
    resize: Resize = "crop"


def digest_of(content: bytes) -> str:
    """The checksum used throughout."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _canonical(said: dict[str, Any]) -> bytes:
    rest = {key: value for key, value in said.items() if key != _CHECKSUM}
    return json.dumps(rest, sort_keys=True).encode()


def manifest_text(said: dict[str, Any]) -> bytes:
    """packed.json with its checksum."""
    whole = {"format": FORMAT, "version": VERSION, **said}
    whole[_CHECKSUM] = digest_of(_canonical(whole))
    return (json.dumps(whole, indent=1) + "\n").encode()


def is_packed(path: Path) -> bool:
    """Whether there are packed images in this folder."""
    return (path / MANIFEST).is_file()


def read_manifest(root: Path) -> Manifest:
    """packed.json.

    Raises:
        DataError: it is missing, damaged, or of a later version.
    """
    path = root / MANIFEST
    with readable(path, "packed images (convnet data pack)", content="JSON"):
        content = read_bytes(path, JSON)
        said = parse_json(content)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise mismatch(path, f'the format "{FORMAT}"', "another file")
    version = said.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        got = f"{shown(str(version))[:20]}; a newer convnet has made it"
        raise mismatch(path, f"version 1 to {VERSION}", got)
    if version > 1 and said.get(_CHECKSUM) != digest_of(_canonical(said)):
        raise damaged(path)
    try:
        size = _field(said, "size", tuple[int, int], _is_size)
        encoding = _field(said, "encoding", Literal["jpeg", "raw"])
        resize = _field({"resize": "crop", **said}, "resize", Resize)
        classes = _field(said, "classes", tuple[str, ...])
        parts = _field(said, "parts", dict)
        found = {part: _part(_field(parts, part, dict), version) for part in PARTS}
    except ValueError as error:
        raise mismatch(path, "a whole description", f"a damaged one ({error})") from None
    return Manifest(size, encoding, classes, found, digest_of(content), version > 1, resize)


def _part(said: dict[str, Any], version: int) -> Part:
    shards = tuple(
        Shard(_field(shard, "bytes", int, _is_count), _field(shard, _CHECKSUM, str, _is_checksum))
        for shard in _field(said, "shards", tuple[dict, ...])
    )
    index = _field(said, "index", str, _is_checksum) if version > 1 else None
    return Part(_field(said, "pictures", int, _is_count), shards, index)


def _field(
    said: dict[str, Any], key: str, hint: Any, fits: Callable[[Any], bool] = lambda value: True
) -> Any:
    """The value of a key. Raises: ValueError: it is of another type, or does not fit."""
    try:
        value = convert(said.get(key), hint)
    except MismatchError as error:
        raise ValueError(f"{key}: expected {error.expected}") from None
    if not fits(value):
        raise ValueError(f"{key}: got {str(value)[:60]}")
    return value


def _is_size(value: tuple[int, int]) -> bool:
    return min(value) > 0 and value[0] * value[1] <= MAX_PIXELS


def _is_count(value: int) -> bool:
    return 0 <= value < 1 << 62


def _is_checksum(value: str) -> bool:
    return _HEX.fullmatch(value) is not None
