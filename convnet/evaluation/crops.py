"""Crops of an image at test time: the centre, the paper's ten, or cuda-convnet's nine.

The softmax outputs are averaged. Source: paper, section 4.1: the four corners and the centre, and
their mirror images, as in cuda-convnet2's multi-view test. The first cuda-convnet, whose results on
CIFAR-10 the paper cites, took nine crops without mirror images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convnet.config import AugmentConfig
from convnet.data import Batch
from convnet.data.augment import centre, crop_size
from convnet.nn.net import Net
from convnet.training.inputs import Preparer


class Crop(NamedTuple):
    """A crop: its first row and column in the image, and whether it is mirrored."""

    row: int
    column: int
    mirror: bool


def crops_of(
    shape: tuple[int, int, int], augment: AugmentConfig, ten_crop: bool, nine_crop: bool = False
) -> list[Crop]:
    """The crops to average: the centre, the ten crops of the paper in its order, or nine.

    Args:
        shape: (H, W, C) of the images.
        augment: its `crop` is used.
        ten_crop: whether to take the corners and the mirror images too.
        nine_crop: whether to take the corners, the middles of the sides and the centre, row by row.

    Raises: ValueError where both are wanted.
    """
    if ten_crop and nine_crop:
        raise ValueError("expected ten crops or nine, got both")
    row, column = (int(number) for number in centre(1, shape, augment).offsets[0])
    height, width = crop_size(shape, augment)
    bottom, right = shape[0] - height, shape[1] - width
    if nine_crop:
        rows, columns = (0, row, bottom), (0, column, right)
        return [Crop(down, across, False) for down in rows for across in columns]
    if not ten_crop:
        return [Crop(row, column, False)]
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (row, column)]
    return [Crop(*place, mirror) for mirror in (False, True) for place in places]


def cropped(batch: Batch, crop: Crop) -> Batch:
    """The batch with this crop of every image."""
    return replace(
        batch,
        offsets=np.tile(np.array(crop[:2], np.int32), (len(batch), 1)),
        mirror=np.full(len(batch), crop.mirror, np.uint8),
        noise=None,
    )


def probabilities(net: Net, prepare: Preparer, batch: Batch, crops: Sequence[Crop]) -> np.ndarray:
    """The mean of the softmax over the crops, float64 [N, classes].

    Equal crops, which there are where the crop is the whole image, are computed once.

    Raises: ValueError: the net has no output of probabilities.
    """
    if net.classes is None:
        raise ValueError("expected a net that names classes, got one whose losses do not")
    total = np.zeros(())
    for crop in dict.fromkeys(crops):
        one = net.predict(prepare(cropped(batch, crop)))
        total = total + crops.count(crop) * one.astype(np.float64)
    return total / len(crops)
