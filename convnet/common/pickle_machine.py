"""Reading pickles as data: the standard library's machine, with what runs code taken out.

A pickle is a program for a stack machine, which may call whatever it can name. This is the standard
library's machine with fewer operations: those that dictionaries of text, numbers, lists and objects
need, in every protocol. It knows the names that a reader gives it and calls nothing else; what
stands for an object is a `PickledObject`, and nothing is set on anything but those.

What keeps it small: the operations and encoded text are counted; numbers in the memo rise with the
operations, so that they cannot be made to collide; keys are text or small numbers, which is known
before they are hashed. What was loaded may be nested; each reader checks what it takes from it.
Source: the Python standard library, pickle (the machine) and pickletools (the operations).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from convnet.common.reading import Budget, Limit

OPERATIONS = Limit(1_000_000, "operations in a pickle")  # CIFAR-100 needs about 300,000


class RefusedError(ValueError):
    """What is wrong with a pickle, without its name."""


class PickledObject:
    """Stands for an object that a pickle makes."""

    def set_state(self, state: Any) -> None:
        """Takes what the pickle says that it holds, unchecked."""


def text_of(value: str | bytes) -> str:
    """Text, as Python 3 or Python 2 pickled it."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


class Table(dict[Any, Any]):
    """A dictionary whose keys are text or small numbers: others may take for ever to hash, or
    overflow the stack."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes) and not (type(key) is int and 0 <= key < 1 << 20):
            raise RefusedError(f"expected keys of text, got a {type(key).__name__}")
        super().__setitem__(key, value)


class _Memo(dict[int, Any]):
    """Values by their numbers, which may not be such as were made to collide."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: int, value: Any) -> None:
        if not 0 <= key <= self._most:
            raise RefusedError(f"expected values numbered in order, got the number {key}")
        super().__setitem__(key, value)


class Operations(dict[int, Callable[[Any], None]]):
    """What the machine does at each byte that is an operation."""

    def __missing__(self, code: int) -> Any:
        raise RefusedError(
            f"expected only operations of plain data, got the operation 0x{code:02x}"
        )


def counted(operation: Any) -> Callable[[Any], None]:
    """An operation of the library's machine, for `Machine.dispatch`: it spends from the budget."""

    def run(machine: Machine) -> None:
        machine.operations.spend()
        operation(machine)

    return run


def _new_table(machine: Machine) -> None:
    machine.append(Table())


def _table_of_items(machine: Machine) -> None:
    items, table = machine.pop_mark(), Table()
    for key, value in zip(items[::2], items[1::2], strict=True):
        table[key] = value
    machine.append(table)


def _build(machine: Machine) -> None:
    """Gives an object its state; the library's own would set attributes of anything."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if not isinstance(target, PickledObject):
        kind = type(target).__name__.lstrip("_")
        raise RefusedError(f"expected no state to set on a {kind}, got some")
    target.set_state(state)


# As the library names them, for each thing that they read or do.
_KNOWN = """
    NONE NEWTRUE NEWFALSE INT LONG FLOAT BINFLOAT BININT BININT1 BININT2 LONG1
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST LIST APPEND APPENDS SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 MARK
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    GLOBAL STACK_GLOBAL REDUCE BINPERSID PROTO FRAME STOP
"""
_CODES = {getattr(pickle, name)[0] for name in _KNOWN.split()}


class Machine(pickle._Unpickler):
    """Runs one pickle. Attributes: known, as given, and bytes in text.

    Args:
        file: it is read from where it stands to the end of the pickle; `read` returns no more than
            there is, whatever a pickle asks for.
        known: names that the pickle may use, such as "numpy.dtype", and what stands for them.
        size: bytes of the file, which encoded text may not exceed.
        expected: what a message says of the names that are known.
        most: how many operations it may have.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    dispatch = Operations(
        {
            code: counted(operation)
            for code, operation in {
                **{code: pickle._Unpickler.dispatch[code] for code in _CODES},
                pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
                pickle.EMPTY_DICT[0]: _new_table,
                pickle.DICT[0]: _table_of_items,
                pickle.BUILD[0]: _build,
            }.items()
        }
    )

    def __init__(
        self,
        file: BinaryIO,
        known: Mapping[str, Callable[..., Any]],
        size: int,
        expected: str,
        most: Limit = OPERATIONS,
    ) -> None:
        super().__init__(file, encoding="bytes")
        self.memo = _Memo(most.most)
        self.operations = Budget(most)
        self.known = {**known, "_codecs.encode": self._encode}
        self._expected = expected
        self._encoded = Budget(Limit(size, "bytes of encoded text"))

    def find_class(self, module: str, name: str) -> Any:
        """What stands for something that the pickle names."""
        called = f"{module}.{name}"[:200]
        found = self.known.get(called)
        if found is None:
            shown = ascii(called[:100])[1:-1]
            raise RefusedError(f"expected only {self._expected} in the pickle, got {shown}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("expected everything within the pickle, got a reference to elsewhere")

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes in the old protocols."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise RefusedError("expected bytes encoded as latin1, got another encoding")
        self._encoded.spend(len(text))
        return text.encode("latin1")
