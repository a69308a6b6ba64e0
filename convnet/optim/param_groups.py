"""Parameters that have a momentum or a learning-rate schedule of their own: `[[sgd.groups]]`."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from convnet.common.typecheck import ConfigError, did_you_mean
from convnet.layers.layer import Parameter
from convnet.optim import lr_schedule


class ScheduleRule(Protocol):
    """A learning-rate schedule as a configuration says it."""

    @property
    def kind(self) -> str: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class GroupRule(Protocol):
    """A group of parameters as a configuration says it; patterns are those of `fnmatch`."""

    @property
    def params(self) -> Sequence[str]: ...
    @property
    def momentum(self) -> float | None: ...
    @property
    def schedule(self) -> ScheduleRule | None: ...


class Groups:
    """The groups of a configuration, applied to the parameters of a net.

    A group's schedule starts from the learning rate of the whole net, as that of all others does; a
    parameter's `lr_mult` multiplies the one as it does the other. Rates are functions of the step
    alone, so that nothing of them needs to be saved.

    Args:
        rules: the groups.
        lr: where their schedules start.
        params: of the net, each once.
        where: names the rules in errors, as "run.toml: sgd.groups".

    Raises:
        ConfigError: a name or a pattern that fits no parameter, or a parameter in two groups.
    """

    def __init__(
        self, rules: Sequence[GroupRule], lr: float, params: Iterable[Parameter], where: str
    ) -> None:
        by_name = {param.name: param for param in params}
        taken: dict[str, int] = {}
        self._scheduled: list[tuple[lr_schedule.Schedule, list[Parameter]]] = []
        for number, rule in enumerate(rules):
            key = f"{where}[{number}].params"
            names = _matching(rule.params, by_name, key)
            for name in names:
                if name in taken:
                    raise ConfigError(f"{key}: {name} is in group {taken[name]} too")
                taken[name] = number
                by_name[name].rates.momentum = rule.momentum
            if rule.schedule is not None:
                own = rule.schedule
                chosen = lr_schedule.build(own.kind, lr, own.warmup_steps, **own.options)
                self._scheduled.append((chosen, [by_name[name] for name in names]))

    def begin_step(self, step: int, total_steps: int) -> None:
        """Gives the parameters their learning rates of this step."""
        for chosen, params in self._scheduled:
            lr = chosen.lr(step, total_steps)
            for param in params:
                param.rates.lr = lr


def _matching(patterns: Sequence[str], by_name: Mapping[str, Parameter], key: str) -> list[str]:
    """The names that fit the patterns, each once, in the order of the patterns."""
    names: dict[str, None] = {}
    for pattern in patterns:
        found = fnmatch.filter(by_name, pattern)
        if not found:
            hint = did_you_mean(pattern, by_name)
            raise ConfigError(f'{key}: no parameter is called "{pattern}"{hint}')
        names.update(dict.fromkeys(found))
    return list(names)
