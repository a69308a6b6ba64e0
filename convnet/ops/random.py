"""Counter-based random numbers."""

from __future__ import annotations

import numpy as np

from convnet import backend as _backend
from convnet.ops.arguments import whole_of


def philox(seed: int, stream: int, step: int, indices: np.ndarray) -> np.ndarray:
    """Random bits of Philox4x32-10 at counters (index, stream, step) under a 64-bit key.

    Args:
        seed: 64 bits. stream, step: 32 bits each.
        indices: [M] int64, not negative.

    Returns:
        [M, 4] uint32, on the host.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    op = "philox"
    key = whole_of(op, "seed", seed, 0, 2**64 - 1)
    counters = (
        whole_of(op, "stream", stream, 0, 2**32 - 1),
        whole_of(op, "step", step, 0, 2**32 - 1),
    )
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"{op}: indices: expected whole numbers, got {indices.dtype}")
    if indices.size and indices.min() < 0:
        raise ValueError(f"{op}: indices: expected numbers from 0 on, got {indices.min()}")
    positions = np.ascontiguousarray(indices, dtype=np.int64).reshape(-1)
    bits: np.ndarray = _backend.get("cpu").module.philox(key, *counters, positions)
    return bits
