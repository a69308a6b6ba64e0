"""Means, spreads, and tables in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """Equal measurements from several seeds.

    Attributes:
        mean: of the values; infinite where one is.
        spread: their standard deviation, that of a sample (divided by n - 1); 0 of a single one.
        count: how many.
    """

    mean: float
    spread: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.spread:.2f}" if self.count > 1 else "")


def measured(values: Sequence[float]) -> Measured:
    """Mean and spread of one or more values.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("measured: expected at least one value, got none")
    mean = statistics.fmean(values)
    several = len(values) > 1 and math.isfinite(mean)
    return Measured(mean, statistics.stdev(values) if several else 0.0, len(values))


def difference(value: Measured, base: Measured) -> Measured:
    """value - base, with the spread of a difference of two such values."""
    spread = math.hypot(value.spread, base.spread)
    return Measured(value.mean - base.mean, spread, min(value.count, base.count))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column to the left, the others to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put_into(document: Path, name: str, table: str) -> None:
    """Replaces a table in a document: what stands between `<!-- name -->` and `<!-- end -->`.

    Raises:
        ValueError: there is no such place.
    """
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not (begin and end):
        raise ValueError(
            f"{document}: expected <!-- {name} --> and <!-- end -->, got no such place"
        )
    document.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
