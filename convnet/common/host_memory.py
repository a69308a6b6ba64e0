"""Memory of the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

CACHE_LINE = 64  # bytes


def at_cache_line(
    make: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    """An array that begins at a cache line; NumPy's large ones begin 16 bytes past one.

    Vectors of 64 bytes then do not straddle lines, and can be written around the cache.

    Args:
        make: np.empty or np.zeros.
        shape, dtype: of the array.
    """
    kind = np.dtype(dtype)
    raw = make(math.prod(shape) * kind.itemsize + CACHE_LINE, np.uint8)
    return np.ndarray(shape, kind, raw, -raw.ctypes.data % CACHE_LINE)
