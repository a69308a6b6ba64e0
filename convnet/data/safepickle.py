"""Reading pickles of plain containers and arrays, and of nothing else.

A pickle is a program: Python's own reader calls whatever it names. This one gives it only stand-ins
for NumPy's arrays that remember what they are told; type, shape and length are checked afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import DataError, shown


def load_pickle(name: str, content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as str and its arrays as NumPy arrays.

    Args:
        name: what to call the file in a message.
        content: the pickle, of any protocol and any Python and NumPy; text of Python 2 as bytes.

    Raises:
        DataError: damaged, not a dictionary, or it names anything but arrays of whole numbers.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(
            f"{name}: expected a sound pickle file, got one that cannot be read"
            f" ({type(error).__name__}: {shown(str(error))})"
        ) from None
    if not isinstance(loaded, dict):
        raise DataError(f"{name}: expected a dictionary, got {type(loaded).__name__}")
    result: dict[str, Any] = {}
    for key, value in loaded.items():
        text = key.decode("latin-1") if isinstance(key, bytes) else str(key)
        result[text] = value.to_numpy(name) if isinstance(value, _PickledArray) else value
    return result


class _PickledType:
    """Stands for numpy.dtype while reading: remembers the type code and the byte order."""

    def __init__(self, code: str | bytes = "", *_: object) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else str(code)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("latin-1") if isinstance(order, bytes) else str(order)


class _PickledArray:
    """Stands for numpy.ndarray while reading: remembers shape, type and bytes, unchecked."""

    shape: Any = None
    type: Any = None
    fortran: Any = False
    content: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.fortran, self.content = state

    def to_numpy(self, name: str) -> npt.NDArray[Any]:
        """The array, once type, shape and length have been found to agree."""
        if not isinstance(self.type, _PickledType) or self.type.code not in _INTEGER_CODES:
            raise DataError(f"{name}: expected an array of whole numbers, got another type")
        shape = self.shape
        if not (isinstance(shape, tuple) and all(type(s) is int and s >= 0 for s in shape)):
            raise DataError(f"{name}: expected the shape of an array, got something else")
        order = ">" if self.type.order == ">" else "<"
        dtype = np.dtype(order + self.type.code)
        expected = math.prod(shape) * dtype.itemsize
        if not isinstance(self.content, bytes | bytearray) or len(self.content) != expected:
            got = len(self.content) if isinstance(self.content, bytes | bytearray) else "no"
            raise DataError(
                f"{name}: expected {expected} bytes for an array of shape {list(shape)},"
                f" got {got} bytes"
            )
        flat = np.frombuffer(self.content, dtype).astype(dtype.newbyteorder("="))
        return flat.reshape(shape, order="F" if self.fortran else "C")


_INTEGER_CODES = tuple(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))


def _reconstruct(*_: object) -> _PickledArray:
    return _PickledArray()


def _from_buffer(content: object, kind: object, shape: object, order: object) -> _PickledArray:
    array = _PickledArray()
    array.content, array.type, array.shape = content, kind, shape
    array.fortran = order in ("F", b"F")
    return array


def _encode(text: str, encoding: str | bytes = "latin1") -> bytes:
    """How Python 3 writes bytes in the old pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError("expected bytes encoded as latin1, got another encoding")
    return text.encode("latin1")


# Everything a pickle may name, and what stands for it. NumPy has moved these over the years.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle._Unpickler):
    """Builds containers, numbers, text, and the stand-ins above; refuses every other name.

    The pure Python reader, because the C one can be made to allocate gigabytes by five bytes (an
    entry far up in its memo). It takes half a second for CIFAR-100.
    """

    stack: list[Any]

    def _set_state(self) -> None:
        """BUILD: gives an object its state. Only the stand-ins above have any."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _PickledArray | _PickledType):
            raise DataError(f"expected no state to set on a {type(target).__name__}, got some")
        target.__setstate__(state)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _set_state}

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise DataError(
                "expected only containers and arrays of whole numbers in the pickle,"
                f" got {shown(f'{module}.{name}')}"
            )
        return allowed
