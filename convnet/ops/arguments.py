"""Checks of what the functions of convnet.ops are given, with errors that name the argument."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from convnet import backend as _backend

Shape = tuple[int, ...]
Pair = int | tuple[int, int]


def pair_of(op: str, name: str, value: Any) -> tuple[int, int]:
    """(height, width) from a number or a pair."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError:
        pair = ()
    if len(pair) != 2 or any(isinstance(v, bool) for v in values):
        raise ValueError(f"{op}: {name}: expected a whole number or a pair of them, got {value!r}")
    if not all(-(2**31) <= v < 2**31 for v in pair):
        raise ValueError(f"{op}: {name}: expected numbers below 2^31, got {value!r}")
    return pair[0], pair[1]


def whole_of(op: str, name: str, value: Any, low: int = -(2**31), high: int = 2**31 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{op}: {name}: expected a whole number, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{op}: {name}: expected {low} to {high}, got {number}")
    return number


def real_of(op: str, name: str, value: Any) -> float:
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{op}: {name}: expected a number, got {value!r}") from None


def text_of(op: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"{op}: {name}: expected a string, got {value!r}")
    return value


def shape_of(op: str, name: str, value: Any) -> Shape:
    try:
        return tuple(operator.index(v) for v in value)
    except TypeError:
        raise ValueError(f"{op}: {name}: expected a tuple of sizes, got {value!r}") from None


def dims_of(op: str, name: str, array: Any, rank: int | None = None) -> Shape:
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple):
        raise ValueError(f"{op}: {name}: expected an array, got {type(array).__name__}")
    if rank is not None and len(shape) != rank:
        raise ValueError(f"{op}: {name}: expected {rank} dimensions, got shape {shape}")
    return shape


def windows_of(op: str, stride: Pair, pad: Pair, rounding: str) -> tuple[int, int, int, int, str]:
    return (
        *pair_of(op, "stride", stride),
        *pair_of(op, "pad", pad),
        text_of(op, "rounding", rounding),
    )


def backend_of(op: str, **arrays: Any) -> _backend.Backend:
    for name, array in arrays.items():
        if array is not None and not hasattr(array, "shape"):
            raise ValueError(f"{op}: {name}: expected an array, got {type(array).__name__}")
    try:
        return _backend.of(*arrays.values())
    except ValueError as error:
        raise ValueError(f"{op}: {error}") from None


def outputs(op: str, out: Any, count: int) -> Sequence[Any]:
    """The arrays of an ``out=`` that takes several."""
    if out is None:
        return (None,) * count
    if not isinstance(out, (tuple, list)) or len(out) != count:
        raise ValueError(f"{op}: out: expected {count} arrays, got {type(out).__name__}")
    return out
