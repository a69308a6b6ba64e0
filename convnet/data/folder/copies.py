"""Which of many files have the same content."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


def groups_of_copies(hashes: Iterable[Hashable]) -> list[list[int]]:
    """The groups of two and more equal hashes: their rows, ascending; by their first row.

    Args:
        hashes: of the files; an empty one stands for a file that could not be read.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, digest in enumerate(hashes):
        if digest:
            rows.setdefault(digest, []).append(row)
    return [group for group in rows.values() if len(group) > 1]
