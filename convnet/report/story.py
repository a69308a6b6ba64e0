"""What a page tells of a run, gathered from its folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.files import lock
from convnet.config import Config, load_config, presets
from convnet.config.toml_text import to_toml
from convnet.data.dataset import DataError
from convnet.data.sources import PUBLISHED
from convnet.evaluation.evaluate import Trained, open_run
from convnet.interpret.plot import read_filters
from convnet.nn.net import Net
from convnet.report.measured import Measured, measure_run
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.datasets import Data, open_sets
from convnet.training.nets import build_net
from convnet.training.resume import differences
from convnet.training.run_folder import (
    METRICS,
    RunError,
    open_checkpoint,
    read_metrics,
    run_config,
)

Warn = Callable[[str], None]

FIVE = 5  # classes up to which "right among the five likeliest" says nothing


@dataclass(frozen=True)
class Story:
    """What there is to tell.

    Attributes:
        name: of the run's folder.
        cfg: its configuration, with paths cut to their last part: pages are shown around.
        records: the lines of its metrics.jsonl.
        running: whether a process trains it now.
        device, version: it was trained on and with, where a checkpoint says so.
        classes: their names; empty before the first checkpoint.
        net: of sizes only; None before the first checkpoint.
        filters: of the first layer that has some, float32 [K, R, S, C], and the layer's name.
        step: of the checkpoint whose weights were measured.
        training_images: how many; 0 where that is not known.
        measured: of held-out images; None where `why_not` says why.
    """

    name: str
    cfg: Config
    records: Sequence[dict[str, Any]]
    running: bool
    device: str = ""
    version: str = ""
    classes: tuple[str, ...] = ()
    net: Net | None = None
    filters: tuple[str, npt.NDArray[np.float32]] | None = None
    step: int = 0
    training_images: int = 0
    measured: Measured | None = None
    why_not: str = ""

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "epoch"]

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best epoch, as `train.best` says; the first of several."""
        named = [record for record in self.epochs if "val_top1" in record]
        sign = {"val_top1": -1.0, "val_loss": 1.0}[kind := self.cfg.train.best]
        return min(named, key=lambda record: sign * record[kind]) if named else None

    @property
    def data(self) -> str:
        """Which images, in a few words; not where they are."""
        source, path = self.cfg.data.source, self.cfg.data.path
        title = PUBLISHED[source].title if source in PUBLISHED else source
        return f"{title}, {path}" if path else title

    @property
    def command(self) -> str:
        """The command that repeats the run: of a preset with what was changed, where the run is
        such a one; else of the configuration below it."""
        return repeating(self.cfg)


def gather(
    run: str | os.PathLike[str],
    data: Data = None,
    device: str | None = None,
    warn: Warn = lambda text: None,
    measure: bool = True,
) -> Story:
    """Reads a run.

    Args:
        run: its folder.
        data: as for `convnet.evaluation.evaluate.evaluate`.
        device: as for `convnet.train`; None is "auto".
        warn: called with a line of text where a part of the page has to be left out.
        measure: whether to look at held-out images.

    Raises: RunError: no run in that folder. ConfigError: its configuration cannot be used.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise RunError(f"{folder}: expected the folder of a run")
    cfg = run_config(folder)
    story = Story(
        folder.absolute().name,
        without_paths(cfg),
        read_metrics(folder / METRICS),
        is_training(folder),
    )
    try:
        checkpoint = open_checkpoint(folder, warn)
    except (RunError, CheckpointError) as error:
        return replace(story, why_not=f"there is no checkpoint to measure ({error})")
    story = _of_checkpoint(story, checkpoint)
    if not measure:
        return replace(story, why_not="that is measured when the run is over")
    return _measured(story, folder, data, device, warn)


def _of_checkpoint(story: Story, checkpoint: Checkpoint) -> Story:
    """Adds what a checkpoint says."""
    state = checkpoint.state
    saved = checkpoint.config()
    classes = tuple(state["classes"])
    try:
        filters = read_filters(checkpoint)
    except DataError:
        filters = None  # a net without convolutions
    finite = filters is not None and bool(np.isfinite(filters.w).all())
    return replace(
        story,
        device=str(state.get("machine", {}).get("device", "")),
        version=str(state.get("version", "")),
        classes=classes,
        net=build_net(saved, tuple(state["picture"]), len(classes), "cpu", sizes_only=True),
        filters=(filters.layer, filters.w) if filters is not None and finite else None,
        step=state["step"],
    )


def _measured(story: Story, folder: Path, data: Data, device: str | None, warn: Warn) -> Story:
    """Adds what the net does with held-out images."""
    try:
        trained = open_run(folder, device, warn)
        training, validation = open_sets(trained.cfg, data)
        _check_data(trained, validation)
    except (DataError, OSError) as error:
        warn(f"report: without samples and confusion: {error}")
        return replace(story, why_not=f"the data cannot be used ({error})")
    story = replace(story, training_images=len(training))
    if trained.net.classes is None:
        return replace(story, why_not="the net names no classes")
    return replace(story, measured=measure_run(trained, training, validation))


def _check_data(trained: Trained, validation: Any) -> None:
    if validation.shape != trained.image_shape or validation.classes != trained.classes:
        raise DataError(
            f"expected images {trained.image_shape} of {len(trained.classes)} classes as in "
            f"training, got {validation.shape} of {len(validation.classes)}"
        )


def is_training(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        os.close(lock(folder))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# ---- the configuration ---------------------------------------------------------------------------


def without_paths(cfg: Config) -> Config:
    """The configuration with paths cut to their last part."""

    def last(path: str) -> str:
        return f"…/{Path(path).name}" if "/" in path else path

    return replace(
        cfg,
        data=replace(cfg.data, path=last(cfg.data.path)),
        net=replace(cfg.net, init=last(cfg.net.init)),
    )


def repeating(cfg: Config) -> str:
    """The command that repeats a run; data and initial weights are named by their last part."""
    paths = []
    for option, path in (("--data", cfg.data.path), ("--init", cfg.net.init)):
        if path:
            paths += [option, path.removeprefix("…/")]
    if cfg.name in presets():
        settings = _settings(load_config(cfg.name), cfg)
        if settings is not None:
            words = [word for setting in settings for word in ("--set", setting)]
            return shlex.join(["convnet", "train", cfg.name, *paths, *words])
    return shlex.join(["convnet", "train", "config.toml", *paths])


def _settings(preset: Config, cfg: Config) -> list[str] | None:
    """What of a preset was changed, for `--set`; None where that cannot be said so."""
    settings = []
    for key, _, value in differences("", preset.to_dict(), cfg.to_dict()):
        if key in ("data.path", "net.init"):
            continue
        if value is None:
            continue  # of another kind of schedule or net, perhaps: it is compared below
        if isinstance(value, str) and value.isidentifier():
            settings.append(f"{key}={value}")  # --set takes a bare word
            continue
        try:
            text = to_toml({"value": value}).partition("=")[2].strip()
        except TypeError:
            return None
        settings.append(f"{key}={text}")
    wanted = replace(
        cfg,
        data=replace(cfg.data, path=preset.data.path),
        net=replace(cfg.net, init=preset.net.init),
    )
    try:
        same = load_config(cfg.name, settings) == wanted
    except ValueError:
        return None
    return settings if same else None
