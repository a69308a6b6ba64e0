"""Memory of one of several logical devices of the host."""

from __future__ import annotations

from typing import Any

import numpy as np


class HostArray(np.ndarray):
    """A NumPy array that knows which logical device it belongs to.

    Arrays of two devices do not mix, as on two GPUs: only a transfer takes numbers from one to the
    other.

    Attributes:
        owner: the device, a `convnet.backend.Backend`; None of an array that none has claimed.
    """

    owner: Any = None

    def __array_finalize__(self, source: Any) -> None:
        self.owner = getattr(source, "owner", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        owner = owner_of(*inputs, *options.get("out", ()))
        if "out" in options:
            options["out"] = tuple(map(plain, options["out"]))
        result = getattr(ufunc, method)(*map(plain, inputs), **options)
        return owned(result, owner) if owner and isinstance(result, np.ndarray) else result

    def __setitem__(self, key: Any, value: Any) -> None:
        owner_of(self, value)
        super().__setitem__(key, value)


def owned(array: np.ndarray, owner: Any) -> HostArray:
    """The same memory, marked as a device's."""
    marked = array.view(HostArray)
    marked.owner = owner
    return marked


def plain(array: Any) -> Any:
    """The same memory as an array of NumPy's own; anything else as it is."""
    return array.view(np.ndarray) if isinstance(array, HostArray) else array


def owner_of(*arrays: Any) -> Any:
    """The device of those among some arrays that have one. Raises: ValueError where two differ."""
    owners = {array.owner: None for array in arrays if isinstance(array, HostArray) and array.owner}
    if len(owners) > 1:
        first, second, *_ = (owner.device for owner in owners)
        raise ValueError(f"arrays on one device expected, got {first}, {second}")
    return next(iter(owners), None)
