"""Reads the synsets of an ILSVRC development kit: `data/meta.mat`, a MATLAB file of version 5.

Only what that file needs is understood: compressed or plain elements, arrays of structures, text
and real numbers, within limits far above what it takes.
Source: MathWorks, "MAT-File Format", version 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.reading import Budget, Limit, read_bytes
from convnet.data.dataset import mismatch, shown
from convnet.data.inflate import inflate

_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4  # classes of arrays; numbers are 6 .. 15
_INFLATED = Limit(1 << 26, "bytes when it is decompressed")  # ILSVRC's has under 4 MiB
_ELEMENTS = Limit(400_000, "elements in it")  # and under 100,000
_FIELDS = 100  # of a structure; those of ILSVRC have 8
_DEPTH = 8  # elements within one another; in ILSVRC's files 4
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}


def read_synsets(path: Path) -> list[str]:
    """The synset (such as n01440764) of number 1, of number 2, ...

    Raises:
        DataError: the file cannot be read, or is none of ILSVRC's.
    """
    try:
        numbered = _Reader().numbered(read_bytes(path, _INFLATED))
    except OSError as error:
        raise mismatch(path, "a readable file", error.strerror) from None
    except (struct.error, zlib.error, ArithmeticError, LookupError, TypeError, ValueError) as error:
        got = f"another file ({type(error).__name__}: {shown(' '.join(str(error).split()))[:80]})"
        raise mismatch(path, "the meta.mat of an ILSVRC development kit", got) from None
    if not numbered or sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise mismatch(path, "synsets numbered from 1 on", f"{len(numbered)} others")
    return [numbered[number] for number in range(1, len(numbered) + 1)]


class _Reader:
    """Reads one file, and counts what it takes."""

    def __init__(self) -> None:
        self._inflated, self._elements = Budget(_INFLATED), Budget(_ELEMENTS)

    def numbered(self, content: bytes) -> dict[int, str]:
        """Number -> synset."""
        if content[126:128] != b"IM":
            raise ValueError("no little-endian MATLAB file of version 5")
        for kind, data in self._parts(content[128:]):
            if kind == _COMPRESSED:
                whole = inflate(data, self._inflated)
                inner = list(self._parts(whole))
            else:
                inner = [(kind, data)]
            for kind, data in inner:
                fields = self._matrix(data, 1) if kind == _MATRIX else None
                if isinstance(fields, dict) and "WNID" in fields:
                    return _pairs(fields)
        raise ValueError("no synsets in it")

    def _parts(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, content) of each element, one after the other."""
        place = 0
        while place + 8 <= len(data):
            self._elements.spend()
            kind, size = struct.unpack_from("<II", data, place)
            if kind >> 16:  # a small element: size and type in one word, then up to four bytes
                size, kind = kind >> 16, kind & 0xFFFF
                yield kind, data[place + 4 : place + 4 + min(size, 4)]
                place += 8
                continue
            content = data[place + 8 : place + 8 + size]
            if len(content) < size:
                raise ValueError("the file ends too early")
            place += 8 + size + (0 if kind == _COMPRESSED else -size % 8)
            yield kind, content

    def _matrix(self, data: bytes, depth: int) -> Any:
        """An array: a dict of lists for structures, a str for text, a NumPy array for numbers."""
        if depth > _DEPTH:
            raise ValueError(f"arrays nested more than {_DEPTH} deep")
        parts = list(self._parts(data))
        if not parts:
            return np.empty(0)
        array_class = parts[0][1][0]
        if array_class == _STRUCT:
            length = struct.unpack("<i", parts[3][1])[0]
            names = parts[4][1]
            if length < 1 or len(names) > length * _FIELDS:
                raise ValueError(f"a structure of names of {length} bytes, {len(names)} in all")
            fields = [
                names[at : at + length].split(b"\0")[0].decode()
                for at in range(0, len(names), length)
            ]
            values = [self._matrix(content, depth + 1) for _, content in parts[5:]]
            return {name: values[row :: len(fields)] for row, name in enumerate(fields)}
        if len(parts) < 4:
            return np.empty(0)
        kind, content = parts[3]
        if array_class == _CHAR:
            if kind in _TEXT:
                return content.decode(_TEXT[kind])
            return "".join(map(chr, np.frombuffer(content, "<" + _TYPES[kind]).tolist()))
        if array_class < 6:
            raise ValueError(f"an array of class {array_class}")
        return np.frombuffer(content, "<" + _TYPES[kind])


def _pairs(fields: dict[str, list[Any]]) -> dict[int, str]:
    """Number -> synset, of the fields that ILSVRC's structure has."""
    keys = [name for name in fields if name.endswith("_ID")]
    if not keys:
        raise ValueError("synsets without numbers")
    pairs = zip(fields[keys[0]], fields["WNID"], strict=True)
    return {int(np.asarray(number).item()): str(name) for number, name in pairs}
