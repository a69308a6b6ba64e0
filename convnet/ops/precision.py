"""The precision in which convolutions and dense layers multiply."""

from __future__ import annotations

from typing import Any

from convnet import backend as _backend

PRECISIONS = ("fp32", "ffma", "tf32", "bf16")


def precision_of(op: str, precision: Any) -> str:
    """`precision`, checked to be one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"{op}: precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}"
        )
    return str(precision)


def precision_description(precision: str) -> str:
    """What a precision comes to on the device that is in use, such as "TF32 on tensor cores".

    Raises:
        ValueError: there is no such precision.
    """
    module = _backend.of().module
    return str(module.math_description(precision_of("precision_description", precision)))
