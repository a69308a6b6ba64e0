"""How far a command is, and how long it will take: a bar on a terminal, else lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from convnet.common.progress import Tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

AFTER = 1.0  # seconds until a bar appears


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def bar(what: str, unit: str) -> Iterator[Tell]:
    """A bar on standard error for what takes longer than a second; where none can be drawn (no
    terminal, or one that cannot move its cursor), a line every ten seconds.

    Arguments as for `convnet.common.progress.progress`, which shows by it.
    """
    console = _console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(what, unit)
        return
    with contextlib.closing(_LateBar(console, what, unit)) as tell:
        yield tell


class _LateBar:
    """A bar that appears when a second has passed and there is still something to do, also where
    the first thing to be counted takes longer than that."""

    def __init__(self, console: Console, what: str, unit: str) -> None:
        self._console, self._what, self._unit = console, what, unit
        self._shown: tuple[Progress, TaskID] | None = None
        self._done, self._total = 0, -1  # total: below 0 until it is told
        self._open, self._lock = True, threading.Lock()
        self._timer = threading.Timer(AFTER, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, done: int, total: int) -> None:
        with self._lock:
            self._done, self._total = done, total
            self._update()

    def _update(self) -> None:
        if self._shown is not None and self._total >= 0:
            shown, task = self._shown
            count = f"{self._done:,}/{self._total:,} {self._unit}"
            shown.update(task, completed=self._done, total=self._total, count=count)

    def _appear(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        with self._lock:
            if not self._open or self._done == self._total:
                return
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            # What is printed meanwhile may go to a file.
            shown = Progress(*columns, console=self._console, transient=True, redirect_stdout=False)
            self._shown = shown, shown.add_task(self._what, total=None, count=self._unit)
            self._update()
            shown.start()

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._open = False
            if self._shown is not None:
                self._shown[0].stop()


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
