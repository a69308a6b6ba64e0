"""The curves of a run, made from the lines of its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Record = Mapping[str, Any]

_SHORT = 0.75  # of the usual window: one that is shorter is joined to the one before it
_MEANS = ("loss", "top1")


@dataclass(frozen=True)
class Curves:
    """What to draw of a run.

    Attributes:
        unit: of `at_step` and `at_epoch`: "epoch", or "step" before the first epoch is over.
        steps: the records of steps, with short windows joined; at_step: where each ends.
        epochs: the records of epochs; at_epoch: their numbers.
    """

    unit: str
    steps: list[Record]
    at_step: list[float]
    epochs: list[Record]
    at_epoch: list[float]

    @property
    def five(self) -> bool:
        """Whether the error among the five likeliest classes says anything: not with five classes
        or fewer, where it is always 0."""
        return any(record.get("val_top5", 100.0) < 100.0 for record in self.epochs)


def curves_of(records: Sequence[Record]) -> Curves:
    """The curves of a run.

    Args:
        records: the lines of a metrics.jsonl.
    """
    steps, epochs = ([r for r in records if r["kind"] == kind] for kind in ("step", "epoch"))
    steps = joined_windows(steps)
    per_epoch = epochs[0]["step"] / max(1, epochs[0]["epoch"]) if epochs else 1.0
    at_step = [record["step"] / max(per_epoch, 1e-9) for record in steps]
    unit = "epoch" if epochs else "step"
    return Curves(unit, steps, at_step, epochs, [float(record["epoch"]) for record in epochs])


def joined_windows(steps: Sequence[Record]) -> list[Record]:
    """The records of steps, where a window that is much shorter than usual is joined to the one
    before it: the last of an epoch may sum up a single batch, whose mean is mostly noise."""
    ends = [record["step"] for record in steps]
    lengths = [end - before for before, end in zip([0, *ends], ends, strict=False)]
    usual = median(lengths) if lengths else 0
    joined: list[Record] = []
    weight = 0
    for record, length in zip(steps, lengths, strict=True):
        same = bool(joined) and joined[-1].get("epoch") == record.get("epoch")
        if same and 0 < length < _SHORT * usual:
            before, total = joined[-1], weight + length
            means = {
                key: (weight * before[key] + length * record[key]) / total
                for key in _MEANS
                if key in before and key in record
            }
            joined[-1], weight = {**record, **means}, total
        else:
            joined.append(record)
            weight = max(length, 1)
    return joined


def thinned(
    x: Sequence[float], y: Sequence[float], most: int = 300
) -> tuple[list[float], list[float]]:
    """A curve of at most `most` points: means of neighbours, where there are more."""
    size = -(-len(x) // most)
    if size <= 1:
        return list(x), list(y)
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    return [x[p][-1] for p in parts], [sum(y[p]) / len(y[p]) for p in parts]
