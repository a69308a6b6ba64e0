"""Checks of arguments: each returns the value, or raises a ValueError that names the argument."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

LIMITS = {
    "low": (">=", operator.ge),
    "above": (">", operator.gt),
    "high": ("<=", operator.le),
    "below": ("<", operator.lt),
}


def outside(value: float, limits: dict[str, float | None]) -> str:
    """What is expected of a value that is not within limits, such as ">= 0 and < 1"; else "".

    Args:
        value: a number.
        limits: keys of `LIMITS`; None sets no limit.
    """
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if all(LIMITS[name][1](value, limit) for name, limit in given.items()):
        return ""
    text = {k: f"{v:g}" if isinstance(v, float) else str(v) for k, v in given.items()}
    return " and ".join(f"{LIMITS[name][0]} {limit}" for name, limit in text.items())


def check_int(name: str, value: Any, least: int = 1) -> int:
    """`value`, checked to be an integer that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected a whole number, at least {least}; got {value!r}")
    return int(value)


def check_pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """(h, w) from one integer for both, or from two."""
    if not isinstance(value, (list, tuple)):
        value = value, value
    if len(value) != 2:
        raise ValueError(f"{name}: expected one whole number or two (h, w), got {value!r}")
    return check_int(name, value[0], least), check_int(name, value[1], least)


def check_float(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """`value`, checked to be a finite number: >= `low`, <= `high`, > `above`, < `below`."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    wanted = outside(value, {"low": low, "above": above, "high": high, "below": below})
    if wanted:
        raise ValueError(f"{name}: expected a number {wanted}, got {value!r}")
    return float(value)


def check_choice(name: str, value: Any, options: Sequence[str]) -> str:
    """`value`, checked to be one of the options."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}; got {value!r}")
    return str(value)


def check_bool(name: str, value: Any) -> bool:
    """`value`, checked to be true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")
    return value
