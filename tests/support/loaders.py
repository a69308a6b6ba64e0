"""Small sets in memory, and how their images are varied."""

from __future__ import annotations

import numpy as np

from convnet.config import AugmentConfig
from convnet.data import ArrayDataset

PLAIN = AugmentConfig()
VARIED = AugmentConfig(
    crop=(6, 5), pad=1, mirror=True, colour_noise=0.1, scale=(0.5, 1.5), rotate=30.0
)


def dataset(count: int = 50, shape: tuple[int, int, int] = (8, 7, 3)) -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return ArrayDataset(images, np.arange(count) % 10, [str(i) for i in range(10)], "numbers")
