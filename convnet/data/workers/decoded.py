"""Data sets whose images are decoded from files when they are read."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import Dataset, Images, Labels
from convnet.data.folder.class_folders import thread_pool

CACHE_BYTES = 1 << 29  # decoded images of both parts together are kept up to this


class Decoder(Protocol):
    """Decodes images, here or in another process: it pickles, and is small."""

    def __call__(self, item: Any) -> Images:
        """One image, uint8 [H, W, C]; raises DataError."""


@dataclass(eq=False, repr=False)
class DecodedDataset(Dataset):
    """Images decoded by a pool of threads when they are read.

    Args:
        labels: int32 [N].
        classes: the name of each class.
        shape: (H, W, C) of what `decoder` returns.
        description: one line saying what this is and where it comes from.
        decoder: turns an item (see `items`) into pixels.
        keep: keep decoded images in memory (N * H * W * C bytes).
        threads: how many threads decode; 0: one per CPU this process may use.
    """

    labels: Labels
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    description: str
    decoder: Decoder
    keep: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._kept: Images | None = None
        self._is_kept = np.zeros(len(self) if self.keep else 0, bool)
        if self.keep:
            self._kept = np.empty((len(self), *self.shape), np.uint8)

    @abstractmethod
    def items(self, indices: npt.NDArray[np.int64]) -> list[Any]:
        """What the decoder needs for the images at these indices."""

    @property
    def in_memory(self) -> bool:
        """Whether images stay in memory once they are decoded."""
        return self._kept is not None

    def without_memory(self) -> Self:
        """The same set, but decoding images each time they are read."""
        other = copy.copy(self)
        other._kept, other._is_kept, other._pool = None, np.zeros(0, bool), None
        return other

    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Images:
        """Decodes images; uint8 [len(indices), H, W, C].

        Raises:
            DataError: a file has gone or cannot be decoded; it is named.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if self._kept is None:
            images = np.empty((len(wanted), *self.shape), np.uint8)
            self._decode_into(images, np.arange(len(wanted)), wanted)
            return images
        missing = np.unique(wanted[~self._is_kept[wanted]])
        self._decode_into(self._kept, missing, missing)
        self._is_kept[missing] = True
        return self._kept[wanted]

    def keep_decoded(self, images: Mapping[Path, Images]) -> None:
        """Keeps images that somebody has decoded already, by the paths that `items` gives."""
        if self._kept is None or not images:
            return
        for index, item in enumerate(self.items(np.arange(len(self), dtype=np.int64))):
            pixels = images.get(Path(item))
            if pixels is not None:
                self._kept[index], self._is_kept[index] = pixels, True

    def _decode_into(
        self, out: Images, places: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]
    ) -> None:
        def one(job: tuple[int, Any]) -> None:
            out[job[0]] = self.decoder(job[1])

        if len(indices) == 0:
            return
        if self._pool is None:
            self._pool = thread_pool(self.threads)
        for _ in self._pool.map(one, zip(places.tolist(), self.items(indices), strict=True)):
            pass

    def close(self) -> None:
        """Ends the decoding threads; a later read starts them again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}  # threads do not travel to other processes
