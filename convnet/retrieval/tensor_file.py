"""Large arrays in one safetensors file that is mapped into memory, to be written and read in parts.

The format is https://huggingface.co/docs/safetensors: a length, a JSON header, the arrays. Facts
about the arrays are JSON in the header's metadata. A last tensor, "sha256", holds the digest of the
facts and of all other arrays; it is zero while the file is being written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.reading import parse_json
from convnet.common.tensor_header import Entry, header_of, read_header, sha256_of
from convnet.data.dataset import DataError, damaged, mismatch, readable, shown

DIGEST = "sha256"


@dataclass
class TensorFile:
    """An open file.

    Attributes:
        path: the file.
        facts: JSON values.
        arrays: name -> array mapped into memory: reading a part reads that part of the file.
    """

    path: Path
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def flush(self) -> None:
        """Waits until what was written into the arrays is on the disk."""
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()

    def digest(self) -> bytes:
        """SHA-256 over the facts and all arrays but the digest itself."""
        arrays = {name: array for name, array in self.arrays.items() if name != DIGEST}
        return sha256_of(json.dumps(self.facts, sort_keys=True), arrays)

    def seal(self) -> None:
        """Stores the digest: nothing may be written after this."""
        self.arrays[DIGEST][...] = np.frombuffer(self.digest(), np.uint8)
        self.flush()

    def verify(self) -> None:
        """Reads all of the file and holds it against its digest.

        Raises: DataError where they differ.
        """
        if self.digest() != self.arrays[DIGEST].tobytes():
            raise damaged(self.path)


def create(
    path: Path,
    facts: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> TensorFile:
    """Makes a file whose space on the disk is taken now.

    Args:
        path: replaced if it is there.
        facts: JSON values.
        tensors: name -> (dtype, shape) of arrays of zeros, to be written to; float32, int64, int32
            or uint8.
        arrays: others, by name.

    Raises: OSError: it cannot be written, for example for lack of space.
    """
    given = dict(arrays or {})
    layout = {name: (array.dtype.name, array.shape) for name, array in given.items()}
    layout |= {**tensors, DIGEST: ("uint8", (32,))}
    order = sorted(layout, key=lambda name: -np.dtype(layout[name][0]).itemsize)  # aligned
    text = json.dumps(dict(facts), sort_keys=True)
    header, size = header_of({"convnet": text}, {name: layout[name] for name in order})
    with path.open("wb") as file:
        file.write(header)
        file.flush()
        try:
            if hasattr(os, "posix_fallocate"):  # else a full disk would be a SIGBUS, later
                os.posix_fallocate(file.fileno(), 0, len(header) + size)
            else:
                file.truncate(len(header) + size)
        except OSError as error:
            path.unlink()
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    file_of_zeros = open_tensors(path, write=True)
    for name, array in given.items():
        file_of_zeros.arrays[name][...] = array
    file_of_zeros.flush()
    return file_of_zeros


def open_tensors(path: Path, write: bool = False) -> TensorFile:
    """Opens a file that `create` has made. Its structure is checked, its content not: see `verify`.

    Raises: DataError: missing, truncated, or not one of these files.
    """
    try:
        with readable(path):
            metadata, entries = read_header(path)
            facts = parse_json(metadata["convnet"]) if "convnet" in metadata else None
            arrays = {name: _mapped(path, entry, write) for name, entry in entries.items()}
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{shown(path)}: damaged file ({error})") from None
    digest = arrays.get(DIGEST)
    if not isinstance(facts, dict) or digest is None or digest.nbytes != 32:
        raise mismatch(path, "a file of convnet's", "another safetensors one")
    return TensorFile(path, facts, arrays)


def _mapped(path: Path, entry: Entry, write: bool) -> np.ndarray:
    if 0 in entry.shape:  # nothing to map
        return np.zeros(entry.shape, entry.dtype)
    return np.memmap(path, entry.dtype, "r+" if write else "r", entry.offset, entry.shape)
