"""Comparison of run folders."""

from __future__ import annotations

from pathlib import Path

import tiny

from convnet.training.checkpoint import (
    read,
)

# What a checkpoint says about a whole run, apart from the run's configuration.
STATE = (
    "step",
    "epoch",
    "step_in_epoch",
    "schedule",
    "lr",
    "best",
    "epoch_tally",
    "window_tally",
)


def newest(run_dir: Path) -> Path:
    return max((run_dir / "checkpoints").glob("step-*.safetensors"), default=Path("none"))


def assert_same_end(run_dir: Path, whole: Path) -> None:
    """Both runs ended with the same bits: weights, velocities, metrics, schedule, best."""
    for name in (newest(whole).name, "best.safetensors"):
        mine = read(run_dir / "checkpoints" / name)
        theirs = read(whole / "checkpoints" / name)
        assert set(mine.arrays) == set(theirs.arrays)
        for key, array in mine.arrays.items():
            assert array.tobytes() == theirs.arrays[key].tobytes(), key
        for key in STATE:
            expected = theirs.state[key]
            if key == "best":
                timed = {"images_per_s": 0, "wait": 0}
                assert {**mine.state[key], **timed} == {**expected, **timed}
            else:
                assert mine.state[key] == expected, key
    assert tiny.metrics(run_dir) == tiny.metrics(whole)
