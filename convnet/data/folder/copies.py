"""Which of many files have the same content."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint64]  # [N, 2]: hashes of 16 bytes; zeros where there is none


def digests_of(hashes: list[bytes]) -> Digests:
    """Hashes of 16 bytes each (or none, b"") as an array."""
    filled = b"".join(digest or bytes(16) for digest in hashes)
    return np.frombuffer(filled, np.uint64).reshape(-1, 2)


def groups_of_copies(digests: Digests) -> list[list[int]]:
    """The groups of two and more equal hashes: their rows, ascending; by their first row."""
    present = np.flatnonzero(digests.any(axis=1))
    order = present[np.lexsort(digests[present].T)]  # stable: rows of one group ascend
    repeats = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    groups: list[list[int]] = []
    for at in np.flatnonzero(repeats).tolist():
        if at == 0 or not repeats[at - 1]:
            groups.append([int(order[at])])
        groups[-1].append(int(order[at + 1]))
    return sorted(groups)
