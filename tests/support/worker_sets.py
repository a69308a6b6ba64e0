"""Sets of images whose workers are looked at, and what is left of these."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from convnet.config import AugmentConfig
from convnet.data import Batch, Loader, statistics
from convnet.data.folder.image_folder import FolderDataset, open_folder

VARIED = AugmentConfig(crop=(10, 8), pad=1, mirror=True, colour_noise=0.1)


def sets(folder: Path) -> tuple[FolderDataset, FolderDataset]:
    return open_folder(folder, (12, 12), cache_bytes=0)


def loader(folder: Path, workers: Any, train: bool = True, **options: Any) -> Loader:
    data = sets(folder)[0]
    return Loader(data, 8, 1, VARIED, statistics(data), train, workers=workers, **options)


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "labels", "offsets", "mirror", "noise", "indices")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether this process ends, as one that runs or as a zombie, within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.02)
                continue
        return True
    return False


def children(pid: int) -> list[int]:
    """The child processes of a process, whichever of its threads has started them."""
    while True:
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread just ended
            return [int(word) for path in lists for word in path.read_text().split()]


def shared_names() -> set[str]:
    """Names of shared memory that could be ours (multiprocessing's are psm_...)."""
    found = os.listdir("/dev/shm")  # noqa: PTH208
    return {name for name in found if name.startswith(("psm_", "tmp", "convnet"))}
