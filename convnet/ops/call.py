"""How the functions of convnet.ops call the compiled module, which checks what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import backend as _backend
from convnet.backend import Array, Backend
from convnet.ops.schema import operations

Shape = tuple[int, ...]
Pair = int | tuple[int, int]

_TO_MAKE = (type(None), bool, tuple, list)  # outputs that are no arrays yet


def call(name: str, *values: Any, device: Backend | None = None) -> Any:
    """Runs an operation on the device of its arrays, or notes it while a step is traced.

    Args:
        name: of the operation.
        values: its arguments in the order of the schema, without workspace and stream. An output
            that is None is made here; so is one that is given by its shape, because it does not
            follow from the inputs, or by True, because None would leave it out.
        device: that runs it, where its arrays are on several, or in lists.

    Returns:
        The output; of several, a tuple.

    Raises:
        ValueError: an argument does not fit; the message names the operation and the argument, what
            was expected and what was found.
    """
    op = operations()[name]
    theirs = values
    if device is None:
        try:
            device = device_of(name, *op.arrays_among(values))
        except ValueError:
            values = tuple(map(_on_host, theirs))
            if all(mine is other for mine, other in zip(values, theirs, strict=True)):
                raise
            device = device_of(name, *op.arrays_among(values))
    module, given = device.module, list(values)
    if op.scratch or [place for place in op.results if isinstance(given[place], _TO_MAKE)]:
        outputs, size = module.infer(name, *values)
        for place, shape, dtype in outputs:
            given[place] = device.empty(shape, dtype)
        if op.scratch:
            given.append(device.workspace(size))
    getattr(module, name)(*given, device.stream())
    if theirs is not values:  # an output of another library is returned as it was given
        for place in op.results:
            given[place] = theirs[place] if hasattr(theirs[place], "__dlpack__") else given[place]
    if len(op.results) == 1:
        return given[op.results[0]]
    return tuple([given[place] for place in op.results])


def _on_host(value: Any) -> Any:
    """An array of another library in the memory of the host, as NumPy's, without a copy; anything
    else as it is."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return value
    try:
        on_host = int(value.__dlpack_device__()[0]) == _backend.DLPACK_CPU
        return np.from_dlpack(value) if on_host else value
    except (BufferError, RuntimeError, TypeError) as error:  # as of a tensor that needs gradients
        raise ValueError(f"an array that DLPack does not give: {error}") from None


def device_of(name: str, *values: Any) -> Backend:
    """The device of the arrays among these arguments of an operation."""
    try:
        return _backend.of(*[value for value in values if hasattr(value, "shape")])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def outputs(name: str, out: Any, *made: Any) -> tuple[Any, ...]:
    """The outputs of an operation with several: those of ``out=``, or what makes them."""
    if out is None:
        return made
    if not isinstance(out, (tuple, list)) or len(out) != len(made):
        raise ValueError(f"{name}: out: expected {len(made)} arrays, got {type(out).__name__}")
    return tuple(out)


def given(out: Array | None, shape: Any) -> Any:
    """An output whose shape does not follow from the inputs: ``out``, or its shape."""
    if out is not None:
        return out
    return shape.tolist() if isinstance(shape, np.ndarray) else shape
