"""The statistics of packed pictures, computed once by worker processes and stored beside them.

Stored are the whole-number sums, from which every kind of mean and the colour covariance follow
exactly: the same bits as if they were computed when training starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convnet.data.dataset import DataError, shown
from convnet.data.decoded import Decoder
from convnet.data.statistics import Sums
from convnet.data.workers import Pool, auto_workers, warn_plainly
from convnet.files import replace

if TYPE_CHECKING:
    from convnet.data.packed import PackedDataset

SUMS = "statistics.safetensors"
_JOB = 256  # pictures a worker sums up at a time


@dataclass
class _SumTask:
    """In a worker: the sums of some pictures."""

    decoder: Decoder
    shape: tuple[int, int, int]

    def attach(self, memory: int | None) -> None:
        pass

    def __call__(self, job: list[Any]) -> Sums:
        sums = Sums.of_nothing(self.shape)
        for start in range(0, len(job), 16):
            sums.add(np.stack([self.decoder(item) for item in job[start : start + 16]]))
        return sums


def compute_sums(
    data: PackedDataset,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, count: None,
    warn: Callable[[str], None] = warn_plainly,
) -> Sums:
    """Reads every picture once and stores the sums beside them.

    Args:
        data: training pictures at the size they are packed in.
        workers: processes; None: one for each usable CPU, at most 16.
        progress: called with (pictures done, pictures in all).
        warn: told when a worker died and was replaced.

    Returns:
        The sums.

    Raises:
        DataError: a picture cannot be read. OSError: the file cannot be written.
    """
    sums = Sums.of_nothing(data.shape)
    count = len(data)
    starts = range(0, count, _JOB)
    jobs = (data.items(np.arange(i, min(i + _JOB, count))) for i in starts)
    with Pool(_SumTask(data.decoder, data.shape), workers or auto_workers(), warn=warn) as pool:
        for part in pool.ordered(jobs):
            sums.merge(part)
            progress(sums.count, count)
    _write(data.packed.root, sums)
    return sums


def _write(root: Path, sums: Sums) -> None:
    from safetensors.numpy import save

    arrays = {"total": sums.total, "products": sums.products, "count": np.array([sums.count])}
    content = save(arrays, {"manifest": _manifest_digest(root)})
    replace(root / SUMS, lambda file: file.write(content))


def read_sums(root: Path) -> Sums | None:
    """The stored sums of packed pictures; None where there are none.

    Raises:
        DataError: the file is damaged, or of other pictures than those that lie beside it.
    """
    path = root / SUMS
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("manifest")
            sums = Sums(
                file.get_tensor("total"),
                file.get_tensor("products"),
                int(file.get_tensor("count")[0]),
            )
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{shown(path)}: expected what convnet data mean has written, got a damaged file"
            f" ({' '.join(str(error).split())[:100]})"
        ) from None
    if said != _manifest_digest(root):
        raise DataError(
            f"{shown(path)}: expected the statistics of these pictures, got those of others;"
            f" run: convnet data mean {shown(root)}"
        )
    return sums


def _manifest_digest(root: Path) -> str:
    from convnet.data.packed import MANIFEST

    return hashlib.blake2b((root / MANIFEST).read_bytes(), digest_size=16).hexdigest()
