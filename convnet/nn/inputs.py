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
    if not hasattr(x, "flags"):
        if not hasattr(x, "__dlpack__"):
            raise ValueError(f"x: expected an array, got {type(x).__name__}")
        x = backend.asarray(x)  # of another library (PyTorch, JAX)
    shape = tuple(x.shape)
    fits = len(shape) == 1 + len(in_shape) and shape[1:] == in_shape and shape[0] > 0
    if not fits or x.dtype not in (np.float32, stored):
        kinds = " or ".join(dict.fromkeys(("float32", np.dtype(stored).name)))
        expected = f"{kinds} of shape (N, {', '.join(map(str, in_shape))})"
        raise ValueError(f"x: expected {expected}, got {x.dtype if fits else f'shape {shape}'}")
    if not x.flags.c_contiguous:
        raise ValueError("x: expected a C-contiguous array; numpy.ascontiguousarray makes one")
    return x


def checked_labels(labels: Any, count: int, classes: int, backend: Backend) -> Array:
    """The labels as int32 [count], if they are whole numbers in 0 .. classes - 1.

    Those on a device are not looked at, as that would stall it; there a label out of range gives a
    loss of NaN.

    Raises: ValueError with what was expected and what was found.
    """
    if not hasattr(labels, "flags"):
        foreign = hasattr(labels, "__dlpack__")
        labels = backend.asarray(labels) if foreign else np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected {count} whole numbers, one for each sample of x; "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if isinstance(labels, np.ndarray):
        wrong = (labels < 0) | (labels >= classes)
        first = wrong.argmax()
        if wrong[first]:
            raise ValueError(
                f"labels[{first}]: expected 0 to {classes - 1} for {classes} classes, "
                f"got {labels[first]}"
            )
    return labels.astype(np.int32, copy=False)
