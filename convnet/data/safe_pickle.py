"""Reading the pickles of CIFAR-10 and CIFAR-100, and nothing else that a pickle can hold.

A pickle is a program for a stack machine, which may call whatever it can name. This is the standard
library's machine with fewer operations: those that a dictionary of text, numbers, lists and arrays
of whole numbers needs, in every protocol. The few names that it knows stand for NumPy's functions
and call none of them; arrays are made after type, shape and length were found to agree.

What keeps it small: the operations, encoded text, and the bytes of all arrays together are counted;
numbers in the memo rise with the operations, so that they cannot be made to collide; keys are text,
which is known before they are hashed. What was loaded may be nested, and is then refused.
Source: the Python standard library, pickle (the machine) and pickletools (the operations).
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.reading import Budget, BudgetError, Limit
from convnet.data.dataset import DataError, mismatch, shown

_OPERATIONS = Limit(1_000_000, "operations in a pickle")  # CIFAR-100 needs about 300,000
_INTEGER_CODES = tuple(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))
_PLAIN = (int, float, str, bytes, type(None))  # bool is an int


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
        loaded = _Machine(content).load()
        if not isinstance(loaded, _Table):
            raise _RefusedError(f"expected a dictionary, got {type(loaded).__name__}")
        room = Budget(Limit(len(content), "bytes in arrays, as many as the file has"))
        return {_text(key): _value(value, room) for key, value in loaded.items()}
    except (_RefusedError, BudgetError) as error:
        raise DataError(f"{name}: {error}") from None
    except EOFError:
        raise mismatch(name, "a sound pickle file", "one that ends early") from None
    except Exception as error:  # the machine raises nearly anything on damaged pickles
        got = f"one that cannot be read ({type(error).__name__}: {shown(str(error))[:100]})"
        raise mismatch(name, "a sound pickle file", got) from None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _value(value: Any, room: Budget) -> Any:
    """A value of the dictionary, once it is known to be one that CIFAR's files hold."""
    if isinstance(value, _PickledArray):
        return value.to_numpy(room)
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, _PLAIN):
            kind = type(one).__name__.lstrip("_")
            raise _RefusedError(
                f"expected text, numbers, arrays, and lists of numbers, got a {kind}"
            )
    return value


# ---- what stands for NumPy's objects -------------------------------------------------------------


class _PickledType:
    """Stands for numpy.dtype: the type code and the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def set_state(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1]) if isinstance(state[1], str | bytes) else "|"


class _PickledArray:
    """Stands for numpy.ndarray: what the pickle says of it, unchecked."""

    def __init__(
        self, content: Any = None, kind: Any = None, shape: Any = None, order: Any = "C"
    ) -> None:
        self.content, self.type, self.shape = content, kind, shape
        self.fortran = order in ("F", b"F")

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


# ---- the machine ---------------------------------------------------------------------------------


class _Table(dict[Any, Any]):
    """A dictionary whose keys are text: others may take for ever to hash, or overflow the stack."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes):
            raise _RefusedError(f"expected keys of text, got a {type(key).__name__}")
        super().__setitem__(key, value)


class _Memo(dict[int, Any]):
    """Values by their numbers, which may not be such as were made to collide."""

    def __setitem__(self, key: int, value: Any) -> None:
        if not 0 <= key <= _OPERATIONS.most:
            raise _RefusedError(f"expected values numbered in order, got the number {key}")
        super().__setitem__(key, value)


class _Operations(dict[int, Callable[[Any], None]]):
    """What the machine does at each byte that is an operation."""

    def __missing__(self, code: int) -> Any:
        raise _RefusedError(
            f"expected only what the pickles of CIFAR hold, got the operation 0x{code:02x}"
        )


def _counted(operation: Any) -> Callable[[Any], None]:
    def run(machine: _Machine) -> None:
        machine.operations.spend()
        operation(machine)

    return run


def _new_table(machine: _Machine) -> None:
    machine.append(_Table())


def _table_of_items(machine: _Machine) -> None:
    items, table = machine.pop_mark(), _Table()
    for key, value in zip(items[::2], items[1::2], strict=True):
        table[key] = value
    machine.append(table)


def _build(machine: _Machine) -> None:
    """Gives an object its state; the library's own would set attributes of anything."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if not isinstance(target, _PickledArray | _PickledType):
        kind = type(target).__name__.lstrip("_")
        raise _RefusedError(f"expected no state to set on a {kind}, got some")
    target.set_state(state)


# As the library names them, for each thing that they read or do.
_KNOWN = """
    NONE NEWTRUE NEWFALSE INT LONG FLOAT BINFLOAT BININT BININT1 BININT2 LONG1
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST LIST APPEND APPENDS SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 MARK
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    GLOBAL STACK_GLOBAL REDUCE PROTO FRAME STOP
"""
_CODES = {getattr(pickle, name)[0] for name in _KNOWN.split()}


class _Machine(pickle._Unpickler):
    """Runs one pickle."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    dispatch = _Operations(
        {
            code: _counted(operation)
            for code, operation in {
                **{code: pickle._Unpickler.dispatch[code] for code in _CODES},
                pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
                pickle.EMPTY_DICT[0]: _new_table,
                pickle.DICT[0]: _table_of_items,
                pickle.BUILD[0]: _build,
            }.items()
        }
    )

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.memo = _Memo()
        self.operations = Budget(_OPERATIONS)
        self._encoded = Budget(Limit(len(content), "bytes of encoded text"))

    def find_class(self, module: str, name: str) -> Any:
        """What stands for something that the pickle names; NumPy has moved these over the years."""
        known: dict[str, Callable[..., Any]] = {
            "numpy.ndarray": _no_constructor,
            "numpy.dtype": _PickledType,
            "numpy.multiarray._reconstruct": lambda *_: _PickledArray(),
            "numpy.numeric._frombuffer": _PickledArray,
            "_codecs.encode": self._encode,
        }
        called = f"{module}.{name}"
        found = known.get(called.replace("numpy.core.", "numpy.").replace("numpy._core.", "numpy."))
        if found is None:
            raise _RefusedError(
                "expected only containers and arrays of whole numbers in the pickle,"
                f" got {shown(called[:100])}"
            )
        return found

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes in the old protocols."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise _RefusedError("expected bytes encoded as latin1, got another encoding")
        self._encoded.spend(len(text))
        return text.encode("latin1")


def _no_constructor(*_: Any) -> Any:
    raise _RefusedError("expected NumPy's constructors, got a call of numpy.ndarray")
