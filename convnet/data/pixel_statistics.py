"""The statistics of a data set, in one pass over its images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from convnet.common.progress import progress as shown_progress
from convnet.data.dataset import Dataset
from convnet.data.sums import Statistics, Sums

_READ_BYTES = 1 << 25  # uint8 bytes read at a time


def statistics(
    dataset: Dataset,
    mean: Literal["image", "channel", "none"] = "image",
    colour: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """The mean and the colour covariance of a data set; reads every image once.

    Args:
        dataset: the training images.
        mean: "image": one mean per place and channel; "channel": one per channel; "none": zeros.
        colour: whether to find the eigenvalues and eigenvectors too.
        progress: called with (images done, images in all) after each block.

    Returns:
        the mean and the axes of colour noise. Stored sums (`convnet data mean`) give the same bits
        without reading the images.

    Raises:
        DataError: an image cannot be read.

    Source: paper, section 2 (mean) and 4.1 (colour).
    """
    stored = dataset.stored_sums(colour)
    if stored is not None:
        return stored.statistics(mean, colour)
    sums = Sums.of_nothing(dataset.shape)
    count = len(dataset)
    step = max(1, _READ_BYTES // int(np.prod(dataset.shape)))
    if mean == "none" and not colour:
        return sums.statistics(mean, colour)
    with shown_progress("averaging", "images") as tell:
        for start in range(0, count, step):
            stop = min(start + step, count)
            sums.add(dataset.read(np.arange(start, stop, dtype=np.int64)), colour)
            (progress or tell)(stop, count)
    dataset.keep_sums(sums, colour)
    return sums.statistics(mean, colour)
