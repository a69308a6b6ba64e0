"""Batches of an epoch, read ahead by a background thread, and decoded by it or by workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from convnet.config import AugmentConfig
from convnet.data.augment import Indices, centre, crop_size, draw_variation, epoch_order
from convnet.data.dataset import DataError, Dataset, Images, Labels
from convnet.data.sums import Statistics
from convnet.data.workers.decoded import DecodedDataset
from convnet.data.workers.feeder import MEMORY_BATCHES, Feeder
from convnet.data.workers.pool import auto_workers, warn_plainly


@dataclass(frozen=True)
class Batch:
    """Images and how to vary them, on the host; the arguments of `ops.augment`.

    Attributes:
        images: uint8 [N, H, W, C], whole images.
        labels: int32 [N].
        offsets, mirror, noise: see `convnet.data.augment.Variation`.
        indices: int64 [N], where the images are in the data set.
    """

    images: Images
    labels: Labels
    offsets: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.float32] | None
    indices: Indices

    def __len__(self) -> int:
        return len(self.labels)


class Loader:
    """Batches of a data set, epoch by epoch.

    Training: each epoch in a new random order, each image varied at random, the ragged last batch
    dropped. Evaluation: in the data set's order, the centre of each image, the last batch as
    small as it comes. Which batch comes at which step depends on the seed, the epoch and the batch
    size only, so an epoch can be taken up at any step.

    Args:
        dataset: the images.
        batch: images a batch.
        seed: of order and variation.
        augment: how training images are varied.
        stats: statistics for colour noise; may be None without it.
        train: training or evaluation.
        prefetch: how many batches may be ready ahead of the consumer.
        share: of a number of samples, the first and last + 1 that this process reads; by default it
            reads all of each batch.
        workers: processes that decode, where the data set decodes files and does not keep them in
            memory; 0: threads of this process do it, as for all other sets. "auto": one for each
            usable CPU, at most 16. The batches are the same for every number.
        fallback: decode in this process, with a warning, where memory for the workers is missing;
            "auto" always does.
        warn: told when a worker died and was replaced, or when there are none after all.

    Attributes:
        steps_per_epoch: batches in an epoch.
        out_shape: (P, Q, C) of what the net sees.
        wait_seconds: how long the consumer has waited for batches, over all epochs.
        total_seconds: how long the consumer has been between first asking for a batch of an epoch
            and last getting one, over all epochs.

    Raises:
        DataError: no images, a training batch larger than the data, a crop that does not fit, or
            noise without statistics.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        seed: int,
        augment: AugmentConfig,
        stats: Statistics | None,
        train: bool,
        prefetch: int = 4,
        share: Callable[[int], tuple[int, int]] | None = None,
        workers: int | Literal["auto"] = 0,
        fallback: bool = False,
        warn: Callable[[str], None] = warn_plainly,
    ) -> None:
        if batch < 1 or prefetch < 1:
            raise ValueError(
                f"Loader: expected batch and prefetch of at least 1, got {batch} and {prefetch}"
            )
        if workers != "auto" and workers < 0:
            raise ValueError(f'Loader: expected workers of at least 0 or "auto", got {workers}')
        if len(dataset) == 0:
            raise DataError(f"{dataset.description}: expected images, got none")
        if train and batch > len(dataset):
            raise DataError(
                f"train.batch: expected at most {len(dataset)}, the number of training images,"
                f" got {batch} ({dataset.description})"
            )
        self.dataset = dataset
        self.batch = batch
        self.seed = seed
        self.augment = augment
        self.stats = stats
        self.train = train
        self.prefetch = prefetch
        self.share = share
        self.out_shape = (*crop_size(dataset.shape, augment), dataset.shape[2])
        if train:  # draws once, so that what cannot be drawn is said here
            draw_variation(seed, 0, np.zeros(1, np.int64), dataset.shape, augment, stats)
        whole, rest = divmod(len(dataset), batch)
        self.steps_per_epoch = whole if train else whole + (rest > 0)
        self.wait_seconds = 0.0
        self.total_seconds = 0.0
        self.workers = workers
        self.fallback = fallback or workers == "auto"
        self.warn = warn
        self._feeder: Feeder | None = None

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
        """The images in the order in which this epoch shows them, int64 [len(dataset)]."""
        if self.train:
            return epoch_order(self.seed, epoch, len(self.dataset))
        return np.arange(len(self.dataset), dtype=np.int64)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `start_step` on.

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
            with contextlib.closing(self._images(batches)) as pictures:
                while not stop.is_set() and (item := next(pictures, None)) is not None:
                    ready.put(self._vary(epoch, *item))
        except BaseException as error:
            end = error
        if not self.train or end is not None:
            self.close()
        if not stop.is_set():
            ready.put(end)

    def _own_batches(self, epoch: int, start_step: int) -> Iterator[Indices]:
        """The images of each batch that this process reads, where it reads any."""
        order = self.order(epoch)
        for step in range(start_step, self.steps_per_epoch):
            indices = order[step * self.batch : (step + 1) * self.batch]
            if self.share is not None:
                indices = indices[slice(*self.share(len(indices)))]
            if len(indices):
                yield indices

    @property
    def _largest(self) -> int:
        """Images in the largest batch that this process reads."""
        rest = 0 if self.train else len(self.dataset) % self.batch
        counts = [min(self.batch, len(self.dataset)), rest]
        if self.share is None:
            return max(counts)
        parts = [self.share(count) for count in counts]
        return max(1, *(last - first for first, last in parts))

    def _images(self, batches: Iterator[Indices]) -> Generator[tuple[Indices, Images], None, None]:
        """The indices and images of each batch, read in this thread or by the workers."""
        feeder = self._feed()
        if feeder is None:
            for indices in batches:
                yield indices, self.dataset.read(indices)
            return
        first, second = itertools.tee(batches)
        try:
            with contextlib.closing(feeder.stream(second)) as stream:
                for indices in first:
                    yield indices, next(stream)
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
                text = (
                    f"data workers: expected {size:.0f} MiB of shared memory for batches,"
                    f" got {error.strerror}"
                )
                if not self.fallback:
                    raise DataError(
                        f"{text}; try a smaller train.batch, or data.workers=0"
                    ) from None
                self.warn(f"{text}; decoding in this process instead (data.workers=0 says so)")
                self.workers = 0
                return None
        return self._feeder

    def _vary(self, epoch: int, indices: Indices, images: Images) -> Batch:
        shape = self.dataset.shape
        if self.train:
            vary = draw_variation(self.seed, epoch, indices, shape, self.augment, self.stats)
        else:
            vary = centre(len(indices), shape, self.augment)
        labels = self.dataset.labels[indices]
        return Batch(images, labels, vary.offsets, vary.mirror, vary.noise, indices)
