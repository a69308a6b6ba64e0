"""packed.json, which says what a folder of packed images holds, and checksums of all of it.

The manifest has a checksum of itself, of the shards and of the indices, which hold the labels.
Version 1 had those of the shards only; it is still read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnet.common.reading import JSON, parse_json, read_bytes
from convnet.data.dataset import DataError, shown
from convnet.data.image import MAX_PIXELS

MANIFEST = "packed.json"
FORMAT, VERSION = "convnet packed images", 2
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
        size: (height, width) of the images; encoding: "jpeg" or "raw".
        digest: of the file, by which statistics know the images that they are of.
        complete: whether labels and classes have checksums (from version 2 on).
    """

    size: tuple[int, int]
    encoding: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    digest: str
    complete: bool


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
    try:
        content = read_bytes(path, JSON)
        said = parse_json(content)
    except OSError as error:
        raise DataError(
            f"{shown(path)}: expected packed images (convnet data pack), got {error.strerror}"
        ) from None
    except ValueError as error:
        raise DataError(
            f"{shown(path)}: expected JSON, got a damaged file ({shown(str(error))[:100]})"
        ) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise DataError(f'{shown(path)}: expected the format "{FORMAT}", got another file')
    version = said.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise DataError(
            f"{shown(path)}: expected version 1 to {VERSION}, got {shown(str(version))[:20]}; a"
            " newer convnet has made it"
        )
    if version > 1 and said.get(_CHECKSUM) != digest_of(_canonical(said)):
        raise DataError(f"{shown(path)}: damaged file (its checksum does not match)")
    try:
        return _checked(said, version, digest_of(content))
    except ValueError as error:
        raise DataError(
            f"{shown(path)}: expected a whole description, got a damaged one ({error})"
        ) from None


def _checked(said: dict[str, Any], version: int, digest: str) -> Manifest:
    size, encoding, classes = said.get("size"), said.get("encoding"), said.get("classes")
    if not isinstance(size, list) or len(size) != 2 or not all(map(_is_count, size)):
        raise ValueError("size: expected a height and a width")
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ValueError(f"size: expected 1 to {MAX_PIXELS:,} pixels")
    if not isinstance(encoding, str) or encoding not in SUFFIXES:
        raise ValueError("encoding: expected jpeg or raw")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: expected a list of names")
    if not isinstance(said.get("parts"), dict):
        raise ValueError("parts: expected a table")
    parts = {part: _part(said["parts"].get(part), part, version) for part in PARTS}
    return Manifest((size[0], size[1]), encoding, tuple(classes), parts, digest, version > 1)


def _part(said: Any, part: str, version: int) -> Part:
    if not isinstance(said, dict) or not _is_count(said.get("pictures")):
        raise ValueError(f"{part}: expected the number of images")
    shards = said.get("shards")
    if not isinstance(shards, list):
        raise ValueError(f"{part}: expected a list of shards")
    for shard in shards:
        if not isinstance(shard, dict) or not _is_count(shard.get("bytes")):
            raise ValueError(f"{part}: a shard without its size")
        if not _is_checksum(shard.get(_CHECKSUM)):
            raise ValueError(f"{part}: a shard without its checksum")
    index = said.get("index")
    if version > 1 and not _is_checksum(index):
        raise ValueError(f"{part}: an index without its checksum")
    found = tuple(Shard(shard["bytes"], shard[_CHECKSUM]) for shard in shards)
    return Part(said["pictures"], found, index if version > 1 else None)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
