"""Stochastic gradient descent with momentum and weight decay, as in the paper's section 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convnet import backend as backends
from convnet import ops
from convnet.layer import Array, Parameter, number
from convnet.stepstate import StepState

if TYPE_CHECKING:
    from convnet.net import Net

_PIECE = 1 << 20  # numbers squared at a time: a small part of the memory of a large layer


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


def update_ratios(net: Net) -> dict[str, float]:
    """The norm of the last update of each layer's weights, over the norm of the weights.

    The update is the velocity, as w <- w + v. About 1e-3 is usual; far more is a sign of a learning
    rate that is too large, far less of one that is too small. Layers that do not learn, or have
    not yet, are left out; so are those whose weights are all zero. The parts of a layer on two
    devices count as one.

    Returns: by the name of the layer, in the order of the net.
    """
    found = {}
    for node in net.nodes:
        if node.share is not None or not node.layer.params:
            continue
        parts = net.parts_of(node.layer.params[0])
        if all(part.has_velocity and part.lr_mult != 0.0 for part in parts):
            size = _norm([part.data for part in parts])
            if size > 0.0:
                found[node.name] = _norm([part.velocity for part in parts]) / size
    return found


def _norm(arrays: Sequence[Array]) -> float:
    """The Euclidean norm of all together, summed in float64 and in a fixed order."""
    total = 0.0
    for array in arrays:
        device, flat = backends.of(array), array.reshape(-1)
        with device.active():
            for start in range(0, flat.size, _PIECE):
                square = device.xp.square(flat[start : start + _PIECE])
                total += float(square.sum(dtype=np.float64))
    return math.sqrt(total)
