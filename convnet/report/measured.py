"""What a net does with held-out images, as the page shows it: samples, confusion, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convnet.common.progress import counted
from convnet.data import DataError, Dataset
from convnet.data.dataset import Images
from convnet.data.workers.decoded import DecodedDataset
from convnet.evaluation.evaluate import Trained
from convnet.evaluation.metrics import Metrics
from convnet.evaluation.predict import classify
from convnet.interpret.examples import choose, large_image
from convnet.retrieval.features import features_of, last_hidden
from convnet.retrieval.image_set import image_names
from convnet.retrieval.knn import Euclidean

# A page is made in half a minute: so many images are looked at.
_MOST = 10_000  # images of a set in memory or in one file
_MOST_DECODED = 2_000  # of one whose images are decoded when they are read
_MACS_ON_HOST = 6e11  # multiply-adds of all of them together, where the host computes
_SEARCHED = 2_000  # training images among which neighbours are searched
_AT_A_TIME = 256
_LIKELIEST = 5  # classes of a sample

SUREST, WORST, CLOSEST = 6, 12, 6  # samples of each kind
QUERIES, NEIGHBOURS = 6, 6


@dataclass(frozen=True)
class Sample:
    """A held-out image and what the net makes of it.

    Attributes:
        name: of its file, or its number.
        pixels: uint8 [H, W, C].
        label: its class.
        classes, probabilities: the likeliest classes, likeliest first.
    """

    name: str
    pixels: Images
    label: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def right(self) -> bool:
        return self.classes[0] == self.label


@dataclass(frozen=True)
class Neighbour:
    """A training image: its pixels, its class, and whether that is the query's."""

    pixels: Images
    label: str
    same: bool


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        metrics: of the images that were looked at.
        images, of: how many these are, and how many held-out images there are.
        surest: right ones, likeliest first, of as many classes as there are.
        worst: wrong ones, those whose class was least likely first.
        closest: those whose two likeliest classes are most nearly as likely.
        rows: an image, and the training images nearest to it; layer: in the output of which node.
        searched: among how many training images.
    """

    metrics: Metrics
    images: int
    of: int
    surest: list[Sample]
    worst: list[Sample]
    closest: list[Sample]
    rows: list[tuple[Sample, list[Neighbour]]]
    layer: str
    searched: int


def measure_run(trained: Trained, training: Dataset, validation: Dataset) -> Measured:
    """Looks at held-out images, all or as many as time allows, of all classes alike.

    Args:
        trained: the net.
        training, validation: the sets of its run.
    """
    count = _affordable(trained, validation, _MACS_ON_HOST)
    numbers = np.sort(choose(validation, count, trained.cfg.seed))
    metrics = Metrics(trained.classes)
    found = _Outcomes.of(trained, validation, numbers, metrics)
    look = _Samples(trained.classes, validation, numbers, found)
    surest, worst, closest = found.chosen()
    rows, layer, searched = _neighbour_rows(trained, training, look)
    return Measured(
        metrics,
        len(numbers),
        len(validation),
        look.different(surest, SUREST),
        look.different(worst, WORST),
        look.different(closest, CLOSEST),
        rows,
        layer,
        searched,
    )


def _affordable(trained: Trained, data: Dataset, macs: float) -> int:
    """How many images may be looked at; `macs`: multiply-adds that a host may take for them."""
    most = _MOST_DECODED if isinstance(data, DecodedDataset) else _MOST
    if trained.net.backend.name == "cpu":
        most = min(most, int(macs / max(1, trained.net.macs)))
    return max(1, min(len(data), most))


@dataclass(frozen=True)
class _Outcomes:
    """Of the images looked at: their classes, their likeliest classes and how likely these are, and
    how likely the right one is."""

    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    chances: npt.NDArray[np.float64]
    own: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        trained: Trained,
        data: Dataset,
        numbers: npt.NDArray[np.int64],
        metrics: Metrics,
    ) -> _Outcomes:
        """Runs the net over images; adds them to the metrics."""
        orders, chances, owns = [], [], []
        labels = np.asarray(data.labels, np.int64)[numbers]
        starts = range(0, len(numbers), _AT_A_TIME)
        for first in counted(starts, len(numbers), "measuring", "images", _AT_A_TIME):
            part = slice(first, first + _AT_A_TIME)
            rows = classify(trained, data.read(numbers[part]))
            metrics.add(rows, labels[part])
            order = np.argsort(-rows, axis=1, kind="stable")[:, :_LIKELIEST]
            orders.append(order)
            chances.append(np.take_along_axis(rows, order, axis=1))
            owns.append(rows[np.arange(len(rows)), labels[part]])
        return cls(labels, *map(np.concatenate, (orders, chances, owns)))

    def chosen(self) -> tuple[list[int], list[int], list[int]]:
        """The places of images, those to show first: the surest right, the worst wrong, and those
        whose two likeliest classes are closest."""
        right = self.order[:, 0] == self.labels
        surest = _of_all_classes(np.flatnonzero(right), -self.chances[:, 0], self.labels)
        wrong = np.flatnonzero(~right)
        worst = wrong[np.lexsort((wrong, self.own[wrong]))].tolist()
        if self.chances.shape[1] < 2:
            return surest, worst, []
        margin = self.chances[:, 0] - self.chances[:, 1]
        return surest, worst, np.argsort(margin, kind="stable").tolist()


@dataclass(frozen=True)
class _Samples:
    """Makes samples of the images that were looked at."""

    classes: tuple[str, ...]
    data: Dataset
    numbers: npt.NDArray[np.int64]
    found: _Outcomes

    @cached_property
    def _names(self) -> list[str] | None:
        return image_names(self.data)

    def __call__(self, place: int) -> Sample:
        """One of them."""
        index, found = int(self.numbers[place]), self.found
        name = Path(self._names[index]).name if self._names else f"image {index}"
        pixels = large_image(self.data, index, self.data.read([index])[0])
        likeliest = tuple(self.classes[i] for i in found.order[place])
        chances = tuple(found.chances[place].tolist())
        return Sample(name, pixels, self.classes[found.labels[place]], likeliest, chances)

    def different(self, places: Sequence[int], count: int) -> list[Sample]:
        """The first `count` of them of which none is the copy of another."""
        samples: dict[bytes, Sample] = {}
        for place in places[: 4 * count]:
            if len(samples) < count:
                one = self(place)
                samples.setdefault(one.pixels.tobytes(), one)
        return list(samples.values())


def _of_all_classes(
    among: npt.NDArray[np.int64], key: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> list[int]:
    """The places with the smallest keys: first the first of each class, then the second, ..."""
    seen: dict[int, int] = {}
    turns = []
    for place in among[np.argsort(key[among], kind="stable")].tolist():
        label = int(labels[place])
        turns.append((seen.get(label, 0), key[place], place))
        seen[label] = seen.get(label, 0) + 1
    return [place for _, _, place in sorted(turns)]


def _neighbour_rows(
    trained: Trained, training: Dataset, look: _Samples
) -> tuple[list[tuple[Sample, list[Neighbour]]], str, int]:
    """Some images with the training images nearest to them in the last hidden layer; none where the
    net has no such layer."""
    try:
        layer = last_hidden(trained.net)
    except DataError:
        return [], "", 0
    labels = look.found.labels
    places = _of_all_classes(np.arange(len(labels)), np.zeros(len(labels)), labels)[:QUERIES]
    count = _affordable(trained, training, 0.3 * _MACS_ON_HOST)
    among = np.sort(choose(training, min(_SEARCHED, count), trained.cfg.seed))
    queries = _features(trained, layer, look.data, look.numbers[places])
    features = _features(trained, layer, training, among)
    near = Euclidean(len(among), lambda first, last: features[first:last])
    indices = near.nearest(queries, min(NEIGHBOURS, len(among))).indices
    rows = []
    for place, row in zip(places, indices, strict=True):
        query = look(place)
        rows.append((query, [_neighbour(training, int(among[i]), query.label) for i in row]))
    return rows, layer, len(among)


def _features(
    trained: Trained, layer: str, data: Dataset, numbers: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(numbers), _AT_A_TIME)]
    told = counted(parts, len(numbers), "searching", "images", _AT_A_TIME)
    return np.concatenate([features_of(trained, layer, data.read(numbers[part])) for part in told])


def _neighbour(data: Dataset, number: int, label: str) -> Neighbour:
    own = data.classes[data.labels[number]]
    return Neighbour(large_image(data, number, data.read([number])[0]), own, own == label)
