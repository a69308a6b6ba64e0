"""The wire format of protocol buffers: reading messages within a budget, and writing them.

A message is a row of fields: a key (number and wire type), then a value. Nothing here knows any
schema; `caffe` and `onnx` know the few fields that they need.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from convnet.common.reading import Budget, Limit

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELDS = Limit(2_000_000, "fields in a file")
MOST_BYTES = (1 << 31) - 1  # of a message, in all implementations


class WireError(ValueError):
    """What is wrong with a message, without the name of the file."""


# ---- reading -------------------------------------------------------------------------------------


def fields(data: memoryview, budget: Budget) -> Iterator[tuple[int, Any]]:
    """The fields of a message: (number, value), in the order of the file.

    Args:
        data: the message.
        budget: of `FIELDS`, for all messages of a file together.

    Returns: the value of a varint as int, 0 or more; of anything else as its bytes.
    Raises: WireError: cut off or malformed. BudgetError: too many fields.
    """
    at, end = 0, len(data)
    while at < end:
        budget.spend()
        key, at = _varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"expected a field of a known kind, got kind {kind}")
        if size > end - at:
            raise WireError(f"expected a field of {size} bytes, got {end - at}: it ends early")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise WireError("expected more bytes, got the end of the message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("expected an integer of at most 64 bits, got more")


def varints(data: memoryview) -> list[int]:
    """Integers in a row, as packed repeated fields have them."""
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


# ---- writing -------------------------------------------------------------------------------------


class Message:
    """A message to be written, as parts of bytes: arrays are not copied until they are written.

    Attributes:
        parts: bytes or views of arrays, in order; size: of all, in bytes.
    """

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.size = 0

    def integer(self, number: int, *values: int) -> Message:
        """A field for each value; negative ones take ten bytes."""
        for value in values:
            self._add(_key(number, VARINT) + _encoded(value & (1 << 64) - 1))
        return self

    def real(self, number: int, *values: float) -> Message:
        """A float32 field for each value."""
        for value in values:
            self._add(_key(number, FIXED32) + struct.pack("<f", value))
        return self

    def text(self, number: int, *values: str) -> Message:
        """A field of UTF-8 for each value."""
        for value in values:
            self.data(number, value.encode())
        return self

    def data(self, number: int, value: Any) -> Message:
        """A field of bytes, perhaps a view of an array."""
        self._add(_key(number, BYTES) + _encoded(len(value)))
        self._add(value)
        return self

    def message(self, number: int, *values: Message) -> Message:
        """A field for each message."""
        for value in values:
            self._add(_key(number, BYTES) + _encoded(value.size))
            self.parts += value.parts
            self.size += value.size
        return self

    def _add(self, part: Any) -> None:
        self.parts.append(part)
        self.size += len(part)

    def write(self, file: Any) -> None:
        """Writes all parts into a file. Raises: WireError: more than a message may have."""
        if self.size > MOST_BYTES:
            raise WireError(f"expected at most {MOST_BYTES:,} bytes, got {self.size:,}")
        for part in self.parts:
            file.write(part)


def _key(number: int, kind: int) -> bytes:
    return _encoded(number << 3 | kind)


def _encoded(value: int) -> bytes:
    """A varint."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
