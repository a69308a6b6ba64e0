"""The data of the runs that are resumed, and a run that nothing interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
from resumed import config

from convnet.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    result = train(config(data), device="cpu", run_dir=run_dir, quiet=True)
    rates = {record["lr"] for record in result.history}
    assert rates == {0.05, 0.025}
    assert result.best is not None
    assert result.best["epoch"] < 6
    return run_dir


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in the first of two epochs."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"

    def interrupt(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cfg = {**config(data), "train": {**config(data)["train"], "epochs": 2}}
    train(cfg, device="cpu", run_dir=run_dir, quiet=True, callbacks=[interrupt])
    return run_dir
