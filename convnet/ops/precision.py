"""The precision in which convolutions and dense layers multiply."""

from __future__ import annotations

from convnet import backend as _backend

PRECISIONS = ("fp32", "ffma", "tf32", "bf16")


def precision_description(precision: str) -> str:
    """What a precision comes to on the device that is in use, such as "TF32 on tensor cores".

    Args:
        precision: one of `PRECISIONS`.

    Raises:
        ValueError: there is no such precision.
    """
    return _backend.of().module.precision_description(precision)
