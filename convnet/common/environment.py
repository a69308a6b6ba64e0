"""Environment variables that steer a program."""

from __future__ import annotations

import contextlib
import math
import os


def seconds(name: str, default: float) -> float:
    """A variable that says how many seconds something may take.

    Raises: ValueError where it is no positive number.
    """
    text = os.environ.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < math.inf:
            return float(text)
    raise ValueError(f"{name}: expected a number of seconds, got {text!r}")
