"""What a training run prints: lines, and on a terminal a live bar below them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


def duration(seconds: float) -> str:
    """Seconds as "0:07", "12:34" or "1:02:03"."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Reporter:
    """Prints the lines of a run and keeps them for its log file.

    Args:
        quiet: print nothing but warnings (the log is kept all the same).
        console: where to print; standard output by default. On a terminal there is a live bar.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._log: Callable[[str], None] | None = None
        self._early: list[str] = []
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self.on_hang_up: Callable[[], object] = lambda: None  # called when nobody reads any more

    def log_to(self, log: Callable[[str], None]) -> None:
        """From now on also writes to the run's log, and the lines before first."""
        self._log = log
        for text in self._early:
            log(text)
        self._early.clear()

    def block(self, label: str, *texts: str) -> None:
        """Lines that belong together, of which the first has a label."""
        for text in texts:
            self.line(f"{label:10}{text}")
            label = ""

    def line(self, text: str, always: bool = False) -> None:
        """One line for the reader and the log; `always`: even where the run is quiet."""
        self.note(text)
        if always or not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line on standard error, even where the run is quiet."""
        self._complain(f"warning: {text}")

    def error(self, text: str) -> None:
        """The error that ended the run, on standard error."""
        self._complain(f"error: {text}")

    def _complain(self, text: str) -> None:
        self.note(text)
        if self._bar is not None:
            self._print(f"convnet: {text}")
        else:
            with contextlib.suppress(OSError):
                print(f"convnet: {text}", file=sys.stderr)

    def step(self, text: str) -> None:
        """The metrics so far: a line in the log, and where there is no bar, on the output."""
        self.note(text)
        if not self.quiet and self._bar is None:
            self._print(text)

    def note(self, text: str) -> None:
        """A line for the log alone."""
        if self._log is None:
            self._early.append(text)
        else:
            with contextlib.suppress(OSError):  # a full disk: the metrics then say so
                self._log(text)

    def _print(self, text: str) -> None:
        try:
            self.console.print(text, markup=False, highlight=False)
        except (OSError, SystemExit):  # the terminal is gone, or (rich then ends programs) a reader
            if self.console.file is sys.stdout:  # which the interpreter flushes at its end
                sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            self.console.file = io.StringIO()
            self.quiet = True
            self.on_hang_up()

    def start_bar(self) -> None:
        """Shows the live bar, if the output is a terminal that can draw one (TERM is not dumb)."""
        drawn = self.console.is_terminal and not self.console.is_dumb_terminal
        if self.quiet or not drawn or self._bar is not None:
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[metrics]}", markup=False),
        )
        self._bar = Progress(*columns, console=self.console, transient=True, expand=True)
        self._task = self._bar.add_task("starting", total=1, metrics="")
        self._bar.start()

    def bar(self, what: str, done: int, total: int, text: str = "") -> None:
        """Moves the bar; without one, does nothing.

        Args:
            what: the part that runs, for example "epoch 2/12".
            done, total: how far that part is.
            text: the metrics beside it.
        """
        if self._bar is not None:
            self._bar.update(
                self._task, description=what, completed=done, total=total, metrics=text
            )

    @property
    def has_bar(self) -> bool:
        """Whether there is a live bar to move."""
        return self._bar is not None

    def stop_bar(self) -> None:
        """Takes the bar away; may be called again."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()
            self._bar = None

    def close(self) -> None:
        """Takes the bar away; what comes later is not written to the log."""
        self.stop_bar()
        self._log = None
