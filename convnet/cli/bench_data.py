"""How many images per second the data pipeline delivers, alone and by stage."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.config import Config
from convnet.data import Batch, Dataset, Loader, Statistics
from convnet.data.packed.dataset import PackedDecoder
from convnet.data.workers.decoded import DecodedDataset
from convnet.data.workers.pool import auto_workers
from convnet.training.datasets import Data, open_sets
from convnet.training.inputs import Preparer

_WARM_UP = 2  # batches that are not counted: workers start, and the loader reads ahead


@dataclass(frozen=True)
class Rate:
    """One line of the table: a stage, its images per second, and how many were measured."""

    stage: str
    images_per_s: float
    images: int

    def __str__(self) -> str:
        return f"{self.stage:28} {self.images_per_s:12,.0f} images/s"


def bench_data(
    cfg: Config,
    device: str = "auto",
    data: Data = None,
    workers: Sequence[int] = (),
    seconds: float = 3.0,
    show: Callable[[Rate], None] = lambda rate: None,
) -> tuple[str, list[Rate]]:
    """Measures reading, decoding and augmenting training images; nothing is trained.

    Images are read in the random order of training, and always from their files, also where
    training would keep them in memory.

    Args:
        cfg, device, data: as for training.
        workers: the numbers of worker processes to try; none: 1, 2, 4, ... up to the number of
            usable CPUs.
        seconds: duration of each measurement, roughly.
        show: called with each line as it is ready.

    Returns:
        The description of the data, and the lines.

    Raises:
        ConfigError, DataError, DeviceError.
    """
    backend = backends.get(device)
    if backend.name == "cpu":
        backends.set_threads(cfg.train.threads)
    train, _ = open_sets(cfg, data)
    decoded = isinstance(train, DecodedDataset)
    if isinstance(train, DecodedDataset):
        train = train.without_memory()
    stats = _any_statistics(train)
    prepare = Preparer(backend, stats, cfg, train.shape)
    rates: list[Rate] = []

    def measure(stage: str, counts: Generator[int], warm_up: int = 1) -> None:
        rates.append(_measured(stage, counts, seconds, warm_up))
        show(rates[-1])

    def loader(workers: int = 0) -> Loader:
        batch = min(cfg.train.batch, len(train))
        return Loader(train, batch, cfg.seed, cfg.augment, stats, train=True, workers=workers)

    if isinstance(train, DecodedDataset):
        measure("read, one thread", _each(train, loader(), _reader(train.decoder)))
        measure("read and decode, one thread", _each(train, loader(), train.decoder))
    batch = next(iter(loader().epoch(0)))
    measure("augment", _prepared(itertools.repeat(batch), prepare))
    for count in [0, *(workers or _powers(auto_workers()))] if decoded else [0]:
        name = f"{count} worker{'s' * (count != 1)}" if count else "this process"
        with (
            contextlib.closing(loader(count)) as feed,
            contextlib.closing(_batches(feed)) as batches,
        ):
            measure(f"all, by {name}", _prepared(batches, prepare), _WARM_UP)
    return train.description, rates


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({most, *(1 << bit for bit in range(most.bit_length()))} - {0})


def _any_statistics(data: Dataset) -> Statistics:
    """Statistics that cost as much as the right ones; which they are does not matter here."""
    channels = data.shape[2]
    mean = np.full(data.shape, 128, np.float32)
    return Statistics(mean, np.full(channels, 0.1), np.eye(channels))


def _measured(stage: str, counts: Generator[int], seconds: float, warm_up: int) -> Rate:
    """Takes from an endless iterator of numbers of images for some seconds."""
    images = 0
    with contextlib.closing(counts):
        for _ in range(warm_up):
            next(counts)
        start = now = time.perf_counter()
        while now - start < seconds:
            images += next(counts)
            now = time.perf_counter()
    return Rate(stage, images / (now - start), images)


# ---- stages: endless, each giving the number of images done --------------------------------------


def _each(data: DecodedDataset, loader: Loader, take: Callable[[Any], object]) -> Generator[int]:
    """Takes one image after the other, in the order of training."""
    for epoch in itertools.count():
        order = loader.order(epoch)
        for start in range(0, len(order), 64):
            for item in data.items(order[start : start + 64]):
                take(item)
                yield 1


def _reader(decoder: Any) -> Callable[[Any], object]:
    """What reads the bytes of an image and does not decode them."""
    if isinstance(decoder, PackedDecoder):
        return lambda item: decoder.bytes_of(item, "")
    return lambda item: Path(item).read_bytes()


def _batches(loader: Loader) -> Generator[Batch]:
    """The batches of one epoch after the other."""
    for epoch in itertools.count():
        with contextlib.closing(loader.epoch(epoch)) as batches:  # type: ignore[type-var]
            yield from batches


def _prepared(batches: Iterable[Batch], prepare: Preparer) -> Generator[int]:
    """Makes the net's input of batches."""
    for batch in batches:
        prepare(batch)
        prepare.backend.synchronize()
        yield len(batch)
