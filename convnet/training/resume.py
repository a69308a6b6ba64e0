"""The configuration that a resumed run goes on with, and what it may change of the one before.

A checkpoint holds the configuration that it was trained with. The run's config.toml, `--set` and a
configuration given anew are held against it key by key: `DECISIONS` says for every key what becomes
of another value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from convnet.common.typecheck import shown
from convnet.config import Config, ConfigError, load_config
from convnet.optim import lr_schedule
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.progress import Reporter
from convnet.training.run_folder import CONFIG, run_config
from convnet.training.setup import Data, with_path


class Decision(Enum):
    """What another value means when a run is resumed."""

    KEPT = "refused: it would be another run"
    STEERS = "taken, with a warning: the run goes on otherwise than it was begun"
    FREE = "taken, and said: it changes nothing that is learned"


# docs/configs.md lists the same.
DECISIONS: dict[str, Decision] = {
    **dict.fromkeys(
        (
            "seed",
            "data.source",
            "data.size",
            "data.val_fraction",
            "data.bad_files",
            "data.mean",
            "data.scale",
            "augment.crop",
            "augment.pad",
            "augment.mirror",
            "augment.colour_noise",
            "net.model",
            "net.options",
            "net.layers",
            "net.init",
            "net.lr_mult",
            "train.batch",
        ),
        Decision.KEPT,
    ),
    **dict.fromkeys(
        (
            "sgd.lr",
            "sgd.momentum",
            "sgd.weight_decay",
            "sgd.groups",
            "schedule.kind",
            "schedule.warmup_steps",
            "schedule.options",
            "train.precision",
        ),
        Decision.STEERS,
    ),
    **dict.fromkeys(
        (
            "name",
            "data.path",  # the images are compared, see `Parts.check_same`
            "data.workers",
            "train.epochs",  # STEERS where the schedule spans the run, see `_decision`
            "train.checkpoint_steps",
            "train.keep",
            "train.log_steps",
            "train.threads",
            "train.tensorboard",
            "step.graph",
            "step.fuse_update",
        ),
        Decision.FREE,
    ),
}


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
    """The configuration to go on with, and what is otherwise than in the checkpoint.

    Attributes:
        changes: of the configuration.
        machine: what the checkpoint says of the device, see `Parts.machine`; empty where unknown.
    """

    cfg: Config
    changes: tuple[Change, ...]
    machine: Mapping[str, Any]

    def show(self, reporter: Reporter, machine: Mapping[str, Any], finished: bool) -> None:
        """Says what is otherwise, or that it is not taken as the run is finished.

        Args:
            machine: what the device is now.
            finished: there is nothing left to train.
        """
        text = "the run has finished: nothing is trained"
        if finished and self.changes:
            keys = ", ".join(change.key for change in self.changes)
            reporter.warn(f"{text}, and {CONFIG} stays as it was (not taken: {keys})")
        elif finished:
            reporter.line(f"          {text}; --epochs N trains on, where that is more")
        if finished:
            return
        for change in self.changes:
            if change.decision is Decision.STEERS:
                reporter.warn(f"{change}; from here on the run is not the one that it was begun as")
            else:
                reporter.line(f"changed   {change}")
        for key, now in machine.items():
            if self.machine.get(key, now) != now:
                text = f"{key}: it was {self.machine[key]}, and is {now} now"
                reporter.line(f"changed   {text}; sums may be rounded otherwise")


def resumption(
    folder: Path, checkpoint: Checkpoint | None, cfg: Any, overrides: Iterable[str], data: Data
) -> Resumption:
    """What a run goes on with.

    Args:
        folder: of the run.
        checkpoint: where it goes on; None where there is none yet. Then config.toml is what it was
            begun with.
        cfg: a configuration instead of the run's; None for that.
        overrides, data: as for `convnet.training.train`.

    Raises:
        ConfigError: a value that a resumed run keeps is another one.
        CheckpointError: the configuration in the checkpoint cannot be used.
    """
    begun = run_config(folder) if checkpoint is None else config_of(checkpoint)
    there = run_config(folder) if (folder / CONFIG).is_file() else begun
    wanted = with_path(load_config(there if cfg is None else cfg, overrides), data)
    if not wanted.data.path:
        wanted = with_path(wanted, begun.data.path or None)
    if not wanted.net.init:
        wanted = replace(wanted, net=replace(wanted.net, init=begun.net.init))
    changes = tuple(_changes(begun, wanted))
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
        cfg = load_config(checkpoint.state["config"], saved=True)
        return replace(cfg, origin=str(checkpoint.path))
    except ConfigError as error:
        version = checkpoint.state.get("version", "unknown")
        raise CheckpointError(f"{checkpoint.path}: written by convnet {version}: {error}") from None


def leaves(cfg: Config) -> dict[str, Any]:
    """The values that `DECISIONS` is about, by dotted key."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cfg):
        value = getattr(cfg, item.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                found[f"{item.name}.{inner.name}"] = getattr(value, inner.name)
        elif item.name != "origin":
            found[item.name] = value
    return found


def _changes(begun: Config, wanted: Config) -> Iterator[Change]:
    after = leaves(wanted)
    for key, value in leaves(begun).items():
        for where, old, new in _differences(key, value, after[key]):
            written = where.replace("schedule.options.", "schedule.")  # as in the file
            yield Change(written, old, new, _decision(key, wanted))


def _decision(key: str, wanted: Config) -> Decision:
    if key == "train.epochs":
        kinds = [wanted.schedule, *(group.schedule for group in wanted.sgd.groups)]
        if any(lr_schedule.SCHEDULES[kind.kind].spans_run for kind in kinds if kind is not None):
            return Decision.STEERS
    return DECISIONS[key]


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ, as deep as both have the same structure."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(f"{key}.{name}", old.get(name), new.get(name))
    elif dataclasses.is_dataclass(old) and type(old) is type(new):
        for item in dataclasses.fields(old):
            pair = getattr(old, item.name), getattr(new, item.name)
            yield from _differences(key if item.name == "options" else f"{key}.{item.name}", *pair)
    elif _tables(old) and _tables(new) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            name = getattr(pair[0], "name", number)
            yield from _differences(f"{key}.{name}", *pair)
    else:
        yield key, old, new


def _tables(value: Any) -> bool:
    return isinstance(value, tuple) and all(dataclasses.is_dataclass(item) for item in value)


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    if _tables(value) and value:
        return f"{len(value)} tables"
    return shown(list(value) if isinstance(value, tuple) else value)
