"""Runs whose pages the tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from convnet.training.train import train

EVIL = "<script>boom()<|script>"
LONG = "a very long name of a class that somebody has really used in a set of images"
NAMES = (EVIL, "猫と犬", LONG)


@pytest.fixture(scope="session")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on files whose names, and those of their classes, are not nice."""
    folder = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(1)
    for place, name in enumerate(NAMES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 90, (16, 16, 3)) + 80 * np.eye(3, dtype=int)[place]
            file = folder / "images" / name / f"{EVIL} {number} {LONG}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    cfg = tiny.config(folder / "images", data={"source": "folder", "size": [16, 16]})
    cfg["data"]["val_fraction"] = 0.4
    cfg["net"]["layers"][-2]["units"] = len(NAMES)
    cfg |= {"augment": {}, "train": {"batch": 8, "epochs": 2}, "name": EVIL}
    train(cfg, device="cpu", run_dir=folder / "run <b>", quiet=True)
    return folder / "run <b>"
