"""Learning-rate schedules.

`schedule.lr(step, total_steps)` is the rate of step `step` (0, 1, ...) in a run of `total_steps`.
All but `Plateau` are functions of these two numbers alone. Once an epoch the trainer calls
`schedule.observe(validation error)`, prints the message it may return, and ends the run when
`schedule.finished` is true. What a schedule remembers is in `state()`, for checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from convnet.common.checks import check_choice, check_float, check_int


class Schedule:
    """A schedule that stays at `base` and remembers nothing; the others override parts of it.

    Args:
        base: the learning rate, 0 or more.

    Attributes:
        warmup_steps: the first rates are scaled by 1/warmup_steps, 2/warmup_steps, ..., 1; of a
            run of fewer steps, in a tenth of the run. Source: Goyal et al., "Accurate, large
            minibatch SGD", 2017, section 2.2 (from near zero here).
        finished: training longer is not expected to help.
        spans_run: the rates depend on how many steps the run has in all.
    """

    warmup_steps = 0
    finished = False
    spans_run = False
    remembers: tuple[str, ...] = ()  # attributes that `state` consists of

    def __init__(self, base: float) -> None:
        self.base = check_float("lr", base, 0.0)

    def lr(self, step: int, total_steps: int) -> float:
        """The learning rate of one step.

        Args:
            step: its number, from 0.
            total_steps: steps of the whole run.
        """
        rate, warm_up = self.rate(step, total_steps), self.warm_up(total_steps)
        return rate if step >= warm_up else (step + 1) / warm_up * rate

    def warm_up(self, total_steps: int) -> int:
        """How many steps the warm-up has.

        Args:
            total_steps: steps of the whole run.
        """
        too_long = self.warmup_steps > total_steps
        return max(1, total_steps // 10) if too_long else self.warmup_steps

    def rate(self, step: int, total_steps: int) -> float:
        """The same without the warm-up.

        Args:
            step, total_steps: as in `lr`.
        """
        return self.base

    def observe(self, val_error: float) -> str | None:
        """Takes the result of an epoch into account.

        Args:
            val_error: the validation error at the end of the epoch, in per cent.

        Returns: a message where the schedule changes the rate or ends the run, else None.
        """
        return None

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on from here; JSON values."""
        return {name: getattr(self, name) for name in self.remembers}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a `state()` of the same kind of schedule.

        Args:
            state: what that returned.

        Raises: ValueError naming the keys that do not fit.
        """
        if set(state) != set(self.remembers):
            expected, got = sorted(self.remembers), sorted(state)
            name = type(self).__name__
            raise ValueError(f"{name} schedule: expected a state with keys {expected}, got {got}")


class Constant(Schedule):
    """lr = base.

    Args:
        base: the learning rate, 0 or more.
    """


class Step(Schedule):
    """lr = base / factor^(number of drops so far).

    Args:
        base: the rate at first.
        steps: the steps at which it drops, increasing.
        every: or, the number of steps between drops.
        factor: what it is divided by; 1 or more.

    Raises: ValueError: both of steps and every, or neither; steps that do not increase.
    """

    def __init__(
        self, base: float, steps: Sequence[int] = (), every: int = 0, factor: float = 10.0
    ) -> None:
        super().__init__(base)
        self.steps = [check_int("steps", step) for step in steps]
        self.every = check_int("every", every, 0)
        self.factor = check_float("factor", factor, 1.0)
        if bool(self.steps) == bool(self.every):
            raise ValueError(f"step schedule: expected steps or every, got {steps!r} and {every!r}")
        if self.steps != sorted(set(self.steps)):
            raise ValueError(f"steps: expected increasing numbers, got {list(steps)}")

    def rate(self, step: int, total_steps: int) -> float:
        drops = step // self.every if self.every else sum(step >= at for at in self.steps)
        return self.base / self.factor**drops


class _Falling(Schedule):
    """Base of the schedules that end at base / target_factor; arguments are those of `Linear`."""

    spans_run = True

    def __init__(self, base: float, target_factor: float = 10.0) -> None:
        super().__init__(base)
        self.target_factor = check_float("target_factor", target_factor, above=0.0)


class Linear(_Falling):
    """lr = base (1 - p) + p base / target_factor, where p is the fraction of training done.

    Args:
        base: the rate at first.
        target_factor: what it has been divided by at the end; above 0.

    Source: cuda-convnet, `linear[base;tgtFactor]`.
    """

    def rate(self, step: int, total_steps: int) -> float:
        p = _fraction(step, total_steps)
        return self.base * (1.0 - p) + p * self.base / self.target_factor


class Exp(_Falling):
    """lr = base * target_factor^-p, where p is the fraction of training done.

    Args:
        base, target_factor: as in `Linear`.

    Source: cuda-convnet, `exp[base;tgtFactor]`.
    """

    def rate(self, step: int, total_steps: int) -> float:
        return self.base * self.target_factor ** -_fraction(step, total_steps)


class DExp(_Falling):
    """`Exp` in `levels` equal spans: in span i (0, 1, ...) the rate is
    base * target_factor^(-i / (levels - 1)).

    Args:
        base, target_factor: as for `Exp`.
        levels: how many spans; 2 or more.

    Source: cuda-convnet, `dexp[base;tgtFactor;numSteps]`.
    """

    def __init__(self, base: float, target_factor: float = 10.0, levels: int = 4) -> None:
        super().__init__(base, target_factor)
        self.levels = check_int("levels", levels, 2)

    def rate(self, step: int, total_steps: int) -> float:
        span = min(step * self.levels // max(total_steps, 1), self.levels - 1)
        return float(self.base * self.target_factor ** (-span / (self.levels - 1)))


class Cosine(Schedule):
    """lr = final + (base - final) (1 + cos(pi p)) / 2, where p is the fraction of training done.

    Args:
        base, final: the rates at first and at the end.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, one cycle.
    """

    spans_run = True

    def __init__(self, base: float, final: float = 0.0) -> None:
        super().__init__(base)
        self.final = check_float("final", final, 0.0)

    def rate(self, step: int, total_steps: int) -> float:
        cosine = math.cos(math.pi * _fraction(step, total_steps))
        return self.final + (self.base - self.final) * (1.0 + cosine) / 2.0


class Plateau(Schedule):
    """Divides the rate by `factor` when the validation error has stopped improving.

    That is the paper's rule (section 5), done by hand there: by 10, three times. An epoch improves
    when its error is below the best one by more than `min_delta`. After `patience` epochs in a row
    that do not, the rate drops; when it has dropped `drops` times, the schedule is finished.

    Args:
        base: the rate at first.
        factor: what it is divided by.
        patience: epochs without improvement that are waited for; 1 or more.
        min_delta: in the units of the error given to `observe`.
        drops: the largest number of drops.
    """

    remembers = ("dropped", "waited", "best", "finished")

    def __init__(
        self,
        base: float,
        factor: float = 10.0,
        patience: int = 3,
        min_delta: float = 0.0,
        drops: int = 3,
    ) -> None:
        super().__init__(base)
        self.factor = check_float("factor", factor, 1.0)
        self.patience = check_int("patience", patience)
        self.min_delta = check_float("min_delta", min_delta, 0.0)
        self.drops = check_int("drops", drops, 0)
        self.dropped = 0
        self.waited = 0
        self.best: float | None = None
        self.finished = False

    def rate(self, step: int, total_steps: int) -> float:
        return self.base / self.factor**self.dropped

    def observe(self, val_error: float) -> str | None:
        known = math.isfinite(val_error)
        if known and (self.best is None or val_error < self.best - self.min_delta):
            self.best, self.waited = float(val_error), 0
            return None
        self.waited += 1
        if self.waited < self.patience or self.finished:
            return None
        self.waited = 0
        since = f"no improvement in {self.patience} epoch{'s' if self.patience > 1 else ''}"
        if self.dropped < self.drops:
            self.dropped += 1
            drop = f"drop {self.dropped} of {self.drops}"
            return f"{since}: learning rate now {self.rate(0, 1):g} ({drop})"
        self.finished = True
        return f"{since} after {self.drops} drops of the learning rate: training is finished"

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        dropped, waited, best, finished = (state[name] for name in self.remembers)
        numbers = [dropped, waited, 0.0 if best is None else best]
        if not all(type(one) in (int, float) and abs(one) < math.inf for one in numbers):
            raise ValueError(f"Plateau schedule: expected numbers as its state, got {numbers}")
        self.dropped, self.waited = int(dropped), int(waited)
        self.best = None if best is None else float(best)
        self.finished = bool(finished) and self.dropped >= self.drops  # may be more now


def _fraction(step: int, total_steps: int) -> float:
    return min(step / total_steps, 1.0) if total_steps > 0 else 1.0


# By the name that a configuration's `schedule.kind` takes.
SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "exp": Exp,
    "dexp": DExp,
    "cosine": Cosine,
    "plateau": Plateau,
}


def build(kind: str, base: float, warmup_steps: int = 0, **options: Any) -> Schedule:
    """A schedule by name: `build("step", 0.01, every=1000)`.

    Args:
        kind: a key of `SCHEDULES`.
        base: the learning rate it starts from.
        warmup_steps: steps of linear warm-up; 0 for none.
        options: the keyword arguments of that kind.

    Raises: ValueError for an unknown kind or a value out of range.
    """
    schedule = SCHEDULES[check_choice("schedule kind", kind, list(SCHEDULES))](base, **options)
    schedule.warmup_steps = check_int("warmup_steps", warmup_steps, 0)
    return schedule
