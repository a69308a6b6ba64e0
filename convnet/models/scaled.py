"""Narrower and wider nets."""

from __future__ import annotations

from collections.abc import Sequence

from convnet.common.checks import check_float, check_int


def scaled(filters: Sequence[int], width: float, groups: int, count: int) -> list[int]:
    """Numbers of filters times `width`, each rounded to a multiple of `groups`, at least `groups`.

    A width of 1 leaves them as they are.

    Args:
        filters: of each convolution.
        width: above 0.
        groups: at least 1.
        count: how many numbers there have to be.

    Raises: ValueError for a width that is not positive, or another number of them than `count`.
    """
    if len(filters) != count:
        raise ValueError(f"filters: expected {count} numbers, got {len(filters)}")
    check_float("width", width, above=0.0)
    if width == 1.0:
        return list(filters)
    groups = check_int("groups", groups)
    return [groups * max(1, round(width * number / groups)) for number in filters]
