"""The update rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from convnet.backend import Array
from convnet.ops.arguments import backend_of, real_of, whole_of


def sgd_update(
    tensors: Iterable[tuple[Array, Array, Array, float, float]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    state: Array | None = None,
    *,
    numbers: Sequence[int] | None = None,
    own_rates: bool = False,
) -> None:
    """The update rule of the paper (section 5), in place, for all parameters in one launch.

    ``v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;  w = w + v``

    An element whose new w would not be finite stays as it was, w and v. So nothing is ever written
    from a gradient that is not finite.

    Args:
        tensors: (w, velocity, grad, lr_mult, decay_mult) per parameter; w, velocity and grad of
            equal shape.
        lr: learning rate.
        state: uint32 [12] on the same device (see :mod:`convnet.ops.step_state`): lr, momentum and
            weight decay are taken from it, as they are when the operation runs, in place of those
            given. Where something was not finite that is noted there; where the step was halted or
            an earlier one was not finite nothing is changed.
        numbers: by which the tensors are noted, from 1; of several the greatest is. By default
            their places.
        own_rates: lr, momentum and weight decay are those given although there is a state.
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
    places = list(range(1, len(columns[0]) + 1)) if numbers is None else list(numbers)
    places = [whole_of(op, "numbers", place, 1) for place in places]
    rest = (places, *hyper, decay, bool(own_rates), state, be.stream())
    be.module.sgd_update(*columns, *rest)
