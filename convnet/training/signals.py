"""What asks a run to end: signals, and an output that nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Notes SIGINT, SIGTERM and SIGHUP (a terminal that closes) while a run can end in good order;
    in the main thread only. What the process was started to ignore, as by nohup, stays ignored.

    A second SIGINT raises KeyboardInterrupt at once. `received` is the first signal, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hang_up(self) -> None:
        """As SIGHUP: what the run prints goes nowhere."""
        self.received = self.received or signal.SIGHUP

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            self.received = number
            text = "\nfinishing this step, then saving (Ctrl-C again stops at once)\n"
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, text.encode())  # safe in a handler, where print is not
