"""Checks of what is fed to a net."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet.backend import Backend
from convnet.layers.layer import Array, Shape


def checked_x(x: Any, in_shape: Shape, backend: Backend, stored: Any = np.float32) -> Array:
    """x, if it is [N, *in_shape], C-contiguous, with N at least 1, and float32 or, in a net whose
    activations are stored as another type, that.

    Raises: ValueError with what was expected and what was found.
    """
    x = _known(x, backend)
    shape = getattr(x, "shape", None)
    if shape is None:
        raise ValueError(f"x: expected an array, got {type(x).__name__}")
    kinds = " or ".join(dict.fromkeys(("float32", np.dtype(stored).name)))
    expected = f"{kinds} of shape (N, {', '.join(map(str, in_shape))})"
    if len(shape) != 1 + len(in_shape) or tuple(shape[1:]) != in_shape or not shape[0]:
        raise ValueError(f"x: expected {expected}, got shape {tuple(shape)}")
    if x.dtype not in (np.float32, stored):
        raise ValueError(f"x: expected {expected}, got {x.dtype}")
    if not x.flags.c_contiguous:
        raise ValueError("x: expected a C-contiguous array; numpy.ascontiguousarray makes one")
    return x


def checked_labels(labels: Any, count: int, classes: int, backend: Backend) -> Array:
    """The labels as int32 [count], if they are whole numbers in 0 .. classes - 1.

    Those on a device are not looked at, as that would stall it; there a label out of range gives a
    loss of NaN.

    Raises: ValueError with what was expected and what was found.
    """
    labels = _known(labels, backend)
    if not hasattr(labels, "shape"):
        labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected {count} whole numbers, one for each sample of x; "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if isinstance(labels, np.ndarray):
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            first = wrong.argmax()
            raise ValueError(
                f"labels[{first}]: expected 0 to {classes - 1} for {classes} classes, "
                f"got {labels[first]}"
            )
    return labels.astype(np.int32, copy=False)


def _known(array: Any, backend: Backend) -> Any:
    """An array of another library (PyTorch, JAX) as one of the backend's; others as they are."""
    foreign = hasattr(array, "__dlpack__") and not hasattr(array, "flags")
    return backend.asarray(array) if foreign else array
