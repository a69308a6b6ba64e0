"""What every data set offers: labelled uint8 images of one size, read by index."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convnet.data.sums import Sums

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]

_LONG = 1000  # characters of a path that a message shows whole


class DataError(ValueError):
    """Data that is missing, damaged or does not fit; one line: the thing, expected, got."""


def shown(path: str | os.PathLike[str]) -> str:
    """A path as it may be printed on one line: line breaks and undecodable bytes are escaped."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` replaced by the home folder; as it is where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def mismatch(where: str | os.PathLike[str], expected: str, got: object) -> DataError:
    """The error `where: expected ..., got ...`, on one line.

    Args:
        where: a file, or another name of what is wrong.
    """
    name = shown(where)
    if len(name) > _LONG:  # a file may name anything as the place of its data
        name = f"{name[: _LONG // 2]}...{name[-_LONG // 4 :]}"
    return DataError(f"{name}: expected {expected}, got {got}")


def damaged(path: Path) -> DataError:
    """The error for a file whose checksum does not match."""
    return DataError(f"{shown(path)}: damaged file (its checksum does not match)")


@contextlib.contextmanager
def readable(
    path: str | os.PathLike[str], expected: str = "a readable file", content: str = ""
) -> Iterator[None]:
    """Within the block, an error while reading a file becomes a DataError that names it.

    Args:
        path: the file.
        expected: what was, where there is an OSError.
        content: what was, where there is a ValueError; empty: these pass.
    """
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise mismatch(path, expected, error.strerror or error) from None
    except ValueError as error:
        if not content:
            raise
        why = shown(" ".join(str(error).split()))[:100]
        raise mismatch(path, content, f"a damaged file ({why})") from None


def check_labels(labels: npt.ArrayLike, classes: int, where: str) -> Labels:
    """Labels as int32 [N].

    Args:
        labels: whole numbers [N].
        classes: how many classes there are.
        where: what to call these labels in a message, e.g. their file.

    Raises:
        DataError: not whole numbers, not one-dimensional, or outside 0 .. classes - 1.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        got = f"{array.dtype} {list(array.shape)}"
        raise mismatch(f"{where}: labels", "whole numbers [N]", got)
    wrong = np.flatnonzero((array < 0) | (array >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{where}: label of image {first}: expected 0 .. {classes - 1}, got {array[first]}"
            + (f" ({wrong.size} such labels)" if wrong.size > 1 else "")
        )
    return array.astype(np.int32)


class Dataset(ABC):
    """Labelled images of one size. Read-only; `read` may be called from several threads.

    Attributes:
        labels: the class of each image, int32 [N], 0 .. len(classes) - 1.
        classes: the name of each class.
        shape: (H, W, C) of every image; C is 1 (grey) or 3 (red, green, blue).
        description: one line saying what this is and where it comes from.
    """

    labels: Labels
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    description: str

    def __len__(self) -> int:
        return len(self.labels)

    def stored_sums(self, colour: bool = True) -> Sums | None:
        """The sums for this set's statistics where they were computed before; else None.

        Args:
            colour: whether those of colours are wanted too.
        """
        return None

    def keep_sums(self, sums: Sums, colour: bool) -> None:
        """Keeps what `stored_sums` returns next time, where there is a place for it.

        Args:
            sums: of all images.
            colour: whether those of colours were computed.
        """
        return None

    @abstractmethod
    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Images:
        """The images at these indices.

        Args:
            indices: numbers of images, 0 .. len(self) - 1, in any order; int64 [N].

        Returns:
            uint8 [N, H, W, C]; not to be written to.

        Raises:
            DataError: an image cannot be read; it is named.
        """


class ArrayDataset(Dataset):
    """Images held in one array.

    Args:
        images: uint8 [N, H, W, C].
        labels: whole numbers [N].
        classes: the name of each class.
        description: one line saying what this is and where it comes from.

    Raises:
        DataError: arrays of another type or shape, or labels out of range.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.ArrayLike,
        classes: Sequence[str],
        description: str = "array",
    ) -> None:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4:
            got = f"{images.dtype} {list(images.shape)}"
            raise mismatch(f"{description}: images", "uint8 [N, H, W, C]", got)
        self.labels = check_labels(labels, len(classes), description)
        if len(images) != len(self.labels):
            count = f"{len(images)}, one for each image"
            raise mismatch(f"{description}: labels", count, len(self.labels))
        if images.size == 0:
            raise mismatch(f"{description}: images", "at least one pixel", list(images.shape))
        self.images = images
        self.classes = tuple(classes)
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self.description = description

    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Images:
        return self.images[np.asarray(indices, dtype=np.int64)]
