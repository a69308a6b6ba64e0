"""Batches decoded by worker processes into memory that they share with this one.

The memory is a ring of a few batches. It has no name in the file system (`memfd_create`, or an
unlinked temporary file), so it is gone when the last process that holds it is, and the size of
`/dev/shm` does not limit it. What a batch holds depends on its indices alone, not on how many
workers there are or which of them did what.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import DataError, Images
from convnet.data.workers.decoded import DecodedDataset, Decoder
from convnet.data.workers.pool import Pool, warn_plainly

MEMORY_BATCHES = 3  # in the ring: one that is taken out, one that is finished, one that is begun
_JOB = 16  # images a worker decodes at a time, at most

Indices = npt.NDArray[np.int64]


@dataclass
class _DecodeTask:
    """In a worker: decodes images into their places in the shared memory."""

    decoder: Decoder
    places: int
    shape: tuple[int, int, int]
    _memory: Any = None

    def attach(self, memory: int) -> None:
        self._memory = _mapped(memory, self.places, self.shape)

    def __call__(self, job: tuple[int, list[Any]]) -> None:
        first, items = job
        for place, item in enumerate(items, first):
            self._memory[place] = self.decoder(item)


@dataclass
class _Batch:
    """A batch on its way: its slot in the ring, and how many jobs it still waits for."""

    slot: int
    count: int
    jobs: int
    error: DataError | None = None


class Feeder:
    """Worker processes that decode the images of one data set. For one thread at a time.

    Args:
        dataset: whose images.
        batch: images of the largest batch.
        workers: how many processes, at least 1.
        warn: called with a line of text when a worker died and was replaced.

    Raises:
        OSError: no memory to share.
        WorkerError: the processes cannot be started.
    """

    def __init__(
        self,
        dataset: DecodedDataset,
        batch: int,
        workers: int,
        warn: Callable[[str], None] = warn_plainly,
    ) -> None:
        self._dataset, self._batch = dataset, batch
        self._job = max(1, min(_JOB, batch // workers))
        places = MEMORY_BATCHES * batch
        handle = shared_memory(places * int(np.prod(dataset.shape)))
        self._close_memory = weakref.finalize(self, os.close, handle)
        self._ring = _mapped(handle, places, dataset.shape)
        task = _DecodeTask(dataset.decoder, places, dataset.shape)
        self.pool = Pool(task, workers, handle, warn)

    def close(self) -> None:
        """Ends the workers and gives the memory back; may be called again."""
        self.pool.close()
        self._close_memory()

    def stream(self, batches: Iterable[Indices]) -> Generator[Images, None, None]:
        """The images of each batch, uint8 [N, H, W, C], in order. Left early, it ends the feeder.

        Raises:
            DataError: an image of this batch cannot be read. WorkerError: workers keep dying.
        """
        try:
            yield from self._stream(iter(batches))
        except BaseException:
            self.close()  # its jobs would write into the ring of the next stream
            raise

    def _stream(self, batches: Iterator[Indices]) -> Iterator[Images]:
        free = list(range(MEMORY_BATCHES))
        under_way: deque[_Batch] = deque()
        jobs: dict[int, _Batch] = {}
        number = 0
        while True:
            while free and (indices := next(batches, None)) is not None:
                batch = _Batch(free.pop(), len(indices), 0)
                under_way.append(batch)
                items = self._dataset.items(indices)
                for start in range(0, len(items), self._job):
                    job = (batch.slot * self._batch + start, items[start : start + self._job])
                    jobs[number] = batch
                    batch.jobs += 1
                    self.pool.submit(number, job)
                    number += 1
            if not under_way:
                return
            while under_way[0].jobs:
                for done, result in self.pool.results():
                    finished = jobs.pop(done)
                    finished.jobs -= 1
                    if isinstance(result, DataError) and finished.error is None:
                        finished.error = result
            batch = under_way.popleft()
            if batch.error is not None:
                raise batch.error
            first = batch.slot * self._batch
            images = self._ring[first : first + batch.count].copy()
            free.append(batch.slot)
            yield images


def _mapped(handle: int, places: int, shape: tuple[int, int, int]) -> Images:
    """Shared memory as uint8 [places, H, W, C]."""
    memory = mmap.mmap(handle, places * int(np.prod(shape)))
    return np.frombuffer(memory, np.uint8).reshape(places, *shape)


def shared_memory(size: int) -> int:
    """A file descriptor of `size` bytes of memory, without a name and really there.

    Raises:
        OSError: there is not as much.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("convnet-batches")
    else:  # not Linux
        with tempfile.TemporaryFile(buffering=0) as file:
            handle = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):  # else a lack of memory would be a SIGBUS, later
            os.posix_fallocate(handle, 0, size)
        else:
            os.ftruncate(handle, size)
    except BaseException:
        os.close(handle)
        raise
    return handle
