"""Signals as they are where nothing ignores them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def by_default() -> Iterator[None]:
    """Within it a hangup and Ctrl-C do what they do by default, to this process and to those that
    it starts: `nohup pytest` ignores the first, pytest in the background of a script the second,
    and what ignores a signal goes on doing so in its children."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGHUP, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        )
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
