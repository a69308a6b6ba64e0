"""How the products of convolutions and dense layers can be formed."""

from __future__ import annotations

from convnet import backend as _backend
from convnet.ops.arguments import text_of

MATHS = ("fp32", "ffma", "tf32", "bf16")


def math_description(math: str) -> str:
    """What a ``math`` of :mod:`convnet.ops` comes to on the device that is in use.

    Raises:
        ValueError: there is no such ``math``.
    """
    op = "math_description"
    return str(_backend.of().module.math_description(text_of(op, "math", math)))
