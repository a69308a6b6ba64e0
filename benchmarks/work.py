"""What a benchmark measures: a piece of work, and that work with its arrays in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convnet.backend import Backend


def placed(backend: Backend, array: np.ndarray) -> Any:
    """The array on the device; on the host, from a cache line on, as memory of a GPU is: which
    sectors a kernel touches depends on it."""
    if backend.xp is not np:
        return backend.asarray(array)
    copy = backend.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


@dataclass
class Ready:
    """Work whose arrays are in place.

    Attributes:
        queue: gives it to the device once; on the host, does it.
        finish: returns when the device has done all it was given.
        check: the largest error of a sample of its results, as a share of the sum of the absolute
            values of their terms (the measure of the tests; one rounding is 6e-8).
        inputs: NumPy arrays by name, for peers.
    """

    queue: Callable[[], object]
    finish: Callable[[], object]
    check: Callable[[], float]
    inputs: dict[str, np.ndarray]

    def run(self) -> None:
        """Does it once, and returns when it is done."""
        self.queue()
        self.finish()


@dataclass(frozen=True)
class Work:
    """One pass of one layer: `prepare` makes it ready; flops and bytes are the least it takes."""

    name: str
    kind: str  # conv, dense, lrn, maxpool, lrn_maxpool
    step: str  # fprop, dgrad, wgrad, bprop
    text: str
    flops: float
    bytes: float
    prepare: Callable[[], Ready]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    dtype: str = "float32"  # of activations
