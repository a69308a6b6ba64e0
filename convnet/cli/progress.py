"""How far a command is, and how long it will take: a bar on a terminal, else lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown_progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows the progress of what runs within the block.

    Args:
        what: it does, for example "packing".
        unit: of what is counted, for example "images".

    Yields:
        A function to be called with how many are done, and how many there are.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, unit)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress as a line on standard error every ten seconds."""

    EVERY = 10.0

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._first: int | None = None
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        from convnet.training.progress import duration

        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last < self.EVERY or done == total:
            return
        self._last = now
        rate = (done - self._first) / (now - self._start)
        eta = f", ETA {duration((total - done) / rate)}" if rate > 0 else ""
        print(
            f"{self._what}: {done:,} of {total:,} {self._unit}, {rate:,.0f}/s{eta}", file=sys.stderr
        )
