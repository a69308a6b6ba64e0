"""Parts of data sets: some of the images, or only their centres."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convnet.data import DataError, Dataset
from convnet.data.augment import epoch_order

_SEED = 0  # of the choice of images, the same for all runs of a series


class Part(Dataset):
    """Some images of a data set.

    Args:
        whole: the set.
        indices: which images, int64 [M]; None for all.
        crop: (height, width) of the centre that is left of each; None for all of it.

    Raises:
        DataError: a crop larger than the images.
    """

    def __init__(
        self,
        whole: Dataset,
        indices: npt.NDArray[np.int64] | None = None,
        crop: tuple[int, int] | None = None,
    ) -> None:
        height, width, channels = whole.shape
        rows, columns = crop or (height, width)
        if not (0 < rows <= height and 0 < columns <= width):
            raise DataError(f"crop: expected at most {height} x {width}, got {rows} x {columns}")
        self.whole = whole
        self.indices = np.arange(len(whole)) if indices is None else indices
        self.place = ((height - rows) // 2, (width - columns) // 2)
        self.labels = whole.labels[self.indices]
        self.classes = whole.classes
        self.shape = (rows, columns, channels)
        self.description = f"{len(self)} of: {whole.description}"

    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.uint8]:
        """The images at these indices of the part, uint8 [len(indices), H, W, C]."""
        found = self.whole.read(self.indices[np.asarray(indices, np.int64)])
        (top, left), (rows, columns, _) = self.place, self.shape
        return np.ascontiguousarray(found[:, top : top + rows, left : left + columns])


def chosen(count: int, total: int, option: str) -> npt.NDArray[np.int64]:
    """Which `count` of `total` images to take, always the same ones, in order; 0 takes all.

    Raises:
        DataError: naming `option`, where there are fewer.
    """
    if count > total:
        raise DataError(f"{option}: expected at most {total}, the images there are, got {count}")
    if count < 0:
        raise DataError(f"{option}: expected a number of images, or 0 for all, got {count}")
    return np.sort(epoch_order(_SEED, 0, total)[: count or total])


def fingerprint(data: Dataset) -> str:
    """How many images, and a digest of their labels, in the words of the results files."""
    labels = np.ascontiguousarray(data.labels, np.int32).tobytes()
    return f"{len(data)} pictures, labels {hashlib.sha256(labels).hexdigest()[:12]}"
