"""Data sets of others: whatever has a length and items, such as PyTorch's and Hugging Face's.

An item is (image, label), or a dictionary with both. An image is one of Pillow's, or an array:
uint8 [H, W, C] or [H, W], or, as PyTorch's transforms give it, a tensor [C, H, W] of uint8 or of
numbers from 0 to 1. Nothing of these libraries is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.data.dataset import ArrayDataset, DataError, Dataset, Images, check_labels, mismatch
from convnet.data.image import Resize, fitted

_CHANNELS = (1, 3)


def from_indexable(
    items: Any,
    size: tuple[int, int] | None = None,
    image: str | int | None = None,
    label: str | int | None = None,
    labels: npt.ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    description: str = "",
    resize: Resize = "crop",
) -> Dataset:
    """A data set of anything that has a length and items; or of a pair of arrays.

    Args:
        items: a data set of PyTorch's (its transforms without normalization, or none), of Hugging
            Face's, a list; or (images, labels), uint8 [N, H, W, C] and whole numbers [N].
        size: (height, width) to which each image is fitted. None: all have one size.
        image, label: where they are in an item; by default "image" or "img" and "label" of a
            dictionary, 0 and 1 of a pair.
        labels: the label of each item, whole numbers [N]; by default the data set's own list, where
            it has one (`targets`, or a column), or else every item is read once to find out.
        classes: names of the classes; by default the data set's, or "0", "1", ...
        description: one line saying what this is.
        resize: how each image is fitted: "crop", "pad" or "stretch", as `data.resize` has it.

    Returns: a data set for `convnet.train` and `Loader`; images are read when they are asked for,
    perhaps from several threads.

    Raises: DataError: no images or labels, or images that differ in size while `size` is not given.
    """
    if isinstance(items, tuple) and len(items) == 2 and hasattr(items[0], "shape"):
        return _of_arrays(*items, classes, description or "arrays")
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise DataError(
            f"from_indexable: expected data with a length and items, got {type(items).__name__}; "
            "a stream of images can be written to shards (convnet.data.WebDataset)"
        )
    if not len(items):
        raise DataError("from_indexable: expected items, got none")
    return IndexableDataset(items, size, image, label, labels, classes, description, resize)


def _of_arrays(
    images: Any, labels: Any, classes: Sequence[str] | None, description: str
) -> Dataset:
    pixels, found = np.asarray(images), np.asarray(labels)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    return ArrayDataset(pixels, found, _names(classes, None, found), description)


class IndexableDataset(Dataset):
    """See `from_indexable`, whose arguments these are."""

    def __init__(
        self,
        items: Any,
        size: tuple[int, int] | None,
        image: str | int | None,
        label: str | int | None,
        labels: npt.ArrayLike | None,
        classes: Sequence[str] | None,
        description: str,
        resize: Resize = "crop",
    ) -> None:
        self.items, self._size, self.resize = items, size, resize
        first = items[0]
        self._image = _key(first, image, ("image", "img", "jpg", "png"), 0, "image")
        self.description = description or f"{type(items).__name__} of {len(items)} items"
        self._name = self.description
        self.shape = self._pixels(0, first).shape
        found = self._labels(first, label) if labels is None else np.asarray(labels)
        self.classes = _names(classes, items, found)
        self.labels = check_labels(found, len(self.classes), self._name)
        if len(self.labels) != len(items):
            raise mismatch(self._name, f"{len(items)} labels", len(self.labels))

    def _labels(self, first: Any, label: str | int | None) -> npt.NDArray[Any]:
        """The labels, from a list of them where there is one."""
        key = _key(first, label, ("label", "labels", "cls", "target"), 1, "label")
        if isinstance(first, dict):
            columns = getattr(self.items, "column_names", ())
            if key in (columns if isinstance(columns, (list, tuple)) else ()):
                return np.asarray(self.items[key])
        elif label is None and len(own := getattr(self.items, "targets", ())) == len(self.items):
            return np.asarray(own)
        return np.asarray([int(self.items[index][key]) for index in range(len(self.items))])

    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Images:
        images = [self._pixels(int(index), self.items[int(index)]) for index in indices]
        for index, pixels in zip(indices, images, strict=True):
            if pixels.shape != self.shape:
                expected = f"{self.shape} as the first (size=(H, W) scales all)"
                raise mismatch(f"{self._name}: image {index}", expected, pixels.shape)
        return np.stack(images) if images else np.empty((0, *self.shape), np.uint8)

    def _pixels(self, index: int, item: Any) -> Images:
        """The image of an item, uint8 [H, W, C]."""
        name, image = f"{self._name}: image {index}", item[self._image]
        if not isinstance(image, Image.Image):
            pixels = bytes_of(image, name)
            if self._size in (None, pixels.shape[:2]):
                return pixels
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        channels = 1 if image.mode in ("1", "L") else 3
        if hasattr(self, "shape"):
            channels = self.shape[2]
        size = self._size or (image.height, image.width)
        return fitted(image, name, size, channels, self.resize)


def bytes_of(image: Any, name: str) -> Images:
    """An array or a tensor as uint8 [H, W, C]. Raises: DataError: it is no image."""
    is_tensor = not isinstance(image, np.ndarray) and hasattr(image, "numpy")
    pixels = np.asarray(image.numpy() if is_tensor else image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if is_tensor and pixels.ndim == 3 and pixels.shape[0] in _CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS:
        raise mismatch(name, "an image [H, W, C] of 1 or 3 channels", f"shape {pixels.shape}")
    if pixels.dtype.kind == "f":
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            got = (
                f"{pixels.min():g} to {pixels.max():g}; leave normalization to data.mean and scale"
            )
            raise mismatch(name, "numbers from 0 to 1", got)
        pixels = np.rint(pixels * np.float32(255))
    elif pixels.dtype != np.uint8:
        raise mismatch(name, "uint8, or numbers from 0 to 1", pixels.dtype)
    return np.ascontiguousarray(pixels, np.uint8)


def _key(item: Any, given: Any, names: Sequence[str], place: int, what: str) -> Any:
    """Where something is in an item."""
    if given is not None:
        return given
    if not isinstance(item, dict):
        return place
    for name in names:
        if name in item:
            return name
    known = ", ".join(map(str, item))
    raise DataError(
        f"from_indexable: expected an item with {names[0]}, got one with {known}; {what}= names it"
    )


def _names(given: Sequence[str] | None, items: Any, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """The names of the classes: those given, the data set's, or numbers."""
    if given is None:
        own = getattr(items, "classes", None)
        features = getattr(items, "features", None)
        if own is None and isinstance(features, dict):
            own = next((f.names for f in features.values() if hasattr(f, "names")), None)
        given = own
    if given is not None:
        return tuple(map(str, given))
    count = int(labels.max()) + 1 if labels.size and labels.dtype.kind in "iu" else 0
    return tuple(map(str, range(min(count, 1 << 20))))
