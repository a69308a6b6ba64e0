"""The header of a safetensors file: what lies where, and the text beside it.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the arrays, one
after the other without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convnet.common.host_memory import CACHE_LINE
from convnet.common.reading import Limit, open_file, parse_json

DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8"}
_NUMPY = {name: np.dtype(dtype) for dtype, name in DTYPES.items()}
_HEADER = Limit(100_000_000, "bytes in the header")  # that of the format
_AXES = 8
_HASHED = 1 << 24  # bytes at a time: arrays may be mapped files


@dataclass(frozen=True)
class Entry:
    """One array: its type and shape, and where in the file it begins."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def header_of(
    metadata: Mapping[str, str], arrays: Mapping[str, tuple[str, tuple[int, ...]]]
) -> tuple[bytes, int]:
    """The header of a new file, padded so that the arrays begin at a cache line.

    Args:
        metadata: texts by name.
        arrays: dtype (a key of `DTYPES`) and shape by name, in the order of the arrays.

    Returns: the first bytes of the file, and how many bytes of arrays follow.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in arrays.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        place = {"shape": list(shape), "data_offsets": [start, end]}
        header[name] = {"dtype": DTYPES[dtype], **place}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % CACHE_LINE)
    return len(text).to_bytes(8, "little") + text, end


def read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata and the arrays of an open file.

    Raises:
        ValueError: truncated, damaged, or no such file; one line.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise ValueError("no header, or one that is cut short")
    _HEADER.check(length)
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("a header that is no table")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata that are no text")
    try:
        "".join([*header, *metadata.values()]).encode()
    except UnicodeEncodeError:  # JSON can hold halves of characters
        raise ValueError("names or metadata that are no text") from None
    entries = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
    end = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != end:
            raise ValueError("arrays that overlap, or with gaps between them")
        end += entry.nbytes
    if end != size:
        raise ValueError(f"arrays to byte {end:,} in a file of {size:,}")
    return metadata, entries


def _entry(name: str, fields: Any, start: int) -> Entry:
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= set(fields):
        raise ValueError(f"{name[:60]!r}: an array without its type, shape and place")
    shape, place = fields["shape"], fields["data_offsets"]
    if fields["dtype"] not in DTYPES.values():
        raise ValueError(f"{name[:60]!r}: an array of an unknown type")
    if not _are_sizes(shape) or len(shape) > _AXES or not _are_sizes(place) or len(place) != 2:
        raise ValueError(f"{name[:60]!r}: an array whose shape or place is none")
    entry = Entry(_NUMPY[fields["dtype"]], tuple(shape), start + place[0])
    if entry.nbytes != place[1] - place[0]:
        raise ValueError(f"{name[:60]!r}: an array of another size than its shape says")
    return entry


def sha256_of(text: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 over a text and contiguous arrays, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _HASHED):
            digest.update(flat[start : start + _HASHED].data)
    return digest.digest()


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and all arrays of a file.

    Raises:
        OSError: it cannot be read, or is no regular file. ValueError: as `read_header`.
    """
    with open_file(path) as file:
        metadata, entries = read_header(file)
        arrays = {}
        for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
            array = arrays[name] = np.empty(entry.shape, entry.dtype)
            if array.nbytes and file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:  # type: ignore[attr-defined]
                raise ValueError("a file that became shorter while it was read")
    return metadata, arrays
