"""Arrays of the reference."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]


def float64(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)
