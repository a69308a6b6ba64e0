"""The folder of one training run: configuration, metrics, log and checkpoints.

runs/2026-01-31-142530-fashion-mnist/
    config.toml        the configuration with every default written out
    metrics.jsonl      one JSON object a line, see `convnet.training.train`
    log.txt            what was printed
    checkpoints/       step-<n>.safetensors, best.safetensors
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from convnet.common.files import is_open, lock, replace
from convnet.common.own_code import is_own
from convnet.common.reading import LINES, open_handle, parse_json, read_bytes
from convnet.config import Config, load_config
from convnet.training.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints, read

CONFIG, METRICS, LOG = "config.toml", "metrics.jsonl", "log.txt"


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


class RunFolder:
    """An open run folder, locked against a second process. Use `create` or `resume`."""

    def __init__(self, path: Path, keep: int, new: bool) -> None:
        self.path = path
        self.records = 0  # lines of metrics.jsonl
        self.checkpoints = Checkpoints(path / CHECKPOINTS, keep)
        try:
            self._lock = lock(path)
        except BlockingIOError:
            raise RunError(f"{path}: another process is training this run") from None
        try:
            if new:
                self.check_free(path)
        except RunError:
            os.close(self._lock)
            raise
        self.checkpoints.tidy()
        with self._opened(METRICS), self._opened(LOG):
            pass

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, cfg: Config) -> RunFolder:
        """Makes the folder and writes config.toml.

        Args:
            path: where; None makes a dated one under runs/.
            cfg: the configuration of the run.

        Raises:
            RunError: there is a run in that folder, or it is a file.
            OSError: it cannot be written.
        """
        folder = _dated(cfg.name) if path is None else Path(path)
        cls.check_free(folder)
        cfg.to_toml()  # before anything is written: not every path can be in it
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, cfg.train.keep, new=True)
        run.use_config(cfg)
        run._keep_code(cfg)
        return run

    def _keep_code(self, cfg: Config) -> None:
        """Copies the files of code of one's own that lie beside the configuration."""
        names = [cfg.net.model, *(layer.type for layer in cfg.net.layers)]
        for name in dict.fromkeys(name for name in names if is_own(name)):
            file = Path(*name.partition(":")[0].split(".")).with_suffix(".py")
            source = (cfg.folder or Path()) / file
            if source.is_file():
                (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                replace(self.path / file, source.read_bytes())

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Opens the folder of a run to continue it, with what `use_config` is given then.

        Raises: RunError: there is no run in that folder, or a process that trains it.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise RunError(f"{folder}: no such run folder")
        if not ((folder / CONFIG).is_file() or (folder / "checkpoints").is_dir()):
            raise RunError(f"{folder}: no run in this folder (it has no {CONFIG})")
        return cls(folder, keep=2, new=False)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises RunError where a run cannot be begun in this folder."""
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: expected a folder for the run, got a file")
        if any((path / name).exists() for name in (CONFIG, "checkpoints")):
            raise RunError(
                f"{path}: holds a run already; continue it with --resume {path}, or choose "
                "another --run-dir"
            )

    def use_config(self, cfg: Config) -> None:
        """From now on config.toml is this one; a file that says the same is left as it is."""
        self._config = cfg
        self.checkpoints.keep = cfg.train.keep
        there = self.path / CONFIG
        if not there.is_file() or load_config(there, saved=True) != cfg:
            self._write_config()

    def _write_config(self) -> None:
        """Writes config.toml, with every default."""
        text = self._config.to_toml()
        replace(self.path / CONFIG, text.encode())

    def record(self, record: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl.

        Raises:
            RunError: this is not the folder any more.
            OSError: it cannot be written.
        """
        self.check_there()
        self.append(METRICS, json.dumps(record))
        self.records += 1

    def log(self, line: str) -> None:
        """Adds a line to log.txt. Raises: OSError: it cannot be written."""
        self.append(LOG, line)

    def append(self, name: str, line: str) -> None:
        """Adds a line to a file of the folder. Raises: OSError: it cannot be written."""
        with self._opened(name) as file:
            file.write((line + "\n").encode(errors="backslashreplace"))

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        """A file to append to: the one that has this name now, in this folder wherever it is."""
        try:
            handle = open_handle(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, self._lock)
            with os.fdopen(handle, "ab") as file:
                yield file
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, reason, str(self.path / name)) from error

    def save(self, state: dict[str, Any], arrays: dict[str, Any], best: bool) -> Path:
        """Writes a checkpoint, the metrics before it; returns its path. A config.toml that somebody
        has removed is written again.

        Raises: as `record`.
        """
        self.check_there()
        with self._opened(METRICS) as metrics:
            os.fsync(metrics.fileno())
        if not (self.path / CONFIG).exists():
            self._write_config()
        return self.checkpoints.save({**state, "records": self.records}, arrays, best)

    def check_there(self) -> None:
        """Raises RunError where this is no longer the folder at its path: what would be written
        there belongs to nothing, or to another run."""
        if not is_open(self._lock, self.path):
            raise RunError(
                f"{self.path}: the run's folder was removed, moved or replaced while it trained; "
                "training has stopped, and what came after its last checkpoint is not kept"
            )

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, for continuing; damaged ones after it are set aside
        (renamed), so that they are not counted among those to keep."""
        checkpoint = self.checkpoints.newest(warn)
        for path in self.checkpoints.paths():
            if checkpoint is None or path == checkpoint.path:
                break
            path.rename(path.with_name(f"damaged-{path.name}"))
        return checkpoint

    def rewind(
        self,
        step: int,
        epoch_done: bool,
        records: int | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> list[dict[str, Any]]:
        """Cuts metrics.jsonl back to a checkpoint and returns the lines that stay.

        Args:
            step: the step of the checkpoint.
            epoch_done: the checkpoint was taken after the line of its epoch, if there is one.
            records: how many lines there were then, where that is known.
            warn: called with a message when there are not as many; the file is then kept, too.
        """
        path = self.path / METRICS
        last = (step, epoch_done)
        kept = [
            record
            for record in read_metrics(path)
            if (record["step"], record["kind"] != "step") <= last
        ]
        if records is not None and len(kept) != records:
            aside = path.with_name(f"damaged-{path.name}")
            warn(
                f"{path}: expected {records} lines up to step {step}, found {len(kept)}: it was "
                f"changed after the checkpoint; the run goes on with these, {aside.name} keeps all"
            )
            replace(aside, path.read_bytes())
        text = "".join(json.dumps(record) + "\n" for record in kept)
        replace(path, text.encode())
        self.records = len(kept)
        return kept

    def close(self) -> None:
        """Lets others open the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _dated(name: str) -> Path:
    """A folder under runs/ that is not there yet."""
    base = Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{name}"
    others = (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([base], others) if not path.exists())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl. Lines that are no record are left out, such as a last line
    that a crash cut short."""
    records = []
    for line in read_bytes(path, LINES).splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            records.append(parse_json(line, nan=True))
    return [record for record in records if _is_record(record)]


# What of a record is used as a number without looking.
_MEANS = ("loss", "top1", "val_loss", "val_top1", "val_top5")
_NUMBERS = {*_MEANS, "epoch", "lr", "images_per_s", "wait"}


def _is_record(value: Any) -> bool:
    """Whether this is a line that a run may have written."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    numbers = [value[key] for key in _NUMBERS & value.keys()]
    return type(value.get("step")) is int and all(type(one) in (int, float) for one in numbers)


def run_config(path: str | os.PathLike[str]) -> Config:
    """The configuration of an existing run.

    Raises:
        RunError: there is no run in that folder.
        ConfigError: its config.toml cannot be used.
    """
    file = Path(path) / CONFIG
    if not file.is_file():
        raise RunError(f"{path}: no run in this folder (it has no {CONFIG})")
    return load_config(file, saved=True)


def open_checkpoint(path: str | os.PathLike[str], warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint to use of a run, or a named one.

    Args:
        path: a run folder (its best checkpoint is used, else the newest) or a checkpoint file.
        warn: called with a message when a damaged checkpoint is passed over.

    Raises:
        CheckpointError: the file is missing or damaged.
        RunError: the folder holds no checkpoint.
    """
    place = Path(path)
    if not place.exists():
        raise RunError(f"{place}: no such run folder or checkpoint")
    if not place.is_dir():
        return read(place)
    checkpoints = Checkpoints(place / "checkpoints")
    checkpoint = checkpoints.best_or_newest(warn)
    if checkpoint is None:
        raise RunError(f"{place}: no checkpoint in this folder")
    if checkpoint.state.get("best") is not None and not (best := checkpoints.best).exists():
        warn(f"{best}: expected the weights of the best epoch, found none; using {checkpoint.path}")
    return checkpoint


class NoFolder:
    """Takes the place of the run's folder in ranks other than 0, which do not write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, _: Any) -> None:
        """Writes nothing."""

    record = use_config = log

    def save(self, state: dict[str, Any], arrays: dict[str, Any], best: bool) -> Path:
        """Where rank 0 writes the checkpoint."""
        return self.path / "checkpoints" / f"step-{state['step']:08d}.safetensors"

    def rewind(self, *_: Any, **options: Any) -> list[dict[str, Any]]:
        """Rank 0 has the records."""
        return []

    def close(self) -> None:
        """There is nothing open."""
