"""How far long work is: told by what works, shown by whoever watches.

A loop that may take seconds says how far it is, and no more:

    with progress("checking", "files") as tell:
        for done, file in enumerate(files, 1):
            ...
            tell(done, len(files))

Nothing is shown unless a command has said how, by `shown_by`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Tell = Callable[[int, int], None]  # how many are done, and how many there are
Display = Callable[[str, str], contextlib.AbstractContextManager[Tell]]

_display: ContextVar[Display | None] = ContextVar("display", default=None)


def untold(done: int, total: int) -> None:
    """Tells nobody."""


@contextlib.contextmanager
def shown_by(display: Display | None) -> Iterator[None]:
    """Within the block, work is shown by `display(what, unit)`; None: it is not shown."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


@contextlib.contextmanager
def progress(what: str, unit: str) -> Iterator[Tell]:
    """Work whose progress may be shown; work within it is not shown besides.

    Args:
        what: it does, for example "checking".
        unit: of what is counted, for example "files".

    Yields:
        A function to be called, by one thread, with how many are done and how many there are.
    """
    display = _display.get()
    if display is None:
        yield untold
        return
    with shown_by(None), display(what, unit) as tell:
        yield tell


def counted(items: Iterable[T], total: int, what: str, unit: str, each: int = 1) -> Iterator[T]:
    """The same items, with progress.

    Args:
        total: how many things there are.
        what, unit: as for `progress`.
        each: how many of them an item is; the last may be fewer.
    """
    with progress(what, unit) as tell:
        for number, item in enumerate(items, 1):
            yield item
            tell(min(total, number * each), total)
