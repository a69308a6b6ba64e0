"""Stochastic gradient descent with momentum and weight decay, as in the paper's section 5."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend, ops
from convnet.layer import Parameter, number


class SGD:
    """The paper's update rule, for all parameters in one launch on each device.

        v <- momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult grad
        w <- w + v

    where lr_mult and decay_mult belong to each parameter. A parameter whose lr_mult is 0 is left
    alone, its velocity included.

    Args:
        params: the parameters to update, usually `net.params`.
        lr: learning rate; may be set at any time.
        momentum: in [0, 1).
        weight_decay: 0 or more.

    Raises: ValueError for a value out of range.
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        self.params = list(params)
        self.lr = number("lr", lr, 0.0)
        self.momentum = number("momentum", momentum, 0.0)
        if self.momentum >= 1.0:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum!r}")
        self.weight_decay = number("weight_decay", weight_decay, 0.0)

    def update(self) -> None:
        """One step: changes `data` and `velocity` of every parameter by its `grad`."""
        tensors = [
            (p.data, p.velocity, p.grad, p.lr_mult, p.decay_mult)
            for p in self.params
            if p.lr_mult != 0.0
        ]
        for device in dict.fromkeys(backend.of(entry[0]) for entry in tensors):
            own = [entry for entry in tensors if backend.of(entry[0]) is device]
            with device.active():
                ops.sgd_update(own, self.lr, self.momentum, self.weight_decay)
