"""The update rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convnet.backend import Array
from convnet.ops.call import call, device_of


def sgd_update(
    tensors: Iterable[tuple[Array, Array, Array, float, float]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    state: Array | None = None,
    *,
    numbers: Sequence[int] | None = None,
    rates: Array | None = None,
) -> None:
    """The update rule of the paper (section 5), in place, for all parameters in one launch.

    ``v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;  w = w + v``

    An element whose new w would not be finite stays as it was, w and v. So nothing is ever written
    from a gradient that is not finite.

    Args:
        tensors: (w, velocity, grad, lr_mult, decay_mult) per parameter; w, velocity and grad of
            equal shape.
        lr, momentum, weight_decay: learning rate, and the two others as in the equation.
        state: uint32 [12] on the same device (see `convnet.ops.step_state`): lr, momentum and
            weight decay are taken from it, as they are when the operation runs, in place of those
            given. Where something was not finite that is noted there; where the step was aborted or
            an earlier one was not finite nothing is changed.
        numbers: by which the tensors are noted, from 1; of several the greatest is. By default
            their places.
        rates: float32 [parameters, 2] on the same device: learning rate and momentum of the tensor
            with number i are those in row i - 1, as they are when the operation runs.

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    op = "sgd_update"
    if not isinstance(tensors, Iterable) or getattr(tensors, "shape", None) is not None:
        raise ValueError(f"{op}: tensors: expected a sequence, got {type(tensors).__name__}")
    rows = list(tensors)
    for row in rows:
        if not isinstance(row, (tuple, list)) or len(row) != 5:
            raise ValueError(
                f"{op}: tensors: expected (w, velocity, grad, lr_mult, decay_mult), got {row!r}"
            )
    if rows:
        columns = map(list, zip(*rows, strict=True))
        places = list(range(1, len(rows) + 1) if numbers is None else numbers)
        device = device_of(op, *rows[0][:3], state)
        call(op, *columns, places, lr, momentum, weight_decay, rates, state, device=device)
