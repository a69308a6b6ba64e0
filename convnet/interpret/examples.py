"""Images to show: files, or images of a data set by number, with what is known of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from dataclasses import replace as with_changes
from pathlib import Path

import numpy as np

from convnet.data import DataError, Dataset
from convnet.data.augment import Indices
from convnet.data.dataset import Images, mismatch, shown
from convnet.data.image import read_image
from convnet.data.workers.decoded import DecodedDataset
from convnet.evaluation.evaluate import Trained, validation_sets
from convnet.evaluation.predict import read_images
from convnet.ops import philox
from convnet.training.datasets import Data

SHOWN_SIDE = 224  # pixels of the shorter side of an image that is shown, at least
_PICK = 0x7069636B  # stream of the random numbers that choose images


@dataclass(frozen=True)
class Example:
    """An image as the net takes it and as it is shown.

    Attributes:
        name: name of the file, or "validation 17".
        pixels: uint8 [H, W, C], as the net takes it before the crop.
        shown: uint8 [H', W', C], the same image, perhaps larger.
        label: the right class, or None where it is not known.
    """

    name: str
    pixels: Images
    shown: Images
    label: str | None


def examples_of(
    trained: Trained,
    data: Data,
    images: Sequence[str | os.PathLike[str]],
    pick: Sequence[int],
    count: int,
    labels: Sequence[str] = (),
) -> list[Example]:
    """Image files, with their classes if these are given; or else validation images: those picked
    by their numbers, or `count` of all classes.

    Raises: DataError: both are given, or there are no such images.
    """
    if images:
        if pick:
            raise DataError("pick: cannot be given with image files")
        return from_files(trained, images, labels)
    (validation,) = validation_sets([trained], data)
    numbers = list(pick) or choose(validation, count, trained.cfg.seed)
    return from_set(validation, numbers, "validation")


def from_files(
    trained: Trained, images: Sequence[str | os.PathLike[str]], labels: Sequence[str] = ()
) -> list[Example]:
    """Image files. Their classes are `labels`, or else the name of the folder a file lies in,
    or of one above it, the nearest that is a class of the net.

    Raises:
        DataError: a file that is no usable image, labels that are no classes, or too few of them.
    """
    if labels and len(labels) != len(images):
        raise mismatch("labels", f"{len(images)}, one for each image", len(labels))
    for label in labels:
        if label not in trained.classes:
            known = ", ".join(trained.classes[:20])
            raise mismatch("labels", f"classes of the net ({known})", f'"{label}"')
    pixels = read_images(trained, images)
    height, width, channels = trained.image_shape
    factor = -(-SHOWN_SIDE // min(height, width)) if min(height, width) > 32 else 1
    examples = []
    for number, (image, one) in enumerate(zip(images, pixels, strict=True)):
        path = Path(image)
        size = (factor * height, factor * width)
        large = read_image(path, size, channels, trained.cfg.data.resize)
        above = (folder.name for folder in path.absolute().parents)
        name = labels[number] if labels else next(filter(trained.classes.__contains__, above), "")
        examples.append(
            Example(shown(image), one, large, name if name in trained.classes else None)
        )
    return examples


def from_set(data: Dataset, numbers: Sequence[int] | Indices, what: str) -> list[Example]:
    """Images of a set.

    Args:
        data: the set.
        numbers: which, from 0.
        what: the name of the set in messages and names: "validation".

    Raises:
        DataError: a number that is out of range.
    """
    for number in numbers:
        if not 0 <= number < len(data):
            raise mismatch(f"{what} images", f"numbers from 0 to {len(data) - 1}", number)
    pixels = data.read(np.asarray(numbers, np.int64))
    return [
        Example(f"{what} {number}", one, large_image(data, int(number), one), label)
        for number, one, label in zip(numbers, pixels, labels_of(data, numbers), strict=True)
    ]


def labels_of(data: Dataset, numbers: Sequence[int] | Indices) -> list[str]:
    """The names of the classes of these images."""
    return [data.classes[data.labels[number]] for number in numbers]


def large_image(data: Dataset, number: int, pixels: Images) -> Images:
    """An image of a set as it is to be shown: read anew from its file where that is larger."""
    small = min(pixels.shape[:2])
    if not isinstance(data, DecodedDataset) or small >= SHOWN_SIDE or small <= 32:
        return pixels
    decoder = data.decoder
    if not is_dataclass(decoder) or not hasattr(decoder, "size"):
        return pixels
    factor = -(-SHOWN_SIDE // small)
    size = (factor * pixels.shape[0], factor * pixels.shape[1])
    (item,) = data.items(np.array([number], np.int64))
    larger: Images = with_changes(decoder, size=size)(item)
    return larger


def choose(data: Dataset, count: int, seed: int = 0) -> list[int]:
    """Numbers of `count` different images, of different classes as far as there are; the same
    in every call with the same seed."""
    bits = philox(seed, _PICK, 0, np.arange(len(data)))[:, 0].astype(np.int64)
    order = np.argsort(bits, kind="stable")
    turn = np.zeros(len(data), np.int64)  # how many of its class come before an image
    seen = np.zeros(len(data.classes), np.int64)
    for index in order:
        turn[index] = seen[data.labels[index]]
        seen[data.labels[index]] += 1
    first = order[np.argsort(turn[order], kind="stable")]
    return [int(index) for index in first[:count]]
