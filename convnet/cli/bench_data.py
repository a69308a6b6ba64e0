"""How many images a second the data pipeline delivers, alone and by stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.config import Config
from convnet.data import Dataset, Loader, Statistics
from convnet.data.packed.dataset import PackedDecoder
from convnet.data.workers.decoded import DecodedDataset
from convnet.data.workers.pool import auto_workers
from convnet.training.setup import Data, Preparer, open_sets

_WARM_UP = 2  # batches that are not counted: the workers are starting, the loader reads ahead


@dataclass(frozen=True)
class Rate:
    """One line of the table: a stage and its images per second."""

    stage: str
    images_per_s: float
    pictures: int


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
        seconds: that each measurement takes, about.
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
    if isinstance(train, DecodedDataset):
        train = train.without_memory()
    stats = _any_statistics(train)
    prepare = Preparer(backend, stats, cfg, train.shape)
    rates: list[Rate] = []

    def note(stage: str, counts: Iterator[int], warm_up: int = 1) -> None:
        rates.append(_measured(stage, counts, seconds, warm_up))
        show(rates[-1])

    batch = min(cfg.train.batch, len(train))
    loader = Loader(train, batch, cfg.seed, cfg.augment, stats, train=True)
    if isinstance(train, DecodedDataset):
        note("read, one thread", _read(train, loader))
        note("read and decode, one thread", _decode(train, loader))
    note("augment", _augment(loader, prepare))
    tries = [0, *(workers or _powers(auto_workers()))]
    for count in tries if isinstance(train, DecodedDataset) else [0]:
        name = f"{count} worker{'s' * (count != 1)}" if count else "this process"
        loader = Loader(train, batch, cfg.seed, cfg.augment, stats, train=True, workers=count)
        with contextlib.closing(loader):
            note(f"all, by {name}", _all(loader, prepare), _WARM_UP)
    return train.description, rates


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({most, *(1 << bit for bit in range(most.bit_length()))} - {0})


def _any_statistics(data: Dataset) -> Statistics:
    """Statistics that cost as much as the right ones; which they are does not matter here."""
    channels = data.shape[2]
    mean = np.full(data.shape, 128, np.float32)
    return Statistics(mean, np.full(channels, 0.1), np.eye(channels))


def _measured(stage: str, counts: Iterator[int], seconds: float, warm_up: int) -> Rate:
    """Takes from an endless iterator of numbers of images for some seconds."""
    images = 0
    with contextlib.closing(counts):  # type: ignore[type-var]
        for _ in range(warm_up):
            next(counts)
        start = now = time.perf_counter()
        while now - start < seconds:
            images += next(counts)
            now = time.perf_counter()
    return Rate(stage, images / (now - start), images)


# ---- stages: endless, each giving the number of images done ------------------------------------


def _items(data: DecodedDataset, loader: Loader) -> Iterator[Any]:
    epoch = 0
    while True:
        order = loader.order(epoch)
        for start in range(0, len(order), 64):
            yield from data.items(order[start : start + 64])
        epoch += 1


def _read(data: DecodedDataset, loader: Loader) -> Iterator[int]:
    decoder = data.decoder
    for item in _items(data, loader):
        if isinstance(decoder, PackedDecoder):
            decoder.bytes_of(item, "")
        else:
            Path(item).read_bytes()
        yield 1


def _decode(data: DecodedDataset, loader: Loader) -> Iterator[int]:
    for item in _items(data, loader):
        data.decoder(item)
        yield 1


def _augment(loader: Loader, prepare: Preparer) -> Iterator[int]:
    with contextlib.closing(loader.epoch(0)) as batches:  # type: ignore[type-var]
        batch = next(batches)
    while True:
        prepare(batch)
        prepare.backend.synchronize()
        yield len(batch)


def _all(loader: Loader, prepare: Preparer) -> Iterator[int]:
    epoch = 0
    while True:
        with contextlib.closing(loader.epoch(epoch)) as batches:  # type: ignore[type-var]
            for batch in batches:
                prepare(batch)
                prepare.backend.synchronize()
                yield len(batch)
        epoch += 1
