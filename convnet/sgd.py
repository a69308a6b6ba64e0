"""Stochastic gradient descent with momentum and weight decay, as in the paper's section 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convnet import backend as backends
from convnet import ops
from convnet.layer import Parameter, number
from convnet.stepstate import StepState


class SGD:
    """The paper's update rule, for all parameters in one launch on each device.

        v <- momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult grad
        w <- w + v

    where lr_mult and decay_mult belong to each parameter. A parameter whose lr_mult is 0 is left
    alone, its velocity included. One that has a learning rate or a momentum of its own (see
    `convnet.groups`) is updated by these, in another launch.

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

    @property
    def rates(self) -> tuple[float, float, float]:
        """lr, momentum and weight decay."""
        return self.lr, self.momentum, self.weight_decay

    def update(self, state: StepState | None = None, done: Sequence[Parameter] = ()) -> None:
        """One step: changes `data` and `velocity` of every parameter by its `grad`.

        Args:
            state: where the devices have `rates`; without it, they are given them. Parameters with
                rates of their own are given those.
            done: parameters that the backward pass has updated (see `convnet.fusedupdate`).

        Raises: RuntimeError for another whose gradient was not kept.
        """
        updated = {id(param) for param in done}
        tensors: dict[tuple[backends.Backend, float, float], list[Any]] = {}
        for p in self.params:
            if p.lr_mult != 0.0 and id(p) not in updated:
                lr = self.lr if p.rates.lr is None else p.rates.lr
                momentum = self.momentum if p.rates.momentum is None else p.rates.momentum
                own = tensors.setdefault((backends.of(p.data), lr, momentum), [])
                own.append((p.data, p.velocity, p.grad, p.lr_mult, p.decay_mult))
        for (device, lr, momentum), own in tensors.items():
            held = None if state is None else state.on(device)
            if held is not None and (lr, momentum) != (self.lr, self.momentum):
                if state is not None and state.halted:
                    continue
                held = None
            with device.active():
                ops.sgd_update(own, lr, momentum, self.weight_decay, state=held)
