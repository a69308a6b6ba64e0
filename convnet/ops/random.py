"""Counter-based random numbers."""

from __future__ import annotations

import numpy as np

from convnet import backend as _backend


def philox(seed: int, stream: int, step: int, indices: np.ndarray) -> np.ndarray:
    """Random bits of Philox4x32-10 at counters (index, stream, step) under a 64-bit key.

    Args:
        seed: 64 bits. stream, step: 32 bits each.
        indices: [M] int64, not negative.

    Returns:
        [M, 4] uint32, on the host.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    return _backend.get("cpu").module.philox(seed, stream, step, indices)
