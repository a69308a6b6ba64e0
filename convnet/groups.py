"""Parameters that have a momentum or a learning-rate schedule of their own: `[[sgd.groups]]`."""

from __future__ import annotations

import fnmatch

from convnet import schedule
from convnet.config import Config, ConfigError
from convnet.layer import Parameter
from convnet.net import Net
from convnet.typecheck import did_you_mean


class Groups:
    """The groups of a configuration, applied to the parameters of a net.

    A group's schedule starts from `sgd.lr`, as that of all others does; a parameter's `lr_mult`
    multiplies the one as it does the other. Rates are functions of the step alone, so that nothing
    of them needs to be saved.

    Args:
        cfg: its `sgd` table.
        net: whose parameters they are.

    Raises:
        ConfigError: a name or a pattern that fits no parameter, or a parameter in two groups.
    """

    def __init__(self, cfg: Config, net: Net) -> None:
        own = [node.layer.params for node in net.nodes if node.share is None]
        by_name = {param.name: param for params in own for param in params}
        taken: dict[str, int] = {}
        self._scheduled: list[tuple[schedule.Schedule, list[Parameter]]] = []
        for number, group in enumerate(cfg.sgd.groups):
            key = f"{cfg.origin}: sgd.groups[{number}].params"
            names: list[str] = []
            for pattern in group.params:
                found = fnmatch.filter(by_name, pattern)
                if not found:
                    hint = did_you_mean(pattern, by_name)
                    raise ConfigError(f'{key}: no parameter is called "{pattern}"{hint}')
                names += [name for name in found if name not in names]
            for name in names:
                if name in taken:
                    raise ConfigError(f"{key}: {name} is in group {taken[name]} too")
                taken[name] = number
                by_name[name].rates.momentum = group.momentum
            if group.schedule is not None:
                chosen = schedule.build(
                    group.schedule.kind,
                    cfg.sgd.lr,
                    group.schedule.warmup_steps,
                    **group.schedule.options,
                )
                self._scheduled.append((chosen, [by_name[name] for name in names]))

    def begin_step(self, step: int, total_steps: int) -> None:
        """Gives the parameters their learning rates of this step."""
        for chosen, params in self._scheduled:
            lr = chosen.lr(step, total_steps)
            for param in params:
                param.rates.lr = lr
