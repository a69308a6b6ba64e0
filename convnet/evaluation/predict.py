"""Classifying image files with a trained net."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.data import ArrayDataset, Batch
from convnet.data.dataset import Images
from convnet.data.image import read_image
from convnet.evaluation.crops import crops_of, probabilities
from convnet.evaluation.evaluate import Trained, as_warning, loader_of, open_run

_BAR = 24  # characters of a probability of 1


@dataclass(frozen=True)
class Prediction:
    """The classes that `predict` finds for one image.

    Attributes:
        image: the file.
        classes: names of the likeliest classes, likeliest first.
        probabilities: of these, from 0 to 1.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """{"image": ..., "classes": [...], "probabilities": [...]}."""
        return {name: [*value] if name != "image" else value for name, value in vars(self).items()}


def predict(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    device: str | None = None,
    top: int = 5,
    warn: Callable[[str], None] = as_warning,
    ten_crop: bool = False,
) -> list[Prediction]:
    """Classifies images, which are prepared as in training: size, grey or colour, mean.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        images: image files.
        device: as for `convnet.train`; None is "auto".
        top: how many classes to list, at least 1.
        warn: called with a message when a damaged checkpoint is passed over.
        ten_crop: average over ten crops, as for `convnet.evaluation.evaluate.evaluate`.

    Returns: one `Prediction` for each image, in order.

    Raises:
        DataError: a file that is not a usable image.
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
    """
    trained = open_run(run, device, warn)
    rows = classify(trained, read_images(trained, images), ten_crop)
    return [
        Prediction(os.fspath(image), *likeliest(trained, row, top))
        for image, row in zip(images, rows, strict=True)
    ]


def likeliest(
    trained: Trained, row: np.ndarray, top: int
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The names and probabilities of the `top` likeliest classes, likeliest first.

    Args:
        row: float64 [classes].
    """
    order = np.argsort(-row, kind="stable")[:top]
    return tuple(trained.classes[index] for index in order), tuple(row[order].tolist())


def read_images(trained: Trained, images: Sequence[str | os.PathLike[str]]) -> Images:
    """Image files as the net takes them before the crop, uint8 [N, H, W, C].

    Raises:
        DataError: a file that is not a usable image.
    """
    height, width, channels = trained.image_shape
    return np.stack([read_image(Path(image), (height, width), channels) for image in images])


def batches(trained: Trained, pixels: Images) -> Iterator[Batch]:
    """Images in batches as in the net's training, in order."""
    labels = np.zeros(len(pixels), np.int32)
    images = ArrayDataset(pixels, labels, trained.classes, "images")
    batch = min(trained.cfg.train.batch, len(images))
    return loader_of(trained, images, batch).epoch(0)


def classify(trained: Trained, pixels: Images, ten_crop: bool = False) -> np.ndarray:
    """Probabilities of the classes, float64 [N, classes], of images uint8 [N, H, W, C]."""
    crops = crops_of(trained.image_shape, trained.cfg.augment, ten_crop)
    found = (
        probabilities(trained.net, trained.prepare, batch, crops)
        for batch in batches(trained, pixels)
    )
    return np.concatenate([*found])


def show(prediction: Prediction) -> str:
    """The prediction as text: the file, then a line with a bar for each class."""
    full, empty = _bar_characters()
    width = max(map(len, prediction.classes))
    lines = [prediction.image]
    for name, probability in zip(prediction.classes, prediction.probabilities, strict=True):
        count = round(_BAR * probability)
        bar = full * count + empty * (_BAR - count)
        lines.append(f"  {name:{width}}  {bar} {100 * probability:6.2f} %")
    return "\n".join(lines)


def _bar_characters() -> tuple[str, str]:
    """Blocks where the output can show them, else # and -."""
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#", "-"
    return "█", "░"
