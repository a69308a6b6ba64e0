"""Views of an image at test time: the centre crop, the paper's ten crops, or cuda-convnet's nine.

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
from convnet.training.setup import Preparer


class View(NamedTuple):
    """A crop: its first row and column in the image, and whether it is mirrored."""

    row: int
    column: int
    mirror: bool


def views(
    shape: tuple[int, int, int], augment: AugmentConfig, ten_crop: bool, nine_crop: bool = False
) -> list[View]:
    """The views to average: the centre, the ten crops of the paper in its order, or nine.

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
        return [View(down, across, False) for down in rows for across in columns]
    if not ten_crop:
        return [View(row, column, False)]
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (row, column)]
    return [View(*place, mirror) for mirror in (False, True) for place in places]


def look(batch: Batch, view: View) -> Batch:
    """The batch, as seen in this view."""
    count = len(batch)
    return replace(
        batch,
        offsets=np.tile(np.array([view.row, view.column], np.int32), (count, 1)),
        mirror=np.full(count, view.mirror, np.uint8),
        noise=None,
    )


def probabilities(net: Net, prepare: Preparer, batch: Batch, seen: Sequence[View]) -> np.ndarray:
    """The mean of the softmax over the views, float64 [N, classes].

    Equal views, which there are where the crop is the whole image, are computed once.

    Raises: ValueError: the net tells no classes apart.
    """
    if net.classes is None:
        raise ValueError("expected a net that names classes, got one whose losses do not")
    total = np.zeros(())
    for view in dict.fromkeys(seen):
        one = net.predict(prepare(look(batch, view)))
        total = total + seen.count(view) * one.astype(np.float64)
    return total / len(seen)
