"""Narrower and wider nets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convnet.layers.layer import whole


def scaled(filters: Sequence[int], width: float, groups: int, count: int) -> list[int]:
    """Numbers of filters times `width`, each rounded to a multiple of `groups`, at least `groups`.

    A width of 1 leaves them as they are.

    Raises: ValueError for a width that is not positive, or another number of them than `count`.
    """
    if len(filters) != count:
        raise ValueError(f"filters: expected {count} numbers, got {len(filters)}")
    if not 0.0 < width < math.inf:
        raise ValueError(f"width: expected a positive number, got {width!r}")
    if width == 1.0:
        return list(filters)
    groups = whole("groups", groups)
    return [groups * max(1, round(width * number / groups)) for number in filters]
