"""Learning rates, momenta and weight decays of a parameter file, as `[sgd]` and `[schedule]`.

cuda-convnet gives each matrix and each bias its own; here there is one of each, with multipliers,
and groups of parameters that are exceptions.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from convnet.common.typecheck import did_you_mean
from convnet.exchange.cuda_convnet.definition import Section, finite

_PARAMETERS = {
    "const": ["base"],
    "linear": ["base", "tgtFactor"],
    "exp": ["base", "tgtFactor"],
    "dexp": ["base", "tgtFactor", "numSteps"],
}
_OURS = {"tgtFactor": "target_factor", "numSteps": "levels"}

Schedule = tuple[tuple[str, Any], ...]  # the items of a [schedule] table


@dataclass(frozen=True)
class Rate:
    """How one parameter learns: its first learning rate, schedule, momentum and weight decay."""

    base: float
    schedule: Schedule
    momentum: float
    decay: float = 0.0


def read_rates(section: Section, key: str, count: int) -> list[tuple[float, Schedule]]:
    """`epsW` or `epsB`: a learning rate and a schedule for each input.

    Args:
        section: a section of the parameter file.
        key: "epsW" or "epsB".
        count: number of inputs; a single value stands for all.

    Raises:
        ConfigError: it is missing or not one of cuda-convnet's schedules.
    """
    return [_schedule(section, key, word) for word in section.spread(key, count)]


def _schedule(section: Section, key: str, word: str) -> tuple[float, Schedule]:
    """One of: 0.01, const[base=0.01], dexp[base=0.01;tgtFactor=250;numSteps=4]; also with the
    values alone, in this order."""
    match = re.fullmatch(r"([A-Za-z]\w*)\s*(?:\[(.*)\])?", word)
    if not match:
        return section.read(key, word, finite, "a number or a schedule"), (("kind", "constant"),)
    kind = match[1].lower()
    if kind not in _PARAMETERS:
        hint = did_you_mean(kind, _PARAMETERS)
        raise section.error(key, f'unknown schedule "{match[1]}"{hint}')
    names, given = _PARAMETERS[kind], dict[str, str]()
    spelt = {name.lower(): name for name in names}
    for number, part in enumerate((match[2] or "").split(";")):
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals:
            name, value = names[number] if number < len(names) else "?", name
        if name.lower() not in spelt:
            raise section.error(key, f"{kind}: expected {', '.join(names)}; got {part.strip()!r}")
        given[spelt[name.lower()]] = value
    missing = [name for name in names if not given.get(name)]
    if missing:
        raise section.error(key, f"{kind}: {missing[0]} is missing in {word!r}")
    base = section.read(key, given["base"], finite, "a number for base")
    table: list[tuple[str, Any]] = [("kind", "constant" if kind == "const" else kind)]
    for name in names[1:]:
        read: Any = int if name == "numSteps" else finite
        value_read = section.read(key, given[name], read, f"a number for {name}")
        if value_read <= 0 or (name == "numSteps" and value_read < 2):
            raise section.error(key, f"{kind}: {name}: expected more, got {given[name]}")
        table.append((_OURS[name], value_read))
    return base, tuple(table)


def sgd_tables(
    rates: dict[str, Rate],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[float, float]]]:
    """One rate for all parameters, and the exceptions.

    Args:
        rates: name of a parameter ("conv1.w") -> its rate; the weights of a layer come before
            its biases.

    Returns:
        the tables [sgd] and [schedule], and for each parameter the multipliers of learning rate and
        weight decay.
    """
    learning = {name: rate for name, rate in rates.items() if rate.base > 0.0} or rates
    weights = [rate for name, rate in learning.items() if name.endswith(".w")]
    lr = _usual([rate.base for rate in weights or learning.values()])
    momentum = _usual([rate.momentum for rate in learning.values()])
    schedule = _usual([rate.schedule for rate in learning.values()])
    decay = _usual([rate.decay for rate in weights if rate.decay > 0.0] or [0.0])
    multipliers = {
        name: (_ratio(rate.base, lr or 1.0), _ratio(rate.decay, decay or 1.0))
        for name, rate in rates.items()
    }
    groups: dict[tuple[Any, Any], list[str]] = {}
    for name, rate in learning.items():
        own = (
            None if rate.momentum == momentum else rate.momentum,
            None if rate.schedule == schedule else rate.schedule,
        )
        if own != (None, None):
            groups.setdefault(own, []).append(name)
    sgd: dict[str, Any] = {"lr": lr or 0.01, "momentum": momentum, "weight_decay": decay}
    tables = []
    for (own_momentum, own_schedule), names in groups.items():
        table: dict[str, Any] = {"params": names}
        table |= {} if own_momentum is None else {"momentum": own_momentum}
        table |= {} if own_schedule is None else {"schedule": dict(own_schedule)}
        tables.append(table)
    if tables:
        sgd["groups"] = tables
    return sgd, dict(schedule), multipliers


def _usual(values: Any) -> Any:
    """The most frequent; the first of several."""
    return Counter(values).most_common(1)[0][0]


def _ratio(value: float, unit: float) -> float:
    """value / unit, without the last digits that division leaves."""
    return float(f"{value / unit:.12g}")
