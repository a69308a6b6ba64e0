"""A folder of images; and no process or memory is left by a test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from worker_sets import children, shared_names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (14, 13, 3), np.uint8)).save(path)
    return root


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test may leave a child process (also no zombie) or a name in /dev/shm behind."""
    before = shared_names()
    yield
    gc.collect()
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(os.getpid())]
    assert [name for name in names if b"convnet.data.workers.worker" in name or not name] == []
    assert shared_names() <= before
