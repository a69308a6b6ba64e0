"""Metrics of an evaluation, in all and by class, and tables of them as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnet.training.tally import Tally


class Metrics:
    """Sums over the images of an evaluation.

    Args:
        classes: their names.

    Attributes:
        tally: the loss, and how many images were right, in all.
        confusion: int64 [classes, classes]; row: the class of the image, column: the class that the
            net finds likeliest.
        in_five: int64 [classes], images whose class was among the five likeliest.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.tally = Tally()
        self.confusion = np.zeros((len(classes), len(classes)), np.int64)
        self.in_five = np.zeros(len(classes), np.int64)

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """One batch: probabilities [N, classes] and the right classes [N].

        As in training, a class that is as likely as the right one counts as likelier where it comes
        first. The loss of an image is -log of the probability of the right class.
        """
        own = probabilities[np.arange(len(labels)), labels]
        first = np.arange(probabilities.shape[1]) < labels[:, None]
        above = probabilities > own[:, None]
        rank = (above | (first & (probabilities == own[:, None]))).sum(axis=1)
        least = np.finfo(np.float32).tiny  # a probability that is 0 in float32 is not known better
        self.add_ranked(-np.log(np.maximum(own, least)), rank, probabilities.argmax(1), labels)

    def add_ranked(
        self, losses: np.ndarray, rank: np.ndarray, guesses: np.ndarray, labels: np.ndarray
    ) -> None:
        """One batch: of each image the loss, the rank of the right class (0: the likeliest), the
        likeliest class, and the right class."""
        self.tally.add(float(np.sum(losses, dtype=np.float64)), rank)
        np.add.at(self.confusion, (labels, guesses), 1)
        np.add.at(self.in_five, labels[rank < 5], 1)

    def means(self) -> dict[str, float]:
        """{"loss": mean, "top1": per cent, "top5": per cent}."""
        return self.tally.means(five=True)

    def confusions(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent ones, that first: a class, what its images were taken for, how often.

        Args:
            most: how many; there may be fewer.
        """
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        places = (divmod(int(flat), len(self.classes)) for flat in order)
        return [(i, j, int(wrong[i, j])) for i, j in places if wrong[i, j]]

    def rows(self) -> list[dict[str, Any]]:
        """For each class: its images, how many were right (top-1, top-5), the share of them in
        per cent, how often the class was named, and the share of that which was right."""
        images, named = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        right = self.confusion.diagonal()
        return [
            {
                "class": name,
                "pictures": int(images[index]),
                "right": int(right[index]),
                "right_in_five": int(self.in_five[index]),
                "top1": _per_cent(right[index], images[index]),
                "top5": _per_cent(self.in_five[index], images[index]),
                "named": int(named[index]),
                "precision": _per_cent(right[index], named[index]),
            }
            for index, name in enumerate(self.classes)
        ]

    def write(self, folder: Path) -> list[Path]:
        """Writes classes.csv, the rows of `rows`, and confusion.csv, whose first column is the
        class of the image and whose others count what it was taken for.

        Raises:
            OSError: a file cannot be written.
        """
        table = self.rows()
        lines = [list(table[0]), *([*row.values()] for row in table)]
        square: list[list[Any]] = [["class", *self.classes]]
        square += [
            [name, *map(int, row)] for name, row in zip(self.classes, self.confusion, strict=True)
        ]
        paths = [folder / "classes.csv", folder / "confusion.csv"]
        for path, content in zip(paths, (lines, square), strict=True):
            with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                csv.writer(file, lineterminator="\n").writerows(content)
        return paths


def _per_cent(part: int, whole: int) -> str:
    """With two decimals; empty where there is nothing to take a part of."""
    return f"{100.0 * part / whole:.2f}" if whole else ""
