"""The configuration that a resumed run continues with, and what may differ from the one before.

A checkpoint holds the configuration that it was trained with. The run's config.toml, `--set` and a
configuration given anew are compared with it key by key; `decision` says what becomes of another
value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from convnet.common.typecheck import shown
from convnet.config import Config, ConfigError, load_config
from convnet.optim import lr_schedule
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.datasets import Data, with_path
from convnet.training.progress import Reporter
from convnet.training.run_folder import CONFIG, run_config


class Decision(Enum):
    """What happens to a changed value of the configuration when a run is resumed."""

    KEPT = "refused: it would be another run"
    STEERS = "taken, with a warning: from here on the run differs from the one that was begun"
    FREE = "taken, and printed: it changes nothing that is learned"


# By key, or by table for those keys of it that are not listed. Whatever is not here is kept.
# docs/configs.md lists the same.
_DECISIONS = {
    "name": Decision.FREE,
    "data.path": Decision.FREE,  # the images are compared, see `Parts.check_same`
    "data.workers": Decision.FREE,
    "sgd": Decision.STEERS,
    "schedule": Decision.STEERS,
    "train": Decision.FREE,
    "train.batch": Decision.KEPT,
    "train.sampling": Decision.KEPT,
    "train.class_weights": Decision.STEERS,
    "train.precision": Decision.STEERS,
    "step": Decision.FREE,
}


def decision(key: str, cfg: Config) -> Decision:
    """What becomes of another value of a key, such as "sgd.lr"; `cfg` is the one it stands in."""
    if key == "train.epochs":
        rules = [cfg.schedule, *(group.schedule for group in cfg.sgd.groups)]
        if any(lr_schedule.SCHEDULES[rule.kind].spans_run for rule in rules if rule is not None):
            return Decision.STEERS
    table = key.partition(".")[0]
    return _DECISIONS.get(key, _DECISIONS.get(table, Decision.KEPT))


@dataclass(frozen=True)
class Change:
    """A value of the configuration that is not what it was."""

    key: str
    before: Any
    after: Any
    decision: Decision

    def __str__(self) -> str:
        return f"{self.key}: it was {_text(self.before)}, and is {_text(self.after)} now"


@dataclass(frozen=True)
class Resumption:
    """The configuration that a resumed run goes on with, and what has changed in it.

    Attributes:
        cfg: the configuration.
        changes: of it, since the checkpoint.
        machine: what the checkpoint says of the device, see `Parts.machine`; empty where unknown.
    """

    cfg: Config
    changes: tuple[Change, ...]
    machine: Mapping[str, Any]

    def show(self, reporter: Reporter, machine: Mapping[str, Any], finished: bool) -> None:
        """Prints what has changed; or, where the run is finished, that changes are not taken.

        Args:
            reporter: where to say it.
            machine: what the device is now.
            finished: there is nothing left to train.
        """
        text = "the run has finished: nothing is trained"
        if finished and self.changes:
            keys = ", ".join(change.key for change in self.changes)
            reporter.warn(f"{text}, and {CONFIG} stays as it was (not taken: {keys})")
        elif finished:
            reporter.block("", f"{text}; --epochs N trains on, where that is more")
        if finished:
            return
        for change in self.changes:
            if change.decision is Decision.STEERS:
                reporter.warn(f"{change}; from here on the run is not the one that it was begun as")
            else:
                reporter.block("changed", str(change))
        for key, now in machine.items():
            before = self.machine.get(key, now)
            if before != now:
                text = f"{key}: it was {before}, and is {now} now; sums may be rounded otherwise"
                reporter.block("changed", text)


def resumption(
    folder: Path, checkpoint: Checkpoint | None, cfg: Any, overrides: Iterable[str], data: Data
) -> Resumption:
    """Finds the configuration that a resumed run goes on with.

    Args:
        folder: of the run.
        checkpoint: where it goes on; None where there is none yet: then config.toml is what it was
            begun with.
        cfg: a configuration instead of the run's; None for that.
        overrides, data: as for `convnet.train`.

    Raises:
        ConfigError: the value of a key that a resumed run keeps is another one.
        CheckpointError: the configuration in the checkpoint cannot be used.
    """
    begun = run_config(folder) if checkpoint is None else config_of(checkpoint)
    if data is not None and not isinstance(data, (str, os.PathLike)):
        begun = with_path(begun, data)  # runs of before did not say that their sets were given
    there = run_config(folder) if (folder / CONFIG).is_file() else begun
    wanted = with_path(load_config(there if cfg is None else cfg, overrides), data)
    if not wanted.data.path:
        wanted = with_path(wanted, begun.data.path or None)
    if not wanted.net.init:
        wanted = replace(wanted, net=replace(wanted.net, init=begun.net.init))
    changes = tuple(
        Change(key, old, new, decision(key, wanted))
        for key, old, new in differences("", begun.to_dict(), wanted.to_dict())
    )
    for change in changes:
        if change.decision is Decision.KEPT:
            raise ConfigError(
                f"{wanted.origin}: {change.key}: the run in {folder} was begun with "
                f"{_text(change.before)}, got {_text(change.after)}; a resumed run keeps it: give "
                f"it as it was, or begin another run (--init {folder} takes the weights of this)"
            )
    return Resumption(wanted, changes, checkpoint.state.get("machine", {}) if checkpoint else {})


def config_of(checkpoint: Checkpoint) -> Config:
    """The configuration that a checkpoint was trained with.

    Raises: CheckpointError: it cannot be used, for example for keys of a later version.
    """
    try:
        cfg = checkpoint.config()
        return replace(cfg, origin=str(checkpoint.path))
    except ConfigError as error:
        version = checkpoint.state.get("version", "unknown")
        raise CheckpointError(f"{checkpoint.path}: written by convnet {version}: {error}") from None


def differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two tables differ: dotted key and both values, as deep as both are tables. Members of
    a list of tables go by their names, else by their numbers."""
    if isinstance(old or new, dict) and isinstance(new or old, dict):  # None: an empty table
        old, new = old or {}, new or {}
        for name in dict.fromkeys([*old, *new]):
            place = f"{key}.{name}" if key else name
            yield from differences(place, old.get(name), new.get(name))
    elif _tables(old) and _tables(new) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(f"{key}.{pair[0].get('name', number)}", *pair)
    elif old != new:
        yield key, old, new


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    return f"{len(value)} tables" if value and _tables(value) else shown(value)
