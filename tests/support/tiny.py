"""A run small enough for tests: 8x8 images of ten classes, a net of two layers, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import convnet
from convnet.config.toml_text import to_toml
from convnet.data.idx import write_idx

TRAIN, TEST, BATCH = 160, 40, 16
STEPS = TRAIN // BATCH  # of an epoch


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, 8, 8] and labels: class k has a bright bar at a place of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    pixels = rng.integers(0, 60, (count, 8, 8))
    for image, label in zip(pixels, labels, strict=True):
        place = label % 5 + 1
        if label < 5:
            image[place, :] += 150
        else:
            image[:, place] += 150
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def write_data(folder: Path) -> Path:
    """The four files of an MNIST-like set."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count, seed in (("train", TRAIN, 1), ("t10k", TEST, 2)):
        pixels, labels = images(count, seed)
        write_idx(folder / f"{stem}-images-idx3-ubyte", pixels)
        write_idx(folder / f"{stem}-labels-idx1-ubyte", labels)
    return folder


def config(folder: Path | str, **changes: Any) -> dict[str, Any]:
    """A configuration for `write_data`; `changes` replace keys: sgd={"lr": 1.0}."""
    table: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "data": {"source": "mnist", "path": str(folder)},
        "augment": {"pad": 1, "crop": [8, 8], "mirror": False},
        "net": {
            "layers": [
                {"name": "conv1", "type": "conv", "filters": 8, "size": 3, "pad": 1, "init": "he"},
                {"name": "relu1", "type": "relu"},
                {"name": "pool1", "type": "maxpool", "size": 3, "stride": 2},
                {"name": "drop1", "type": "dropout", "drop": 0.2},
                {"name": "fc2", "type": "dense", "units": 10, "init": "xavier"},
                {"name": "softmax", "type": "softmax_cross_entropy"},
            ]
        },
        "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0005},
        "schedule": {"kind": "plateau", "patience": 1, "drops": 3},
        "train": {
            "batch": BATCH,
            "epochs": 3,
            "checkpoint_steps": 4,
            "log_steps": 3,
            "threads": 1,
            "report": False,
        },
    }
    for key, value in changes.items():
        both = isinstance(value, dict) and key != "net" and "kind" not in value
        table[key] = {**table.get(key, {}), **value} if both else value
    return table


def write_config(path: Path, folder: Path, **changes: Any) -> Path:
    """The configuration as a file."""
    path.write_text(to_toml(config(folder, **changes)), encoding="utf-8")
    return path


def command(*words: str | Path) -> list[str]:
    """The `convnet` command with these arguments, for a process of its own."""
    return [sys.executable, "-P", "-m", "convnet", *map(str, words)]


def environment(**variables: str) -> dict[str, str]:
    """This process's variables for that command, so that it finds this convnet."""
    places = [str(Path(convnet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, places))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables}


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        command(*words),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what differs between equal runs: their speed."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_s", "wait")
    return [{key: line[key] for key in line if key not in timed} for line in lines]
