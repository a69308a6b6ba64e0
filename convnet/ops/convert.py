"""From one type of activations to the other."""

from __future__ import annotations

from typing import Any

from convnet.backend import Array
from convnet.common.checks import check_choice
from convnet.common.dtypes import STORED, stored_type
from convnet.ops.call import call


def convert(x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """The same numbers as float32 or bfloat16.

    Args:
        x: float32 or bfloat16, any shape.
        dtype: "float32" or "bfloat16". What is rounded is rounded to nearest, ties to even.
        out: same shape, of that type.

    Returns:
        y, of the shape of x; x itself where it is of that type and there is no `out`.

    Raises:
        ValueError: x is neither, or there is no such type.
    """
    name = check_choice("convert: dtype", str(dtype), STORED)
    if out is None and getattr(x, "dtype", None) == stored_type(name):
        return x
    return call("to_bfloat16" if name == "bfloat16" else "to_float32", x, out)
