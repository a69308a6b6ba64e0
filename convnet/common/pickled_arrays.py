"""NumPy arrays in pickles: what stands for them until type, shape and length are found to agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.pickle_machine import PickledObject, RefusedError, text_of
from convnet.common.reading import Budget

INTEGER_CODES = tuple(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))
FLOAT_CODES = ("f4", "f8")


class _PickledType(PickledObject):
    """Stands for numpy.dtype: the type code and the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def set_state(self, state: Any) -> None:
        self.order = text_of(state[1]) if isinstance(state[1], str | bytes) else "|"


class PickledArray(PickledObject):
    """Stands for numpy.ndarray: what the pickle says of it, unchecked."""

    def __init__(
        self, content: Any = None, kind: Any = None, shape: Any = None, order: Any = "C"
    ) -> None:
        self.content, self.type, self.shape = content, kind, shape
        self.fortran = order in ("F", b"F")

    def set_state(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.content = state

    def to_numpy(self, room: Budget, codes: Collection[str], expected: str) -> npt.NDArray[Any]:
        """The array, once type, shape and length have been found to agree.

        Args:
            room: for the bytes of arrays.
            codes: the types that it may have, without byte order: "f4".
            expected: what a message says of them: "whole numbers".

        Raises: RefusedError, BudgetError.
        """
        code = self.type.code if isinstance(self.type, _PickledType) else None
        if not isinstance(code, str | bytes) or text_of(code) not in codes:
            raise RefusedError(f"expected an array of {expected}, got another type")
        shape = self.shape
        if (
            not isinstance(shape, tuple)
            or len(shape) > 4
            or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape)
        ):
            raise RefusedError("expected the shape of an array, got something else")
        assert isinstance(self.type, _PickledType)
        dtype = np.dtype((">" if self.type.order == ">" else "<") + text_of(code))
        size = math.prod(shape) * dtype.itemsize
        if not isinstance(self.content, bytes) or len(self.content) != size:
            got = len(self.content) if isinstance(self.content, bytes) else "no"
            raise RefusedError(
                f"expected {size} bytes for an array of shape {list(shape)}, got {got} bytes"
            )
        room.spend(size)
        flat = np.frombuffer(self.content, dtype).astype(dtype.newbyteorder("="))
        return flat.reshape(shape, order="F" if self.fortran else "C")


def _no_constructor(*_: Any) -> Any:
    raise RefusedError("expected NumPy's constructors, got a call of numpy.ndarray")


def _names() -> dict[str, Callable[..., Any]]:
    """The names of arrays in pickles; NumPy has moved these over the years."""
    known: dict[str, Callable[..., Any]] = {
        "numpy.ndarray": _no_constructor,
        "numpy.dtype": _PickledType,
    }
    for core in ("numpy", "numpy.core", "numpy._core"):
        known[f"{core}.multiarray._reconstruct"] = lambda *_: PickledArray()
        known[f"{core}.numeric._frombuffer"] = PickledArray
    return known


ARRAY_NAMES = _names()
