"""Safetensors files: the header, which says what lies where and holds texts, and the arrays.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the arrays, one
after the other without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from convnet.common.dtypes import stored_type
from convnet.common.files import replace
from convnet.common.host_memory import CACHE_LINE
from convnet.common.reading import open_file
from convnet.common.typecheck import brief

DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8"}
_HEADER_ERROR = "Error while deserializing header: "  # begins most errors of the library
_NUMPY = {name: np.dtype(dtype) for dtype, name in DTYPES.items()}
_HALVES = {"F16": "float16", "BF16": "bfloat16"}
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


def write_tensors(
    path: Path, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> None:
    """Puts a file with these arrays in the place of the one that may be there.

    Args:
        path: where; its folder must exist.
        metadata: texts by name.
        arrays: contiguous, of the types in `DTYPES`, in their order in the file.

    Raises: OSError: it cannot be written.
    """
    layout = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    header, _ = header_of(metadata, layout)

    def write(file: Any) -> None:
        file.write(header)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)

    replace(path, write)


def read_header(path: Path, halves: bool = False) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata and the arrays of a file.

    Args:
        path: of the file.
        halves: whether arrays may be float16 and bfloat16, which nothing writes here.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: truncated, damaged, or no such file; one line.
    """
    with open_file(path) as file:
        end = 8 + int.from_bytes(file.read(8), "little")
    entries, known = {}, dict(_NUMPY)
    if halves:
        known |= {name: stored_type(dtype) for name, dtype in _HALVES.items()}
    try:
        with safe_open(path, "numpy") as tensors:
            for name in tensors.offset_keys():  # one after the other, without gaps
                part = tensors.get_slice(name)
                entry = Entry(known[part.get_dtype()], tuple(part.get_shape()), end)
                entries[name] = entry
                end += entry.nbytes
            return tensors.metadata() or {}, entries
    except SafetensorError as error:
        raise ValueError(brief(str(error).removeprefix(_HEADER_ERROR))) from None
    except KeyError as error:
        raise ValueError(f"an array of an unknown type, {error}") from None


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


def read_tensors(path: Path, halves: bool = False) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and all arrays of a file.

    Args:
        path, halves: as of `read_header`.

    Raises:
        OSError: it cannot be read, or is no regular file. ValueError: as `read_header`.
    """
    metadata, entries = read_header(path, halves)
    with open_file(path) as file:
        file.seek(min((entry.offset for entry in entries.values()), default=0))
        arrays = {}
        for name, entry in entries.items():
            array = arrays[name] = np.empty(entry.shape, entry.dtype)
            if array.nbytes and file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:  # type: ignore[attr-defined]
                raise ValueError("a file that became shorter while it was read")
    return metadata, arrays
