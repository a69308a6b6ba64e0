"""Classifying images with a trained net."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet.common.progress import progress
from convnet.data import ArrayDataset, Batch, DataError
from convnet.data.dataset import Images
from convnet.data.folder.image_folder import WAY_OUT
from convnet.evaluation.crops import crops_of, probabilities
from convnet.evaluation.evaluate import Trained, as_warning, loader_of, open_run
from convnet.evaluation.given_images import Given, given_images, pixels_of, read_given

_BAR = 24  # characters of a probability of 1
_AT_A_TIME = 256  # images that are in memory
_LISTED = 20  # predictions in a repr; of more, the first and the last


@dataclass(frozen=True)
class Prediction:
    """The classes that `predict` finds for one image.

    Attributes:
        image: the file, or "image 3" for the fourth of what has no name.
        classes: names of the likeliest classes, likeliest first.
        probabilities: of these, from 0 to 1.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """{"image": ..., "classes": [...], "probabilities": [...]}."""
        return {name: [*value] if name != "image" else value for name, value in vars(self).items()}

    def __str__(self) -> str:
        pairs = zip(self.classes, self.probabilities, strict=True)
        return f"{self.image}: {', '.join(f'{name} {100 * p:.1f} %' for name, p in pairs)}"

    def __repr__(self) -> str:
        return f"<Prediction {self}>"


class Predictions(list[Prediction]):
    """A list of predictions that shows itself as a line for each."""

    def __repr__(self) -> str:
        lines = list(map(str, self))
        if len(lines) > _LISTED:
            half = _LISTED // 2
            lines[half:-half] = [f"... {len(lines) - 2 * half:,} more ..."]
        return "\n".join(lines) or "no predictions"


def predict(
    run: str | os.PathLike[str],
    images: Any,
    device: str | None = None,
    top: int = 5,
    warn: Callable[[str], None] = as_warning,
    ten_crop: bool = False,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> Predictions:
    """Classifies images, which are prepared as in training: size, grey or colour, mean.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        images: one image or a sequence of them, each a file; a folder, for all images in it, at any
            depth; one of Pillow's; or an array [H, W] or [H, W, C] of uint8 or of numbers from 0
            to 1, of any size. An array [N, H, W, C] is N images.
        device: as for `convnet.train`; None is "auto".
        top: how many classes to list, at least 1.
        warn: called with a message when a damaged checkpoint is passed over, or a bad file.
        ten_crop: average over ten crops, as for `convnet.evaluation.evaluate.evaluate`.
        overrides: changes of the run's configuration: "data.bad_files=skip" leaves out files that
            are no usable images, with a warning.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns: a list with one `Prediction` for each image, in order.

    Raises:
        DataError: a file that is not a usable image, a folder without any.
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
        ConfigError: an override that does not fit.
    """
    asked = given_images(images)
    trained = open_run(run, device, warn, overrides, code)
    return Predictions(predict_each(trained, asked, top, warn, ten_crop))


def predict_each(
    trained: Trained,
    asked: Sequence[Given],
    top: int = 5,
    warn: Callable[[str], None] = as_warning,
    ten_crop: bool = False,
) -> Iterator[Prediction]:
    """As `predict`, one by one: some images are read at a time. Raises: DataError."""
    with progress("predicting", "images") as tell:
        for start in range(0, len(asked), _AT_A_TIME):
            part = asked[start : start + _AT_A_TIME]
            named = []
            read = read_given(part, trained.image_shape, trained.cfg.data.resize)
            for one, pixels in zip(part, read, strict=True):
                if not isinstance(pixels, DataError):
                    named.append((one.name, pixels))
                elif trained.cfg.data.bad_files == "skip":
                    warn(f"left out: {pixels}")
                else:
                    raise DataError(f"{pixels}; {WAY_OUT}")
            if named:
                rows = classify(trained, np.stack([pixels for _, pixels in named]), ten_crop)
                for (name, _), row in zip(named, rows, strict=True):
                    yield Prediction(name, *likeliest(trained, row, top))
            tell(start + len(part), len(asked))


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
    return pixels_of(images, trained.image_shape, trained.cfg.data.resize)


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
