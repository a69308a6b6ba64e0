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
from convnet.data.manifest import read_manifest
from convnet.data.statistics import Sums
from convnet.data.workers import Pool, auto_workers, warn_plainly
from convnet.files import replace
from convnet.tensorheader import read_tensors

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
    facts = {"manifest": read_manifest(root).digest, "blake2b": _digest(arrays)}
    content = save(arrays, facts)
    replace(root / SUMS, lambda file: file.write(content))


def read_sums(root: Path) -> Sums | None:
    """The stored sums of packed pictures; None where there are none.

    Raises:
        DataError: the file is damaged, or of other pictures than those that lie beside it.
    """
    path = root / SUMS
    if not path.is_file():
        return None
    manifest = read_manifest(root)
    try:
        facts, arrays = read_tensors(path)
        if facts.get("manifest") != manifest.digest:
            raise DataError(
                f"{shown(path)}: expected the statistics of these pictures, got those of others;"
                f" run: convnet data mean {shown(root)}"
            )
        # Those of pictures that were packed by an earlier version may have no checksum.
        if ("blake2b" in facts or manifest.complete) and facts.get("blake2b") != _digest(arrays):
            raise ValueError("its checksum does not match")
        shapes = {"total": (*manifest.size, 3), "products": (3, 3), "count": (1,)}
        if {name: array.shape for name, array in arrays.items()} != shapes or any(
            array.dtype != np.int64 for array in arrays.values()
        ):
            raise ValueError("its arrays are others")
        count = int(arrays["count"][0])
        if count != manifest.parts["train"].pictures:
            raise ValueError(f"sums of {count:,} pictures")
        return Sums(arrays["total"], arrays["products"], count)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{shown(path)}: expected what convnet data mean has written, got a damaged file"
            f" ({shown(' '.join(reason.split()))[:100]})"
        ) from None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """The checksum of the sums."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
