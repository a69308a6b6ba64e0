"""Batches of an epoch, read ahead by a background thread, and decoded by it or by workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from convnet.config import AugmentConfig
from convnet.data.augment import (
    Indices,
    Variation,
    balanced_order,
    centre,
    crop_size,
    draw_variation,
    epoch_order,
)
from convnet.data.dataset import DataError, Dataset, Images, Labels, mismatch
from convnet.data.sums import Statistics
from convnet.data.workers.decoded import DecodedDataset
from convnet.data.workers.feeder import MEMORY_BATCHES, Feeder
from convnet.data.workers.pool import auto_workers, warn_plainly


@dataclass(frozen=True)
class Batch:
    """Images and how to vary them, on the host; the arguments of `ops.augment`.

    Attributes:
        images: uint8 [N, H, W, C], whole images, grey levels 0 .. 255.
        labels: the class of each image, int32 [N].
        offsets: int32 [N, 2], row and column at which the crop of each image starts.
        mirror: uint8 [N], 1 where the crop is flipped left to right.
        noise: float32 [N, C], added to every pixel, in grey levels; None without colour noise.
        affine: float32 [N, 2, 2], turns and sizes about the centre of each crop; None without.
        indices: int64 [N], numbers of the images in the data set.
    """

    images: Images
    labels: Labels
    offsets: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.float32] | None
    affine: npt.NDArray[np.float32] | None
    indices: Indices

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(eq=False)
class Loader:
    """Batches of a data set, epoch by epoch.

    Training: each epoch in a new random order, each image varied at random, the ragged last batch
    dropped; `balanced` shows all classes equally often. Evaluation: in the data set's order, the
    centre of each image, the last batch as small as it comes. Which batch comes at which step
    depends on the seed, the epoch and the batch size only, so an epoch can be taken up at any step.

    Args:
        dataset: the images.
        batch: images in a batch, at least 1.
        seed: seed of the random order and of the random variation.
        augment: crops, mirror images and colour noise of training images.
        stats: statistics of the training set; only colour noise needs them, else None will do.
        train: True for training, False for evaluation.
        prefetch: how many batches may be ready before they are asked for, at least 1.
        share: (samples in a batch) -> the first that this process reads, and the last + 1; None: it
            reads all of each batch.
        workers: processes that decode, where the data set decodes files and does not keep them in
            memory; 0: threads of this process do it, as for all other sets. "auto": one for each
            usable CPU, at most 16. The batches are the same for every number.
        fallback: decode in this process, with a warning, where memory for the workers is missing;
            "auto" always does.
        warn: called with a line of text when a worker died and was replaced, or when there are none
            after all.
        balanced: an epoch of training has as many images of each class, see `balanced_order`.

    Attributes:
        steps_per_epoch: number of batches in an epoch.
        out_shape: (P, Q, C) of what the net sees.
        wait_seconds: seconds that the consumer has waited for batches, over all epochs.
        total_seconds: seconds between the first request for a batch of an epoch and the arrival of
            its last one, over all epochs.

    Raises:
        DataError: no images, a training batch larger than the data, a crop that does not fit, or
            noise without statistics.
    """

    dataset: Dataset
    batch: int
    seed: int
    augment: AugmentConfig
    stats: Statistics | None
    train: bool
    prefetch: int = 4
    share: Callable[[int], tuple[int, int]] | None = None
    workers: int | Literal["auto"] = 0
    fallback: bool = False
    warn: Callable[[str], None] = warn_plainly
    balanced: bool = False
    wait_seconds: float = field(default=0.0, init=False)
    total_seconds: float = field(default=0.0, init=False)
    _feeder: Feeder | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        dataset, batch = self.dataset, self.batch
        if batch < 1 or self.prefetch < 1:
            got = f"{batch} and {self.prefetch}"
            raise ValueError(f"Loader: expected batch and prefetch of at least 1, got {got}")
        if self.workers != "auto" and self.workers < 0:
            got = str(self.workers)
            raise ValueError(f'Loader: expected workers of at least 0 or "auto", got {got}')
        if len(dataset) == 0:
            raise mismatch(dataset.description, "images", "none")
        if self.train and batch > len(dataset):
            expected = f"at most {len(dataset)}, the number of training images"
            raise mismatch("train.batch", expected, f"{batch} ({dataset.description})")
        self.out_shape = (*crop_size(dataset.shape, self.augment), dataset.shape[2])
        if self.train:  # draws once, so that what cannot be drawn is said here
            self._vary(0, np.zeros(1, np.int64))
        whole, rest = divmod(len(dataset), batch)
        self.steps_per_epoch = whole if self.train else whole + (rest > 0)
        self.fallback = self.fallback or self.workers == "auto"

    def close(self) -> None:
        """Ends the worker processes, if there are any; the next epoch starts them again."""
        if self._feeder is not None:
            self._feeder.close()
            self._feeder = None

    @property
    def wait_share(self) -> float:
        """The part of the time, 0 .. 1, that the consumer has waited for data."""
        return self.wait_seconds / self.total_seconds if self.total_seconds > 0 else 0.0

    def order(self, epoch: int) -> Indices:
        """The images in the order in which an epoch shows them, int64 [len(dataset)].

        Args:
            epoch: its number, from 0.
        """
        return self._draws(epoch) % len(self.dataset)

    def _draws(self, epoch: int) -> Indices:
        """The same, where an image that comes again has the size of the set added each time."""
        if not self.train:
            return np.arange(len(self.dataset), dtype=np.int64)
        if self.balanced:
            return balanced_order(self.seed, epoch, self.dataset.labels)
        return epoch_order(self.seed, epoch, len(self.dataset))

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            epoch: its number, from 0.
            start_step: the first step that is wanted, 0 .. steps_per_epoch.

        They are read by a thread that lives as long as the iterator: until it is exhausted, closed,
        or dropped. An error while reading is raised here, at the batch it concerns. A process that
        is forked meanwhile cannot go on with the iterator, and gets a RuntimeError.

        Raises:
            ValueError: `start_step` outside 0 .. steps_per_epoch, or a negative epoch.
            DataError: an image cannot be read (from the iterator).
        """
        if epoch < 0 or not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"Loader.epoch: expected an epoch >= 0 and a step in 0 .. {self.steps_per_epoch},"
                f" got epoch {epoch}, step {start_step}"
            )
        return self._iterate(epoch, start_step)

    def _iterate(self, epoch: int, start_step: int) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(self.prefetch)
        stop = threading.Event()
        reader = threading.Thread(
            target=self._read_ahead,
            args=(epoch, start_step, ready, stop),
            name="convnet-loader",
            daemon=True,
        )
        reader.start()
        process = os.getpid()
        before = time.perf_counter()
        try:
            while True:
                asked = time.perf_counter()
                if os.getpid() != process:
                    raise RuntimeError(
                        "Loader: expected the process that began this epoch, got one forked from"
                        " it, without the thread that reads; begin an epoch in the forked process"
                    )
                item = ready.get()
                now = time.perf_counter()
                self.wait_seconds += now - asked
                self.total_seconds += now - before
                before = now
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if os.getpid() == process:  # else there is no reader, and its locks may be closed
                stop.set()
                # Room in the queue lets a reader that waits in put() go on, and see `stop`.
                while not ready.empty():
                    ready.get_nowait()
                reader.join()

    def _read_ahead(
        self,
        epoch: int,
        start_step: int,
        ready: queue.Queue[Batch | BaseException | None],
        stop: threading.Event,
    ) -> None:
        """Puts the batches of an epoch into the queue, then None; or the error that ended it."""
        end: BaseException | None = None
        try:
            batches = self._own_batches(epoch, start_step)
            with contextlib.closing(self._decoded(batches)) as decoded:
                while not stop.is_set() and (item := next(decoded, None)) is not None:
                    draws, images = item
                    indices, variation = draws % len(self.dataset), self._vary(epoch, draws)
                    ready.put(Batch(images, self.dataset.labels[indices], *variation, indices))
        except BaseException as error:
            end = error
        if not self.train or end is not None:
            self.close()
        if not stop.is_set():
            ready.put(end)

    def _own_batches(self, epoch: int, start_step: int) -> Iterator[Indices]:
        """The draws of each batch that this process reads, where it reads any."""
        order = self._draws(epoch)
        for step in range(start_step, self.steps_per_epoch):
            draws = order[step * self.batch : (step + 1) * self.batch]
            if self.share is not None:
                draws = draws[slice(*self.share(len(draws)))]
            if len(draws):
                yield draws

    @property
    def _largest(self) -> int:
        """Images in the largest batch that this process reads."""
        rest = 0 if self.train else len(self.dataset) % self.batch
        counts = [min(self.batch, len(self.dataset)), rest]
        if self.share is None:
            return max(counts)
        parts = [self.share(count) for count in counts]
        return max(1, *(last - first for first, last in parts))

    def _decoded(self, batches: Iterator[Indices]) -> Generator[tuple[Indices, Images], None, None]:
        """The draws and images of each batch, read in this thread or by the workers."""
        feeder, count = self._feed(), len(self.dataset)
        if feeder is None:
            for draws in batches:
                yield draws, self.dataset.read(draws % count)
            return
        first, second = itertools.tee(batches)
        try:
            with contextlib.closing(feeder.stream(draws % count for draws in second)) as stream:
                for draws in first:
                    yield draws, next(stream)
                next(stream, None)  # to its end, or it would count as left early
        except BaseException:
            self.close()
            raise

    def _feed(self) -> Feeder | None:
        """The worker processes, started if they are not; None where this process decodes."""
        data = self.dataset
        if not isinstance(data, DecodedDataset) or data.in_memory or self.workers == 0:
            return None
        if self._feeder is None:
            count = auto_workers() if self.workers == "auto" else self.workers
            try:
                self._feeder = Feeder(data, self._largest, count, self.warn)
            except OSError as error:
                size = MEMORY_BATCHES * self._largest * int(np.prod(data.shape)) / 2**20
                expected = f"{size:.0f} MiB of shared memory for batches"
                text = str(mismatch("data workers", expected, error.strerror))
                if not self.fallback:
                    way = "try a smaller train.batch, or data.workers=0"
                    raise DataError(f"{text}; {way}") from None
                self.warn(f"{text}; decoding in this process instead (data.workers=0 says so)")
                self.workers = 0
                return None
        return self._feeder

    def _vary(self, epoch: int, indices: Indices) -> Variation:
        shape = self.dataset.shape
        if not self.train:
            return centre(len(indices), shape, self.augment)
        return draw_variation(self.seed, epoch, indices, shape, self.augment, self.stats)
