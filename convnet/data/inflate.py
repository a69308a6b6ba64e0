"""Decompressing gzip and zlib data a piece at a time, within a budget."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Protocol

from convnet.common.reading import Budget, Limit

_PIECE = 1 << 16  # compressed bytes read at a time
_GZIP_MAGIC = b"\x1f\x8b"
_MEMBERS = Limit(100_000, "members in a gzip file")


class Stream(Protocol):
    """Something that bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer only where the stream ends."""


def maybe_gzip(file: BinaryIO, budget: Budget) -> Stream:
    """The content of a file, decompressed where it is gzipped (told apart by its first bytes).

    Args:
        file: an open file, at its start; it must be able to seek.
        budget: of the decompressed bytes; a plain file does not use it.
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
            while True:
                self._waiting = self._waiting.lstrip(b"\0")  # padding between members
                if self._waiting:
                    break
                self._waiting = self._file.read(_PIECE)
                if not self._waiting:
                    return False
            self._members.spend()
            self._member = _new_member()
        if not self._waiting:
            self._waiting = self._file.read(_PIECE)
            if not self._waiting:
                raise EOFError
        return True


def _new_member() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def inflate(data: bytes, budget: Budget) -> bytes:
    """Zlib data, decompressed. Raises: zlib.error: damaged. BudgetError: it expands to too much."""
    stream, found = zlib.decompressobj(), bytearray()
    while data and not stream.eof:
        part = stream.decompress(data, _PIECE)
        data = stream.unconsumed_tail
        budget.spend(len(part))
        found += part
    return bytes(found)
