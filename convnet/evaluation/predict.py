"""Naming what images show, with a trained net."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.data import ArrayDataset, Batch, Loader
from convnet.data.dataset import Images
from convnet.data.image import read_image
from convnet.evaluation.crops import probabilities, views
from convnet.evaluation.evaluate import Trained, _warn, open_run

_BAR = 24  # characters of a probability of 1


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, likeliest first; probabilities are 0 to 1."""

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """{"image": ..., "classes": [...], "probabilities": [...]}."""
        return {
            "image": self.image,
            "classes": list(self.classes),
            "probabilities": list(self.probabilities),
        }


def predict(
    run: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    device: str | None = None,
    top: int = 5,
    warn: Callable[[str], None] = _warn,
    ten_crop: bool = False,
) -> list[Prediction]:
    """Names images, prepared as those the net was trained on: size, grey or colour, mean.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        images: image files.
        device: as for `convnet.backend.get`; None is "auto".
        top: how many classes to list.
        warn: told when a damaged checkpoint is passed over.
        ten_crop: average over ten crops, as for `convnet.evaluation.evaluate.evaluate`.

    Raises:
        DataError: a file that is not a usable image. CheckpointError, RunError, DeviceError.
    """
    trained = open_run(run, device, warn)
    rows = classify(trained, read_images(trained, images), ten_crop)
    found = []
    for image, row in zip(images, rows, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        names = tuple(trained.classes[index] for index in order)
        found.append(Prediction(os.fspath(image), names, tuple(float(row[i]) for i in order)))
    return found


def read_images(trained: Trained, images: Sequence[str | os.PathLike[str]]) -> Images:
    """Image files as the net takes them before the crop, uint8 [N, H, W, C].

    Raises:
        DataError: a file that is not a usable image.
    """
    height, width, channels = trained.image
    return np.stack([read_image(Path(image), (height, width), channels) for image in images])


def batches(trained: Trained, pixels: Images) -> Iterator[Batch]:
    """Images in the batches of the net's training, in order."""
    labels = np.zeros(len(pixels), np.int32)
    data = ArrayDataset(pixels, labels, trained.classes, "images")
    cfg = trained.cfg
    batch = min(cfg.train.batch, len(data))
    return Loader(data, batch, cfg.seed, cfg.augment, trained.stats, train=False).epoch(0)


def classify(trained: Trained, pixels: Images, ten_crop: bool = False) -> np.ndarray:
    """Probabilities of the classes, float64 [N, classes], of images uint8 [N, H, W, C]."""
    seen = views(trained.image, trained.cfg.augment, ten_crop)
    found = [
        probabilities(trained.net, trained.prepare, each, seen) for each in batches(trained, pixels)
    ]
    return np.concatenate(found)


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
