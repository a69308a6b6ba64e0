"""PyTorch's files: the zip format of 1.6 and later, and the one before it.

zip      a folder with `data.pkl`, the pickle; `data/<key>`, the storages; `byteorder`
before   four pickles, one after the other: a magic number, a version, facts of the machine, and the
         saved object; a fifth lists the keys of the storages, which follow, each after its length

Zip entries are taken as they lie: a compressed one could expand to anything, and torch writes none.
Source: PyTorch, torch/serialization.py.
"""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convnet.common.pickle_machine import Machine, RefusedError, text_of
from convnet.common.reading import BudgetError, open_file
from convnet.exchange.errors import ExchangeError
from convnet.exchange.torch.pickles import Storage, StorageType, Tensor, TorchMachine

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_ENTRIES = 100_000  # of a zip file


class Archive:
    """An open file of PyTorch's.

    Args:
        path: the file.

    Attributes:
        saved: what was saved: dictionaries, lists, values, and `Tensor`s in the place of tensors.

    Raises:
        ExchangeError: damaged, or anything in it that a state dict does not hold.
        OSError: it cannot be read, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_file(path)
        try:
            self._content = self._open()
            self.saved = self._content.saved
        except Exception as error:  # the machine raises nearly anything on damaged pickles
            self._file.close()
            raise self._error(error) from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor: float32, or an integer type as it is.

        Raises: ExchangeError: the file does not hold them.
        """
        storage, dtype = tensor.storage, tensor.storage.kind.dtype(self._content.order)
        try:
            content = self._content.storage(storage)
        except Exception as error:
            raise self._error(error) from None
        there = len(content) // dtype.itemsize
        if there < storage.start + storage.count:
            expected = f"expected {storage.start + storage.count} numbers in storage"
            raise self._error(RefusedError(f"{expected} {storage.key[:40]}, got {there}"))
        flat = np.frombuffer(content, dtype, there)
        strides = [step * flat.itemsize for step in tensor.stride]
        part = flat[storage.start + tensor.offset :] if 0 not in tensor.shape else flat[:0]
        values = np.lib.stride_tricks.as_strided(part, tensor.shape, strides, writeable=False)
        if storage.kind.bfloat16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype("f4" if dtype.kind == "f" else dtype.newbyteorder("="))

    def _open(self) -> _ZipContent | _LegacyContent:
        first = self._file.read(4)
        self._file.seek(0)
        if first == b"PK\x03\x04":
            return _ZipContent(self._file)
        if first[:1] != b"\x80":
            raise RefusedError(
                "expected a file of torch.save, got one that is no zip and no pickle"
            )
        return _LegacyContent(self._file)

    def _error(self, error: Exception) -> Exception:
        damaged = isinstance(error, OSError) and error.errno == errno.EINVAL  # a place before 0
        if isinstance(error, OSError | MemoryError) and not damaged:
            return error
        if isinstance(error, RefusedError | BudgetError):
            return ExchangeError(f"{self._path}: {error}")
        why = " ".join(str(error).split())[:100] or type(error).__name__
        got = "one that ends early" if isinstance(error, EOFError) else f"a damaged one ({why})"
        return ExchangeError(f"{self._path}: expected a file of torch.save, got {got}")


class _ZipContent:
    """A file of 1.6 and later. Attributes: saved, as in `Archive`; order: "<" or ">"."""

    def __init__(self, file: BinaryIO) -> None:
        self._size = os.fstat(file.fileno()).st_size
        self._zip = zipfile.ZipFile(_Clamped(file))
        names = self._zip.namelist()
        if len(names) > _ENTRIES:
            raise RefusedError(f"expected at most {_ENTRIES} entries, got {len(names)}")
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise RefusedError(f"expected one data.pkl in the zip file, got {len(pickles)}")
        self._folder = pickles[0].removesuffix("data.pkl")
        if self._folder + "constants.pkl" in names:
            raise RefusedError("expected a state dict, got a program of torch.jit.save")
        order = self._folder + "byteorder"
        self.order = ">" if order in names and self._entry(order) == b"big" else "<"
        content = self._entry(pickles[0])
        self.saved = TorchMachine(io.BytesIO(content), len(content)).load()

    def storage(self, storage: Storage) -> bytes:
        """All numbers of a storage, as they lie in the file."""
        return self._entry(f"{self._folder}data/{storage.key}")

    def _entry(self, name: str) -> bytes:
        info = self._zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise RefusedError(f"expected {name[-60:]!a} uncompressed, as torch writes it")
        return self._zip.read(info)


class _LegacyContent:
    """A file from before 1.6. Attributes as of `_ZipContent`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = clamped = _Clamped(file)
        magic, version, facts = (self._plain(clamped) for _ in range(3))
        if magic != _MAGIC or version != _VERSION:
            raise RefusedError("expected the magic number of torch.save, got a pickle without it")
        little = facts.get("little_endian", True) if isinstance(facts, dict) else True
        self.order = "<" if little else ">"
        machine = TorchMachine(clamped, clamped.size)  # type: ignore[arg-type]
        self.saved = machine.load()
        keys = self._plain(clamped)
        if not isinstance(keys, list) or not all(isinstance(key, str | bytes) for key in keys):
            raise RefusedError("expected the keys of the storages, got something else")
        self._places = self._find([text_of(key) for key in keys], machine.kinds)

    def _plain(self, file: _Clamped) -> Any:
        return Machine(file, {}, file.size, "plain values").load()  # type: ignore[arg-type]

    def _find(self, keys: list[str], kinds: dict[str, StorageType]) -> dict[str, tuple[int, int]]:
        """Where each storage begins, and how many bytes it has."""
        places, end = {}, self._file.tell()
        for key in keys:
            if key not in kinds:
                raise RefusedError(f"expected storages of tensors, got another: {key[:40]!a}")
            self._file.seek(end)
            count = int.from_bytes(self._file.read(8), "little" if self.order == "<" else "big")
            size = count * kinds[key].dtype("<").itemsize
            places[key], end = (end + 8, size), end + 8 + size
            if end > self._file.size:
                raise EOFError
        return places

    def storage(self, storage: Storage) -> bytes:
        """All numbers of a storage, as they lie in the file."""
        start, size = self._places[storage.key]
        self._file.seek(start)
        return self._file.read(size)


class _Clamped:
    """A file of which no more is asked for than there is: a read allocates before it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self._file, self.seek, self.tell, self.readline = file, file.seek, file.tell, file.readline
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        """At most as much as is left, which is what a number below 0 asks for."""
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))
