"""Runs of a tiny net that are interrupted, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny

from convnet.training.train import TrainResult, train

# Long enough for the learning rate to drop, after epochs 4 and 6, and for bests before the last.
CHANGES: dict[str, Any] = {
    "train": {"epochs": 6},
    "schedule": {"kind": "plateau", "patience": 1, "drops": 3, "factor": 2.0},
}


def config(folder: Path) -> dict[str, Any]:
    return tiny.config(folder, **CHANGES)


def interrupted_at(
    step: int, data: Path, run_dir: Path, number: int = signal.SIGINT
) -> TrainResult:
    """A run that got a signal in the middle of the work for metrics line of this step."""

    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == step:
            os.kill(os.getpid(), number)

    return train(config(data), device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])


@contextmanager
def running(*words: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which never outlives the block."""
    with subprocess.Popen(
        tiny.command(*words),
        cwd=cwd,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Reads the output up to a line with this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended without {text!r}")
