"""The folder of one training run: configuration, metrics, log and checkpoints.

runs/2026-01-31-142530-fashion-mnist/
    config.toml        the configuration with every default written out
    metrics.jsonl      one JSON object a line, see `convnet.train`
    log.txt            what was printed
    checkpoints/       step-<n>.safetensors, best.safetensors
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnet.checkpoint import Checkpoint, Checkpoints, read
from convnet.config import Config, load_config
from convnet.files import lock, replace
from convnet.reading import LINES, open_handle, parse_json, read_bytes


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


class LineFile:
    """A text file that lines are appended to, each written at once and unbuffered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open_handle(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, line: str) -> None:
        """Writes the line and a newline.

        Raises:
            OSError: it cannot be written; the path is in the error.
        """
        data = (line + "\n").encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from error

    def sync(self) -> None:
        """Waits until what was written is on the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class RunFolder:
    """An open run folder, locked against a second process. Use `create` or `resume`."""

    def __init__(self, path: Path, keep: int, new: bool) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints", keep)
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
        self.metrics = LineFile(path / "metrics.jsonl")
        self.log = LineFile(path / "log.txt")

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
        run.write_config(cfg)
        return run

    @classmethod
    def resume(cls, path: str | os.PathLike[str], cfg: Config) -> RunFolder:
        """Opens the folder of a run (see `run_config`) to continue it with `cfg`."""
        return cls(Path(path), cfg.train.keep, new=False)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises RunError where a run cannot be begun in this folder."""
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: expected a folder for the run, got a file")
        if any((path / name).exists() for name in ("config.toml", "checkpoints")):
            raise RunError(
                f"{path}: holds a run already; continue it with --resume {path}, or choose "
                "another --run-dir"
            )

    def write_config(self, cfg: Config) -> None:
        """Writes config.toml, with every default."""
        text = cfg.to_toml()
        replace(self.path / "config.toml", lambda file: file.write(text.encode()))

    def save(self, state: dict[str, Any], arrays: dict[str, Any], best: bool) -> Path:
        """Writes a checkpoint, the metrics before it; returns its path."""
        self.metrics.sync()
        return self.checkpoints.save(state, arrays, best)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, for continuing; damaged ones after it are set aside
        (renamed), so that they are not counted among those to keep."""
        checkpoint = self.checkpoints.newest(warn)
        for path in self.checkpoints.paths():
            if checkpoint is None or path == checkpoint.path:
                break
            path.rename(path.with_name(f"damaged-{path.name}"))
        return checkpoint

    def rewind(self, step: int, epoch_done: bool) -> list[dict[str, Any]]:
        """Cuts metrics.jsonl back to a checkpoint and returns the lines that stay.

        Args:
            step: the step of the checkpoint.
            epoch_done: the checkpoint was taken after the line of its epoch, if there is one.
        """
        kept = [
            record
            for record in read_metrics(self.metrics.path)
            if record["step"] < step
            or (record["step"] == step and (epoch_done or record["kind"] == "step"))
        ]
        self.metrics.close()
        text = "".join(json.dumps(record) + "\n" for record in kept)
        replace(self.metrics.path, lambda file: file.write(text.encode()))
        self.metrics = LineFile(self.path / "metrics.jsonl")
        return kept

    def close(self) -> None:
        """Closes the files and lets others open the folder."""
        self.metrics.close()
        self.log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _dated(name: str) -> Path:
    base = Path("runs") / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{name}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a crash cut short is left out."""
    records = []
    if path.is_file():
        for line in read_bytes(path, LINES).splitlines():
            try:
                record = parse_json(line, nan=True)
            except ValueError:
                continue
            if _is_record(record):
                records.append(record)
    return records


# What of a record is used as a number without looking.
_NUMBERS = (
    "epoch",
    "loss",
    "top1",
    "lr",
    "images_per_s",
    "wait",
    "val_loss",
    "val_top1",
    "val_top5",
)


def _is_record(value: Any) -> bool:
    """Whether this is a line that a run may have written."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    numbers = [value[key] for key in _NUMBERS if key in value]
    return type(value.get("step")) is int and all(type(one) in (int, float) for one in numbers)


def run_config(path: str | os.PathLike[str]) -> Config:
    """The configuration of an existing run.

    Raises:
        RunError: there is no run in that folder.
        ConfigError: its config.toml cannot be used.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not (folder / "config.toml").is_file():
        raise RunError(f"{folder}: no run in this folder (it has no config.toml)")
    return load_config(folder / "config.toml")


def open_checkpoint(path: str | os.PathLike[str], warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint to use of a run, or a named one.

    Args:
        path: a run folder (its best checkpoint is used, else the newest) or a checkpoint file.
        warn: told when a damaged checkpoint is passed over.

    Raises:
        CheckpointError: the file is missing or damaged.
        RunError: the folder holds no checkpoint.
    """
    place = Path(path)
    if not place.exists():
        raise RunError(f"{place}: no such run folder or checkpoint")
    if not place.is_dir():
        return read(place)
    checkpoint = Checkpoints(place / "checkpoints").best_or_newest(warn)
    if checkpoint is None:
        raise RunError(f"{place}: no checkpoint in this folder")
    return checkpoint
