"""A run's metrics as event files, for TensorBoard (https://www.tensorflow.org/tensorboard).

What they hold is a function of metrics.jsonl. Each record is written and flushed at once, by the
thread that trains: a full disk is then an error like any other.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convnet.common import distribution
from convnet.training.callbacks import Callback, Record
from convnet.training.trainer import Trainer

_PLACE = ("kind", "epoch", "step")  # of a record; the rest are its figures


def require() -> None:
    """Raises ConfigError where the library is not installed."""
    distribution.require("tensorboardX", "tensorboard", "train.tensorboard")


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of a record by their names in TensorBoard: "train/loss" of a step, "epoch/loss"
    and "val/loss" of an epoch, "update_ratio/conv1"."""
    group = "train" if record["kind"] == "step" else str(record["kind"])
    for key, value in record.items():
        if key in _PLACE:
            continue
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", float(item)) for name, item in value.items())
        elif isinstance(value, (int, float)):
            name = f"val/{key[4:]}" if key.startswith("val_") else f"{group}/{key}"
            yield name, float(value)


class Board(Callback):
    """Writes the records of a run to a new event file.

    Raises:
        ConfigError: the library is not installed. OSError: the file cannot be written.
    """

    def begin(self, trainer: Trainer) -> None:
        self.open(trainer.folder.path / "tensorboard", trainer.history, trainer.net.step)

    def open(self, folder: Path, history: Iterable[Record] = (), step: int = 0) -> None:
        """Begins the file.

        Args:
            folder: where event files are; made if it is missing.
            history: the records of the run so far.
            step: where the run stands. What older files say of this step and later is marked as
                void, as the run was resumed before it.
        """
        require()
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2

        begun = folder.is_dir() and any(folder.glob("events.out.tfevents.*"))
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._event = event_pb2.Event
        self._writer = RecordWriter(str(self.path))
        self._write(file_version="brain.Event:2")
        if begun:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=step, session_log=start)
        for record in history:
            if not begun or record["step"] >= step:
                self(record)

    def __call__(self, record: Record) -> None:
        """Writes one record of metrics.jsonl."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record)]
        self._write(step=record["step"], summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        try:
            self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())
            self._writer.flush()
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from error

    def end(self) -> None:
        self._writer.close()
