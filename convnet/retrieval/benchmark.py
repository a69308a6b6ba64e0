"""How good and how fast search is: features, codes of them, and raw pixels side by side.

Source: paper, section 6.1, says what each of them should be good for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convnet.common.progress import counted
from convnet.common.text import aligned
from convnet.data import Dataset
from convnet.data.dataset import mismatch, shown
from convnet.retrieval.index import Index, indexed_images, open_index
from convnet.retrieval.knn import Euclidean, Neighbours

_TIMED = 50  # queries that are timed, one after the other
_AT_ONCE = 512  # queries that are asked together for the precision

_KEPT = 1 << 30  # bytes of pixels, as float32, up to which they are kept in memory


@dataclass
class Row:
    """The result of one kind of search.

    Attributes:
        name: "pixels", "features", or "64 bits".
        precision: share of the k nearest that have the query's class, 0 .. 1, mean over queries.
        by_class: the same for the queries of each class; None where there are none.
        ms: milliseconds a query, the median of single queries; what is searched for is in memory,
            and making it (running the net on an image) is not counted.
        bytes_per_picture: bytes that are searched for each image.
    """

    name: str
    precision: float
    by_class: list[float | None]
    ms: float
    bytes_per_picture: int


@dataclass
class Report:
    """All rows, and what they were measured on."""

    k: int
    pictures: int
    queries: int
    classes: tuple[str, ...]
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "rows": [vars(row) for row in self.rows]}

    def text(self) -> str:
        """A table for people."""
        table: list[tuple[str, ...]] = [
            ("", f"precision at {self.k}", "ms a query", "bytes an image")
        ]
        for row in self.rows:
            numbers = f"{row.ms:.2f}", f"{row.bytes_per_picture:,}"
            table.append((row.name, _per_cent(row.precision), *numbers))
        text = f"{self.queries:,} queries among {self.pictures:,} images\n"
        text += aligned(table, left=1, totals=False)
        if len(self.classes) > 100:
            return text
        classes = [("by class", *(row.name for row in self.rows))]
        for number, name in enumerate(self.classes):
            classes.append((shown(name), *(_per_cent(row.by_class[number]) for row in self.rows)))
        return f"{text}\n\n{aligned(classes, left=1, totals=False)}"


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def retrieval(
    features: str | os.PathLike[str],
    queries: str | os.PathLike[str],
    codes: Sequence[str | os.PathLike[str]] = (),
    k: int = 10,
    most: int | None = None,
    pixels: bool = True,
    engine: str = "numpy",
) -> Report:
    """Measures searches for the images of one file of features among those of another.

    Args:
        features: what is searched; queries: what is searched for; files of `convnet features`, of
            the same layer of the same net. Their images should be different ones.
        codes: files of `convnet hash`, made from `features`.
        k: neighbours that count.
        most: use so many queries at most, spread evenly; None: all.
        pixels: also search by the raw pixels, as the net takes them before the crop; this reads
            all images for every 512 queries.
        engine: as for `convnet.retrieval.knn.Euclidean`.

    Returns:
        a row for each kind of search.

    Raises:
        DataError: files that do not belong together, without classes, or damaged; images that are
            gone or have changed.
    """
    index, asked = open_index(features, engine), open_index(queries)
    others = [open_index(path) for path in codes]
    _check_together(index, asked, others)
    chosen = np.arange(len(asked))
    if most is not None and most < len(asked):
        chosen = np.unique(np.linspace(0, len(asked) - 1, most).astype(np.int64))
    labels = asked.labels[chosen]
    report = Report(k, len(index), len(chosen), index.classes, [])
    searches = [_by_pixels(index, asked, k, engine)] if pixels else []
    searches.append(_by_index("features", index, asked, k))
    for other in others:
        bits = other.encoder.bits if other.encoder else 0
        searches.append(_by_index(f"{bits} bits", other, asked, k))
    for search in counted(searches, len(searches), "searching", "kinds of search"):
        found = search.found(chosen)
        right = (index.labels[found] == labels[:, None]).mean(axis=1)
        by_class = [
            float(right[labels == one].mean()) if (labels == one).any() else None
            for one in range(len(index.classes))
        ]
        ms, size = search.milliseconds(chosen), search.bytes_per_picture
        report.rows.append(Row(search.name, float(right.mean()), by_class, ms, size))
    return report


def _check_together(index: Index, asked: Index, codes: Sequence[Index]) -> None:
    for one in (index, asked):
        if one.kind != "features":
            raise mismatch(one.path, "features", "codes")
        if not one.classes or one.labels.min() < 0:
            raise mismatch(one.path, "images with classes", "some without")
    if asked.facts["net"] != index.facts["net"]:
        got = "those of another"
        raise mismatch(asked.path, f"features of the net and layer of {shown(index.path)}", got)
    if asked.classes != index.classes:
        got = f"{len(asked.classes)}, or others"
        raise mismatch(asked.path, f"the {len(index.classes)} classes of {shown(index.path)}", got)
    for one in codes:
        if one.kind != "codes":
            raise mismatch(one.path, "codes", "features")
        same = one.facts["data"]["sha256"] == index.facts["data"]["sha256"]
        if one.facts["net"] != index.facts["net"] or not same:
            raise mismatch(one.path, f"codes of {shown(index.path)}", "others")


@dataclass
class _Search:
    """One kind of search: how it prepares queries, given by number, and how it finds rows."""

    name: str
    prepare: Callable[[npt.NDArray[np.int64]], np.ndarray]
    ask: Callable[[np.ndarray], Neighbours]
    bytes_per_picture: int

    def found(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows that are found for all of these queries."""
        parts = [numbers[i : i + _AT_ONCE] for i in range(0, len(numbers), _AT_ONCE)]
        return np.concatenate([self.ask(self.prepare(part)).indices for part in parts])

    def milliseconds(self, numbers: npt.NDArray[np.int64]) -> float:
        """The median time of a single query, the first of which is not counted."""
        times = []
        for number in numbers[: _TIMED + 1]:
            query = self.prepare(np.array([number]))
            start = time.perf_counter()
            self.ask(query)
            times.append(time.perf_counter() - start)
        return 1000.0 * float(np.median(times[1:] or times))


def _by_index(name: str, index: Index, asked: Index, k: int) -> _Search:
    """A search for the features of the queries, or for their codes."""

    def prepare(numbers: npt.NDArray[np.int64]) -> np.ndarray:
        return index.encode(np.ascontiguousarray(asked.rows[numbers]))

    return _Search(
        name, prepare, lambda query: index.nearest_encoded(query, k), index.bytes_per_image
    )


def _by_pixels(index: Index, asked: Index, k: int, engine: str) -> _Search:
    """A search by the pixels of the images, as numbers from 0 to 255."""
    there, wanted = indexed_images(index), indexed_images(asked)
    size = int(np.prod(there.shape))
    kept = _flat(there, np.arange(len(there))) if 4 * size * len(there) <= _KEPT else None

    def rows(first: int, last: int) -> npt.NDArray[np.float32]:
        return _flat(there, np.arange(first, last)) if kept is None else kept[first:last]

    euclidean = Euclidean(len(there), rows, engine)
    return _Search(
        "pixels",
        lambda numbers: _flat(wanted, numbers),
        lambda query: euclidean.nearest(query, k),
        size,
    )


def _flat(dataset: Dataset, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return dataset.read(numbers).reshape(len(numbers), -1).astype(np.float32)
