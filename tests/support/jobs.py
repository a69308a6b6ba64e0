"""Tasks for worker processes, in a module that these can import."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path


class Shouting:
    """Turns words into capitals; some words do harm."""

    def __call__(self, job: str) -> str:
        if job == "die":
            os._exit(7)
        if job == "break":
            raise KeyError(job)
        if job == "sleep":
            time.sleep(600)
        if job.startswith("read "):  # of a FIFO that nobody writes to
            Path(f"{job[5:]}.begun").touch()
            return Path(job[5:]).read_text()
        if job.startswith("hold "):  # the interpreter, as a decoder may that takes long
            Path(f"{job[5:]}.begun").touch()
            ctypes.PyDLL(None).sleep(600)
        return job.upper()


class Unstartable(Shouting):
    """Ends its process before the first job."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)
