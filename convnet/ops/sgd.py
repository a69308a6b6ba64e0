"""The update rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from convnet.backend import Array
from convnet.ops.arguments import backend_of, real_of


def sgd_update(
    tensors: Iterable[tuple[Array, Array, Array, float, float]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    state: Array | None = None,
) -> None:
    """The update rule of the paper (section 5), in place, for all parameters in one launch.

    ``v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;  w = w + v``

    Args:
        tensors: (w, velocity, grad, lr_mult, decay_mult) per parameter; w, velocity and grad of
            equal shape.
        lr: learning rate.
        state: uint32 [8] on the same device (see :mod:`convnet.stepstate`): lr, momentum and weight
            decay are taken from it, as they are when the operation runs, in place of those given;
            where its `halt` is set nothing is changed.
    """
    op = "sgd_update"
    columns: list[list[Any]] = [[], [], [], [], []]
    if not isinstance(tensors, Iterable) or getattr(tensors, "shape", None) is not None:
        raise ValueError(f"{op}: tensors: expected a sequence, got {type(tensors).__name__}")
    for entry in tensors:
        if not isinstance(entry, (tuple, list)) or len(entry) != 5:
            raise ValueError(
                f"{op}: tensors: expected (w, velocity, grad, lr_mult, decay_mult), got {entry!r}"
            )
        columns[3].append(real_of(op, "lr_mult", entry[3]))
        columns[4].append(real_of(op, "decay_mult", entry[4]))
        for column, array in zip(columns[:3], entry[:3], strict=True):
            column.append(array)
    if not columns[0]:
        return
    be = backend_of(op, w=columns[0][0], velocity=columns[1][0], grad=columns[2][0], state=state)
    hyper = (real_of(op, "lr", lr), real_of(op, "momentum", momentum))
    decay = real_of(op, "weight_decay", weight_decay)
    be.module.sgd_update(*columns, *hyper, decay, state, be.stream())
