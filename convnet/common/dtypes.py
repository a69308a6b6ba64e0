"""The types that activations are stored as."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

STORED = ("float32", "bfloat16")


@functools.cache
def stored_type(name: str) -> np.dtype[Any]:
    """NumPy's type for "float32" or "bfloat16".

    NumPy has no bfloat16 of its own: ml_dtypes adds it, and is imported only where it is wanted.
    """
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
