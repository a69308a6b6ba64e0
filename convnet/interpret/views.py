"""Images as a net sees them: the crop that it takes, as pixels and as its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convnet.data import DataError, Dataset
from convnet.data.dataset import Images
from convnet.evaluation.crops import crops_of
from convnet.evaluation.evaluate import Trained
from convnet.evaluation.predict import batches
from convnet.interpret.examples import Example
from convnet.layers.graph import input_names
from convnet.layers.loss import Loss

Vectors = npt.NDArray[np.float32]


def inputs_of(trained: Trained, pixels: Images) -> Vectors:
    """The input of the net, float32 [N, *in_shape] on the host, of images uint8 [N, H, W, C]."""
    backend = trained.net.backend
    found = [
        np.array(backend.to_host(trained.prepare(one)), np.float32)
        for one in batches(trained, pixels)
    ]
    return np.concatenate(found)


def cropped_pixels(trained: Trained, pixels: Images) -> Images:
    """What of an image [H, W, C] the net looks at; one that is shown larger is cut alike."""
    shape, augment = trained.image_shape, trained.cfg.augment
    (crop,) = crops_of(shape, augment, ten_crop=False)
    height, width = trained.prepare.crop
    factor = pixels.shape[0] / shape[0]
    top, left = (max(0, round(factor * start)) for start in (crop.row, crop.column))
    bottom, right = top + round(factor * height), left + round(factor * width)
    return pixels[top:bottom, left:right]


def scores_node(trained: Trained) -> str:
    """The node whose output are the scores of the classes, before the softmax.

    Raises: DataError: the net names no classes.
    """
    net = trained.net
    result = net.node_of(net.result)
    if net.classes is None or not isinstance(result.layer, Loss):
        raise DataError("expected a net that names classes, got one whose losses do not")
    return input_names(result)[0]


@dataclass(frozen=True)
class Seen:
    """Images and what the net makes of them.

    Attributes:
        examples: the images; x: float32 [N, *in_shape].
        probabilities: float32 [N, classes].
    """

    examples: Sequence[Example]
    x: Vectors
    probabilities: Vectors


def seen(trained: Trained, examples: Sequence[Example]) -> Seen:
    """Shows images to a net."""
    x = inputs_of(trained, np.stack([one.pixels for one in examples]))
    return Seen(examples, x, trained.net.predict(x))


def read_inputs(trained: Trained, data: Dataset, numbers: Sequence[int]) -> Vectors:
    """The input of the net for some images of a set."""
    return inputs_of(trained, data.read(np.asarray(numbers, np.int64)))
