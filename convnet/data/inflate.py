"""Decompressing gzip and zlib data a chunk at a time, within a budget."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from convnet.common.reading import Budget, BudgetError, Limit, open_file
from convnet.data.dataset import mismatch, readable

_CHUNK = 1 << 16  # compressed bytes read at a time
_READ = 1 << 22  # decompressed bytes read at a time
_GZIP_MAGIC = b"\x1f\x8b"
_MEMBERS = Limit(100_000, "members in a gzip file")


class Stream(Protocol):
    """Something that bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer only where the stream ends."""


class DamagedError(ValueError):
    """What is wrong with a file, without its name."""


@contextlib.contextmanager
def decompressing(path: Path, what: str, budget: Budget) -> Iterator[Stream]:
    """The content of a file, decompressed where it is gzipped (told apart by its first bytes).

    Args:
        path: the file.
        what: it is, as messages name it: "gzip file".
        budget: limits the decompressed bytes; a plain file does not use it.

    Raises:
        DataError: it cannot be read, ends early, is damaged, or expands to too much.
    """
    try:
        with readable(path), open_file(path) as file:
            yield maybe_gzip(file, budget)
    except EOFError:
        raise mismatch(path, f"a whole {what}", "one that ends early (truncated)") from None
    except (zlib.error, DamagedError, BudgetError) as error:
        raise mismatch(path, f"a whole {what}", f"one that cannot be read: {error}") from None


def read_up_to(stream: Stream, count: int) -> bytearray:
    """Up to `count` bytes; memory grows with what is there, not with what a header claims."""
    found = bytearray()
    while len(found) < count and (part := stream.read(min(_READ, count - len(found)))):
        found += part
    return found


def maybe_gzip(file: BinaryIO, budget: Budget) -> Stream:
    """The content of a file, decompressed where it is gzipped (told apart by its first bytes).

    Args:
        file: an open file, at its start; it must be able to seek.
        budget: limits the decompressed bytes; a plain file does not use it.
    """
    compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    return Gunzip(file, budget) if compressed else file


class Gunzip:
    """The decompressed bytes of a gzip file of any number of members.

    Raises, when it is read from:
        EOFError: the file ends early. zlib.error: damaged. BudgetError: it expands to too much.
    """

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file, self._budget = file, budget
        self._members = Budget(_MEMBERS)
        self._member = _new_member()
        self._waiting = b""  # compressed bytes that have not been looked at

    def read(self, size: int, /) -> bytes:
        """Up to `size` decompressed bytes; fewer only at the end."""
        found = bytearray()
        while len(found) < size and self._more():
            part = self._member.decompress(self._waiting, size - len(found))
            self._waiting = self._member.unconsumed_tail or self._member.unused_data
            self._budget.spend(len(part))
            found += part
        return bytes(found)

    def _more(self) -> bool:
        """Whether there is something to decompress; goes on to the next member where one ends."""
        if self._member.eof:
            while not (rest := self._waiting.lstrip(b"\0")):  # padding between members
                self._waiting = self._file.read(_CHUNK)
                if not self._waiting:
                    return False
            self._waiting = rest
            self._members.spend()
            self._member = _new_member()
        self._waiting = self._waiting or self._file.read(_CHUNK)
        if not self._waiting:
            raise EOFError
        return True


def _new_member() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def inflate(data: bytes, budget: Budget) -> bytes:
    """Zlib data, decompressed. Raises: zlib.error: damaged. BudgetError: it expands to too much."""
    stream, found = zlib.decompressobj(), bytearray()
    while data and not stream.eof:
        part = stream.decompress(data, _CHUNK)
        data = stream.unconsumed_tail
        budget.spend(len(part))
        found += part
    return bytes(found)
