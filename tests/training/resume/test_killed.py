"""SIGKILL between any two writes, and damaged checkpoints: little is lost, and it is said."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from resumed import CHANGES, config, interrupted_at, running, wait_for
from runs import assert_same_end, newest

from convnet.config import load_config
from convnet.training.checkpoint import (
    DamagedCheckpointError,
)
from convnet.training.run_folder import (
    METRICS,
    RunFolder,
)
from convnet.training.train import train

pytestmark = pytest.mark.usefixtures("default_signals")


def test_killed_at_any_moment_ends_the_same(data: Path, tmp_path: Path) -> None:
    """SIGKILL at random times, over and over, until the run is done."""
    changes = {**CHANGES, "train": {"epochs": 12, "checkpoint_steps": 3}}
    path = tiny.write_config(tmp_path / "tiny.toml", data, **changes)
    whole = tmp_path / "whole"
    train(path, device="cpu", run_dir=whole, quiet=True)

    run_dir = tmp_path / "run"
    rng = random.Random(7)
    places = []
    for kill in (True, True, True, True, True, False):
        words = ["--resume", str(run_dir)] if places else [str(path), "--run-dir", str(run_dir)]
        with running("train", *words, "--device", "cpu", cwd=tmp_path) as process:
            if kill:
                for _ in range(rng.randint(1, 6)):
                    wait_for(process, "epoch ")
                time.sleep(rng.uniform(0.0, 0.01))
                process.kill()
            _, err = process.communicate(timeout=60)
        assert err == ""
        places.append(newest(run_dir).name)
        if process.returncode == 0:  # also if it was done before the signal arrived
            break
        assert kill
        assert process.returncode == -signal.SIGKILL
    assert process.returncode == 0
    assert len(places) >= 3, places
    assert_same_end(run_dir, whole)


# Runs the command, and kills the process before the n-th of its writes to disk.
_KILLER = """
import os, signal, sys
limit, count = int(sys.argv.pop(1)), 0
def counted(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for name in ("write", "fsync", "replace", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
from convnet.cli.main import main
sys.exit(main())
"""


def test_killed_between_any_two_writes(data: Path, tmp_path: Path, whole: Path) -> None:
    """Between the line of an epoch and its checkpoint, between fsync and rename, and so on."""
    config = tiny.write_config(tmp_path / "tiny.toml", data, **CHANGES)
    run_dir = tmp_path / "run"
    kills = 0
    for limit in (1, 3, 15, 30, 31, 33, 34, 10_000):
        words = ["--resume", run_dir] if (run_dir / "config.toml").exists() else []
        words = ["train", *(words or [config, "--run-dir", run_dir]), "--device", "cpu", "-q"]
        done = subprocess.run(
            [sys.executable, "-P", "-c", _KILLER, str(limit), *map(str, words)],
            env=tiny.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        kills += done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert kills == 7
    assert_same_end(run_dir, whole)


def test_killed_before_the_first_checkpoint(data: Path, tmp_path: Path, whole: Path) -> None:
    """What a run leaves that dies in its first steps: no checkpoint, and half a line."""
    run_dir = tmp_path / "run"
    folder = RunFolder.create(run_dir, load_config(config(data)))
    folder.append(METRICS, '{"kind": "step", "epoch": 1, "step": 3}')
    folder.append(METRICS, '{"kind": "st')
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "step-00000004.safetensors.tmp").write_bytes(b"half")
    folder.close()
    result = train(resume=run_dir, device="cpu", quiet=True)
    assert result.status == "done"
    assert not list(run_dir.rglob("*.tmp"))
    assert "no checkpoint yet: from the start" in (run_dir / "log.txt").read_text()
    assert_same_end(run_dir, whole)


def test_a_damaged_checkpoint_falls_back_loudly(
    data: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(19, data, run_dir)
    last = newest(run_dir)
    assert last.name == "step-00000019.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    capsys.readouterr()
    result = train(resume=run_dir, device="cpu", quiet=True)
    assert result.status == "done"
    err = capsys.readouterr().err
    assert "warning" in err
    assert "step-00000019.safetensors: damaged checkpoint" in err
    assert "falling back to step-00000016.safetensors" in err
    assert (run_dir / "checkpoints" / "damaged-step-00000019.safetensors").exists()
    assert_same_end(run_dir, whole)


def test_every_checkpoint_damaged(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    interrupted_at(19, data, run_dir)
    for path in (run_dir / "checkpoints").glob("step-*"):
        path.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="damaged"):
        train(resume=run_dir, device="cpu", quiet=True)
