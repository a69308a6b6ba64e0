"""Reading the pickles of CIFAR-10 and CIFAR-100, and nothing else that a pickle can hold.

A pickle is a program for a stack machine; Python's reader calls whatever it names. This reader
knows the operations that a dictionary of text, numbers, lists and arrays of whole numbers needs, in
every protocol, and calls nothing: NumPy's arrays are remembered as what the pickle says of them,
and made after type, shape and length were found to agree.

What keeps it small: keys are text; lists hold plain values, tuples only what describes an array, so
nothing nests; a length is held against what is left of the file; the operations, and the bytes of
all arrays together, are counted.
Source: the Python standard library, pickletools (the operations, documented one by one).
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.reading import Budget, BudgetError, Limit
from convnet.data.dataset import DataError, mismatch, shown

_OPERATIONS = Limit(1_000_000, "operations in a pickle")  # CIFAR-100 needs about 300,000
_DIGITS = 24  # characters of a number that is written as text
_ITEMS = 16  # of a tuple; the state of an array has 5, that of a type 8


class _RefusedError(ValueError):
    """What is wrong with the pickle, without its name."""


def load_pickle(name: str, content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as str and its arrays as NumPy arrays.

    Args:
        name: what to call the file in a message.
        content: the pickle, of any protocol and any Python and NumPy; text of Python 2 as bytes.

    Raises:
        DataError: damaged, not a dictionary, or anything in it that CIFAR's files do not hold.
    """
    try:
        loaded = _Machine(content).run()
        if not isinstance(loaded, dict):
            raise _RefusedError(f"expected a dictionary, got {type(loaded).__name__}")
        room = Budget(Limit(len(content), "bytes in arrays, as many as the file has"))
        return {
            _text(key): value.to_numpy(room) if isinstance(value, _PickledArray) else value
            for key, value in loaded.items()
        }
    except (_RefusedError, BudgetError) as error:
        raise DataError(f"{name}: {error}") from None
    except (LookupError, ValueError, TypeError, struct.error, Warning) as error:
        got = f"one that cannot be read ({type(error).__name__}: {shown(str(error))[:100]})"
        raise mismatch(name, "a sound pickle file", got) from None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


# ---- what stands for NumPy's objects -------------------------------------------------------------


@dataclass(frozen=True)
class _Name:
    """Something the pickle may name, by its role: "array", "type", "empty", "buffer", "encode"."""

    role: str


# NumPy has moved these over the years.
_NAMES: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "array",
    ("numpy", "dtype"): "type",
    ("numpy.core.multiarray", "_reconstruct"): "empty",
    ("numpy._core.multiarray", "_reconstruct"): "empty",
    ("numpy.core.numeric", "_frombuffer"): "buffer",
    ("numpy._core.numeric", "_frombuffer"): "buffer",
    ("_codecs", "encode"): "encode",
}


class _PickledType:
    """Stands for numpy.dtype: the type code and the byte order."""

    def __init__(self, code: Any) -> None:
        self.code, self.order = code, "|"

    def set_state(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1]) if isinstance(state[1], str | bytes) else "|"


class _PickledArray:
    """Stands for numpy.ndarray: what the pickle says of it, unchecked."""

    shape: Any = None
    type: Any = None
    fortran: Any = False
    content: Any = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.fortran, self.content = state

    def to_numpy(self, room: Budget) -> npt.NDArray[Any]:
        """The array, once type, shape and length have been found to agree."""
        code = self.type.code if isinstance(self.type, _PickledType) else None
        if not isinstance(code, str | bytes) or _text(code) not in _INTEGER_CODES:
            raise _RefusedError("expected an array of whole numbers, got another type")
        shape = self.shape
        if (
            not isinstance(shape, tuple)
            or len(shape) > 4
            or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape)
        ):
            raise _RefusedError("expected the shape of an array, got something else")
        dtype = np.dtype((">" if self.type.order == ">" else "<") + _text(code))
        expected = math.prod(shape) * dtype.itemsize
        if not isinstance(self.content, bytes) or len(self.content) != expected:
            got = len(self.content) if isinstance(self.content, bytes) else "no"
            raise _RefusedError(
                f"expected {expected} bytes for an array of shape {list(shape)}, got {got} bytes"
            )
        room.spend(expected)
        flat = np.frombuffer(self.content, dtype).astype(dtype.newbyteorder("="))
        return flat.reshape(shape, order="F" if self.fortran else "C")


_INTEGER_CODES = tuple(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))

_PLAIN = (int, float, str, bytes, type(None))  # bool is an int
_Made = _PickledArray | _PickledType | _Name


# ---- the machine ---------------------------------------------------------------------------------


class _Machine:
    """Runs one pickle."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # places in the stack
        self._memo: dict[int, Any] = {}
        self._encoded = Budget(Limit(len(content), "bytes of encoded text"))

    def run(self) -> Any:
        """What the pickle leaves on the stack."""
        count = Budget(_OPERATIONS)
        while True:
            count.spend()
            code = self.take(1)
            if code == b".":
                return self.pop()
            if code in _READ:
                self.push(_READ[code](self))
            elif code in _CHANGE:
                _CHANGE[code](self)
            else:
                raise _RefusedError(
                    "expected only what the pickles of CIFAR hold, got the operation"
                    f" 0x{code.hex()} at byte {self._at - 1}"
                )

    # What operations read.

    def take(self, count: int) -> bytes:
        """The next bytes of the file."""
        end = self._at + count
        if not self._at <= end <= len(self._content):
            raise ValueError(f"it ends early: {count:,} bytes needed at byte {self._at:,}")
        found = self._content[self._at : end]
        self._at = end
        return found

    def counted(self, size: int) -> bytes:
        """Bytes, before which stands how many they are, as a number of `size` bytes."""
        return self.take(self.number(size))

    def number(self, count: int, signed: bool = False) -> int:
        """A number of some bytes."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self, most: int | None = None) -> bytes:
        """What lies before the next line break."""
        end = self._content.find(b"\n", self._at)
        if end < 0 or (most is not None and end - self._at > most):
            raise ValueError(f"no line break in its place after byte {self._at:,}")
        found = self._content[self._at : end]
        self._at = end + 1
        return found

    # What operations do to the stack.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("a value is missing")
        return self._stack.pop()

    def mark(self) -> None:
        if len(self._marks) >= 8:
            raise _RefusedError("expected no containers within containers, got some")
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def remember(self, key: int) -> None:
        if not 0 <= key <= _OPERATIONS.most:  # any others could be made to collide
            raise _RefusedError(f"expected values numbered in order, got the number {key}")
        self._memo[key] = self._stack[-1]

    def recall(self, key: int) -> Any:
        return self._memo[key]

    # Containers.

    def tuple_of(self, items: list[Any]) -> None:
        if len(items) > _ITEMS:
            raise _RefusedError(f"expected tuples of at most {_ITEMS}, got one of {len(items):,}")
        for item in items:
            inner = item if isinstance(item, tuple) else ()
            if not isinstance(item, (*_PLAIN, _PickledArray, _PickledType, _Name, tuple)) or any(
                not isinstance(one, _PLAIN) for one in inner
            ):
                raise _RefusedError(f"expected what describes an array, got a tuple of {_a(item)}")
        self.push(tuple(items))

    def extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"values for a list given to {_a(target)}")
        for item in items:
            if not isinstance(item, _PLAIN):
                raise _RefusedError(f"expected lists of numbers and text, got {_a(item)} in one")
        target += items

    def update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError(f"keys and values given to {_a(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes):
                raise _RefusedError(f"expected keys of text, got {_a(key)}")
            if not isinstance(value, (*_PLAIN, list, _PickledArray)):
                raise _RefusedError(f"expected text, numbers, lists and arrays, got {_a(value)}")
            target[key] = value

    def new(self, container: Any, items: list[Any]) -> None:
        """A list or dictionary with what lies behind the mark in it."""
        self.push(container)
        (self.extend if isinstance(container, list) else self.update)(items)

    # Names, and what becomes of them.

    def name(self, module: str, name: str) -> _Name:
        role = _NAMES.get((module, name))
        if role is None:
            raise _RefusedError(
                "expected only containers and arrays of whole numbers in the pickle,"
                f" got {shown(f'{module}.{name}'[:100])}"
            )
        return _Name(role)

    def name_from_stack(self) -> _Name:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name that is no text")
        return self.name(module, name)

    def reduce(self) -> _Made | bytes:
        """Calls a name; here: makes what stands for the result."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError(f"expected NumPy's constructors, got a call of {_a(name)}")
        if name.role == "type":
            return _PickledType(arguments[0])
        if name.role == "encode":
            return self._encode(*arguments)
        if name.role == "array":
            raise _RefusedError("expected NumPy's constructors, got a call of numpy.ndarray")
        made = _PickledArray()
        if name.role == "buffer":
            made.content, made.type, made.shape, order = arguments
            made.fortran = order in ("F", b"F")
        return made

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes in the old protocols."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _RefusedError("expected bytes encoded as latin1, got another encoding")
        self._encoded.spend(len(text))
        return text.encode("latin1")

    def build(self) -> None:
        """Gives an object its state."""
        state, target = self.pop(), self._stack[-1]
        if not isinstance(target, _PickledArray | _PickledType):
            raise _RefusedError(f"expected no state to set on {_a(target)}, got some")
        if not isinstance(state, tuple):
            raise ValueError(f"the state of an array as {_a(state)}")
        target.set_state(state)


def _a(value: Any) -> str:
    return f"a {type(value).__name__.lstrip('_')}"


def _long(machine: _Machine) -> int:
    size = machine.number(1)
    if size > 8:
        raise _RefusedError(f"expected whole numbers of at most 8 bytes, got one of {size}")
    return machine.number(size, signed=True)


def _quoted(machine: _Machine) -> bytes:
    text = machine.line().strip()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("text without its quotation marks")
    return codecs.escape_decode(text[1:-1])[0]


_M = _Machine
# Operations that read something and put it on the stack.
_READ: dict[bytes, Callable[[_Machine], Any]] = {
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b"I": lambda m: int(m.line(_DIGITS)),
    b"L": lambda m: int(m.line(_DIGITS).rstrip(b"L")),
    b"F": lambda m: float(m.line(_DIGITS)),
    b"G": lambda m: struct.unpack(">d", m.take(8))[0],
    b"J": lambda m: m.number(4, signed=True),
    b"K": lambda m: m.number(1),
    b"M": lambda m: m.number(2),
    b"\x8a": _long,
    b"S": _quoted,
    **{code: lambda m: m.counted(1) for code in (b"U", b"C")},
    **{code: lambda m: m.counted(4) for code in (b"T", b"B")},
    **{code: lambda m: m.counted(8) for code in (b"\x8e", b"\x96")},  # the latter: a bytearray
    b"V": lambda m: m.line().decode("raw-unicode-escape"),
    b"X": lambda m: m.counted(4).decode(),
    b"\x8c": lambda m: m.counted(1).decode(),
    b"\x8d": lambda m: m.counted(8).decode(),
    b"}": lambda m: {},
    b"]": lambda m: [],
    b")": lambda m: (),
    b"g": lambda m: m.recall(int(m.line(_DIGITS))),
    b"h": lambda m: m.recall(m.number(1)),
    b"j": lambda m: m.recall(m.number(4)),
    b"c": lambda m: m.name(m.line(200).decode("latin-1"), m.line(200).decode("latin-1")),
    b"\x93": _M.name_from_stack,
    b"R": _M.reduce,
}
# Those that change what is there.
_CHANGE: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame: for readers of streams
    b"(": _M.mark,
    b"d": lambda m: m.new({}, m.since_mark()),
    b"s": lambda m: m.update([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.update(m.since_mark()),
    b"l": lambda m: m.new([], m.since_mark()),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b"t": lambda m: m.tuple_of(m.since_mark()),
    b"\x85": lambda m: m.tuple_of([m.pop()]),
    b"\x86": lambda m: m.tuple_of([m.pop(), m.pop()][::-1]),
    b"\x87": lambda m: m.tuple_of([m.pop(), m.pop(), m.pop()][::-1]),
    b"p": lambda m: m.remember(int(m.line(_DIGITS))),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m._memo)),
    b"b": _M.build,
}
