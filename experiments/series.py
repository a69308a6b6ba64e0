"""A series of training runs: each is made once, kept as a line of JSON, and taken up where it was
killed.

A results file is JSON lines: the first holds the settings of the whole series, each other one a run
that has ended. A run that is in the file is not made again; one that was killed goes on from its
newest checkpoint. A file of other settings is refused, so that no table mixes runs that cannot be
compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts import Part, fingerprint

import convnet
from convnet.common.files import lock, replace
from convnet.config import Config, load_config
from convnet.evaluation.evaluate import evaluate, measure_classes

Record = dict[str, Any]
Stop = Callable[[Record], bool]
# Keys of a configuration that say where and how a run is made, not what comes of it.
_FREE = {"data": ("path", "workers", "source", "val_fraction"), "train": ("threads", "tensorboard")}


class SeriesError(ValueError):
    """A results file, or a folder of runs, that cannot be used."""


class Stopped(Exception):  # noqa: N818 - no error: the user's wish
    """A signal ended the series; the run in progress is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@dataclass(frozen=True)
class Sets:
    """The images of a series.

    Attributes:
        train: the training images.
        sample: some of them, on which the training error is measured as the test error is: in test
            mode, the centre of each image.
        test: the validation or test images.
    """

    train: Part
    sample: Part
    test: Part

    def centred(self, crop: tuple[int, int]) -> Sets:
        """The same images, of which only the centre is left."""
        train, sample, test = (
            Part(each, crop=crop) for each in (self.train, self.sample, self.test)
        )
        return Sets(train, sample, test)

    def facts(self) -> Record:
        """What a results file says about them."""
        return {
            "shape": list(self.train.shape),
            "classes": len(self.train.classes),
            "train": fingerprint(self.train),
            "sample": fingerprint(self.sample),
            "test": fingerprint(self.test),
        }


class Results:
    """A results file.

    Args:
        path: the file; made with the first result.
        settings: what all runs of the series have in common; None takes those of the file.

    Raises:
        SeriesError: no results where settings is None, a damaged file, or one of other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        lines = self._read()
        if settings is None and not lines:
            raise SeriesError(f"{path}: expected the results of a series, got none")
        self.settings = dict(lines[0]["settings"] if settings is None else settings)
        self.runs: dict[str, Record] = {line["run"]: line for line in lines[1:]}
        if lines:
            self._check(lines[0]["settings"])

    def _read(self) -> list[Record]:
        if not self.path.exists():
            return []
        found = []
        for number, row in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = json.loads(row)
            except ValueError:
                raise SeriesError(f"{self.path}: line {number}: expected JSON") from None
            wanted = "settings" if number == 1 else "run"
            if not isinstance(record, dict) or wanted not in record:
                raise SeriesError(f'{self.path}: line {number}: expected a "{wanted}", got none')
            found.append(record)
        return found

    def _check(self, there: Mapping[str, Any]) -> None:
        for key in {**self.settings, **there}:
            old, new = (json.dumps(side.get(key)) for side in (there, self.settings))
            if old != new:
                raise SeriesError(
                    f"{self.path}: {key}: expected {old} as in the runs it holds, got {new}; "
                    "--results names another file"
                )

    def add(self, record: Record) -> None:
        """Adds a run. The file on the disk is a whole one at every moment."""
        self.runs[record["run"]] = record
        lines = [{"settings": self.settings}, *self.runs.values()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace(self.path, lambda file: file.write(text.encode()))


class Series:
    """Makes the runs of a results file; to be used in a `with` statement.

    Args:
        results: where they are kept.
        folder: where their checkpoints are kept; one process at a time uses it.
        device: as for `convnet.training.train`.
        threads: CPU threads; 0: all cores.

    Raises:
        SeriesError: another process is at work in the folder.
    """

    def __init__(self, results: Results, folder: Path, device: str, threads: int) -> None:
        self.results, self.folder, self.device, self.threads = results, folder, device, threads
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock(folder)
        except BlockingIOError:
            raise SeriesError(f"{folder}: another process is making these runs") from None

    def __enter__(self) -> Series:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def run(
        self,
        name: str,
        config: Mapping[str, Any] | Config,
        sets: Sets,
        stop: Stop = lambda epoch: False,
        ten_crop: bool = False,
        by_class: bool = False,
    ) -> Record:
        """The result of one run, which is made unless it is in the file.

        Args:
            name: of the run, in the file and for its folder.
            config: as for `convnet.training.train`.
            sets: its images.
            stop: told of each epoch as it stands in the record; true ends the run. It depends on
                nothing else, so that a run that was killed stops where it would have stopped.
            ten_crop: measure the test error over the paper's ten crops too.
            by_class: count the test images of each class, and those that were named right.

        Returns:
            {"run", "config" (a digest), "status": "done", "stopped" or "diverged",
            "epochs": [{"epoch", "loss", "error"}, ...]}, and of a run that is done "test_error" and
            perhaps "ten_crop_error", "images" and "right"; errors in per cent. "loss" is the mean
            over the epoch, as trained; "error" that on `sets.sample` at its end.

        Raises:
            SeriesError: the file has a run of this name with another configuration.
            Stopped: a signal came; the run is saved.
        """
        cfg = load_config(config, [f"train.threads={self.threads}"])
        made_with = digest(cfg)
        held = self.results.runs.get(name)
        if held is not None:
            if held["config"] != made_with:
                raise SeriesError(
                    f"{self.results.path}: {name}: was made with another configuration; --results "
                    "names another file"
                )
            return held
        record: Record = {"run": name, "config": made_with}
        record |= self._train(
            cfg, self.folder / f"{name}-{made_with}", sets, stop, ten_crop, by_class
        )
        self.results.add(record)
        print(f"{name}: {summary(record)}", flush=True)
        return record

    def _train(
        self, cfg: Config, folder: Path, sets: Sets, stop: Stop, ten_crop: bool, by_class: bool
    ) -> Record:
        begun = (folder / "config.toml").is_file()
        with contextlib.redirect_stdout(io.StringIO()):  # how to resume a run that was stopped
            result = convnet.train(
                None if begun else cfg,
                device=self.device,
                run_dir=None if begun else folder,
                resume=folder if begun else None,
                data=(sets.train, sets.sample),
                callbacks=[lambda line: line["kind"] == "epoch" and stop(_epoch(line))],
                quiet=True,
            )
        if result.status == "interrupted":
            raise Stopped(result.signal)
        epochs = [_epoch(line) for line in result.history if line["kind"] == "epoch"]
        ends = next((number for number, epoch in enumerate(epochs, start=1) if stop(epoch)), 0)
        if ends:
            return {"status": "stopped", "epochs": epochs[:ends]}
        record: Record = {"status": result.status, "epochs": epochs}
        if result.status == "done" and result.checkpoint is not None:
            data = (sets.train, sets.test)
            for ten, key in ((False, "test_error"), (True, "ten_crop_error")):
                if ten_crop or not ten:
                    found = evaluate(result.checkpoint, data, self.device, ten_crop=ten)
                    record[key] = round(100.0 - found["top1"], 4)
            if by_class:
                confusion = measure_classes(result.checkpoint, data, self.device)[0].confusion
                record["images"] = confusion.sum(axis=1).tolist()
                record["right"] = confusion.diagonal().tolist()
        return record


def _epoch(line: Mapping[str, Any]) -> Record:
    """What a record keeps of a line of metrics.jsonl."""
    return {
        "epoch": line["epoch"],
        "loss": round(line["loss"], 5),
        "error": round(100.0 - line["val_top1"], 4),
    }


def digest(cfg: Config) -> str:
    """A short name for everything in a configuration that a run's result depends on.

    What has its default is left out, so that a key that is added to configurations later changes
    no name.
    """
    table, defaults = cfg.to_dict(), Config().to_dict()
    for section, held in table.items():
        if section != "net" and isinstance(held, dict):
            default = defaults[section]
            table[section] = {
                key: value
                for key, value in held.items()
                if key not in _FREE.get(section, ()) and (key, value) not in default.items()
            }
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


def summary(record: Record) -> str:
    """A run in a few words."""
    if not record["epochs"]:
        return record["status"]
    last = record["epochs"][-1]
    text = f"{record['status']} after {last['epoch']} epochs, training error {last['error']:.2f} %"
    for key, what in (("test_error", "test"), ("ten_crop_error", "ten crops")):
        text += f", {what} {record[key]:.2f} %" if key in record else ""
    return text
