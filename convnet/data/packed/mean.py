"""The statistics of packed images, computed once by worker processes and stored beside them.

Stored are the whole-number sums, from which every kind of mean and the colour covariance follow
exactly: the same bits as if they were computed when training starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from convnet.common.progress import counted
from convnet.data.packed.dataset import PackedDataset
from convnet.data.packed.sums import write_sums
from convnet.data.sums import Sums
from convnet.data.workers.decoded import Decoder
from convnet.data.workers.pool import Pool, auto_workers, warn_plainly

_JOB = 256  # images a worker sums up at a time


def _sums(decoder: Decoder, shape: tuple[int, int, int], items: list[Any]) -> Sums:
    """In a worker: the sums of some images."""
    sums = Sums.of_nothing(shape)
    for start in range(0, len(items), 16):
        sums.add(np.stack([decoder(item) for item in items[start : start + 16]]))
    return sums


def compute_sums(
    data: PackedDataset,
    workers: int | None = None,
    warn: Callable[[str], None] = warn_plainly,
) -> Sums:
    """Reads every image once and stores the sums beside them.

    Args:
        data: training images at the size they are packed in.
        workers: number of processes; None: one for each usable CPU, at most 16.
        warn: called with a line of text when a worker died and was replaced.

    Returns:
        The sums.

    Raises:
        DataError: an image cannot be read. OSError: the file cannot be written.
    """
    sums = Sums.of_nothing(data.shape)
    count = len(data)
    starts = range(0, count, _JOB)
    jobs = (data.items(np.arange(i, min(i + _JOB, count))) for i in starts)
    task = partial(_sums, data.decoder, data.shape)
    with Pool(task, workers or auto_workers(), warn=warn) as pool:
        for part in counted(pool.ordered(jobs), count, "averaging", "images", _JOB):
            sums.merge(part)
    write_sums(data.packed.root, sums)
    return sums
