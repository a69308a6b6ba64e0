"""Stochastic gradient descent with momentum and weight decay, as in the paper's section 5."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from convnet import backend as backends
from convnet import ops
from convnet.common.checks import check_float
from convnet.common.exit_codes import FAILED
from convnet.layers.layer import Parameter
from convnet.ops.step_state import ParameterRates, StepState


class DivergedError(ArithmeticError):
    """Training met numbers that are not finite.

    Attributes:
        parameter: the first in backward order whose update was not finite; None where another
            number than an update was not.
        node: where it began, "input" if the data held them; None where that is not known.
    """

    exit_code = FAILED

    def __init__(self, message: str, parameter: str | None = None, node: str | None = None) -> None:
        super().__init__(message)
        self.parameter, self.node = parameter, node


class SGD:
    """The paper's update rule, for all parameters in one launch on each device.

        v <- momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult grad
        w <- w + v

    where lr_mult and decay_mult belong to each parameter. A parameter whose lr_mult is 0 is left
    alone, its velocity included. One that has a learning rate or a momentum of its own (see
    `convnet.optim.param_groups`) is updated by these. An element whose new w would not be finite
    stays as it was.

    Args:
        params: the parameters to update, from the first layer's on; usually `net.params`.
        lr: learning rate, 0 or more; may be set at any time.
        momentum: in [0, 1).
        weight_decay: 0 or more.

    Attributes:
        own_rates: whether a parameter had rates of its own when they were last written.

    Raises: ValueError for a value out of range.

    Source: paper, section 5.
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        self.params = list(params)
        self.lr = check_float("lr", lr, 0.0)
        self.momentum = check_float("momentum", momentum, 0.0, below=1.0)
        self.weight_decay = check_float("weight_decay", weight_decay, 0.0)
        self.own_rates = False
        self._own = ParameterRates()
        self._state: StepState | None = None  # of updates that are given none

    def __repr__(self) -> str:
        rates = ("lr", "momentum", "weight_decay")
        shown = ", ".join(f"{name}={getattr(self, name):g}" for name in rates)
        return f"{type(self).__name__}({shown}, {len(self.params)} parameters)"

    @property
    def rates(self) -> tuple[float, float, float]:
        """lr, momentum and weight decay."""
        return self.lr, self.momentum, self.weight_decay

    @property
    def usual(self) -> bool:
        """Whether it updates as this class does, and not by a rule of its own."""
        return type(self).update is SGD.update

    def write_rates(self) -> None:
        """Writes the rates of all parameters to the devices, where any has its own."""
        rows, own = [], False
        for param in self.params:
            lr, momentum = param.rates.lr, param.rates.momentum
            own = own or lr is not None or momentum is not None
            rows.append(
                (self.lr if lr is None else lr, self.momentum if momentum is None else momentum)
            )
        self.own_rates = own
        if own:
            self._own.write(rows)

    def update(self, state: StepState | None = None) -> None:
        """One step: changes `data` and `velocity` of every parameter by its `grad`.

        Args:
            state: where the devices have `rates`, and note which parameter they could not update,
                by its place in `params` from 1. Without it they are given the rates, and this
                method waits for them.

        Raises:
            RuntimeError: a parameter has no gradient.
            DivergedError: without a state: an update was not finite.
        """
        launches: dict[backends.Backend, dict[int, Any]] = {}
        for number, p in enumerate(self.params, 1):
            if p.frozen:
                continue
            if p.grad is None:
                raise RuntimeError(
                    f"{p.name}: there is no gradient: Net.gradients() leaves them, and a training "
                    "step with net.keep_gradients = True"
                )
            tensors = launches.setdefault(backends.of(p.grad).real, {})
            tensors[number] = p.data, p.velocity, p.grad, p.lr_mult, p.decay_mult
        noted = state or self._fresh_state(launches)
        self.write_rates()
        for device, tensors in launches.items():
            with device.active():
                ops.sgd_update(
                    list(tensors.values()),
                    *self.rates,
                    state=noted.on(device),
                    numbers=list(tensors),
                    rates=self._own.on(device) if self.own_rates else None,
                )
        if state is None and noted.diverged:
            name = self.params[noted.diverged - 1].name
            raise DivergedError(f"the update of {name} is not finite", name)

    def _fresh_state(self, devices: Iterable[backends.Backend]) -> StepState:
        """A state with the current rates and no note of divergence."""
        if self._state is None:
            self._state = StepState(list(devices))
        if self._state.diverged:
            self._state.clear_diverged()
        self._state.write(0, 0, self.rates)
        return self._state
