"""Running sums of a run: what its nets get right, and how fast they are."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np


@dataclass
class Tally:
    """Sums over images.

    Attributes:
        loss: the sum of the losses.
        right, in_five: images whose class was the likeliest, or among the five likeliest.
        images: how many there were.
    """

    loss: float = 0.0
    right: float = 0
    images: float = 0
    in_five: float = 0

    def add(self, loss: float, rank: np.ndarray) -> None:
        """One batch: the sum of its losses, and how many classes came before that of each image."""
        self.loss += loss
        self.right += int(np.count_nonzero(rank == 0))
        self.images += len(rank)
        self.in_five += int(np.count_nonzero(rank < 5))

    def means(self, five: bool = False) -> dict[str, float]:
        """{"loss": mean, "top1": per cent} and, where wanted, {"top5": per cent}."""
        count = max(1, self.images)
        found = {"loss": self.loss / count, "top1": 100.0 * self.right / count}
        return {**found, "top5": 100.0 * self.in_five / count} if five else found

    def sums(self) -> tuple[float, ...]:
        """What `Tally(*sums)` makes again."""
        return astuple(self)


class Clock:
    """Time spent training since the last reset, and the part of it waiting for data."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.waited = 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Counts one step."""
        self.images += images
        self.seconds += seconds
        self.waited += waited

    def rates(self) -> dict[str, float]:
        """{"images_per_s": ..., "wait": per cent of the time}."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_s": round(self.images / seconds, 1),
            "wait": round(min(100.0, 100.0 * self.waited / seconds), 2),
        }
