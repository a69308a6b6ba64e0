"""Calls in a process of their own, with little memory and time, for reading hostile files."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 512 << 20  # bytes beyond what this process has
SECONDS = 10  # of the process's own time
_PATIENCE = 100  # of any time, for calls that wait


def limited(function: Callable[[], Any], memory: int = MEMORY) -> Any:
    """What a function returns, or raises, in a forked process; it must not start threads of OpenMP.

    Raises: what the function raises; AssertionError: it crashed, or took more than `memory` bytes
        (where it does not notice) or `SECONDS`, or waits for ever.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS, int(used) + SECONDS))
        try:
            outcome = (True, function())
        except BaseException as error:  # all of it is for the parent
            outcome = (False, error)
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(write)
    try:
        content = b""
        while select.select([read], [], [], _PATIENCE)[0]:
            part = os.read(read, 1 << 16)
            if not part:
                break
            content += part
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(read)
        _, status = os.waitpid(child, 0)
    assert status == 0, f"the process ended with status {status} (9: too slow)"
    returned, value = pickle.loads(content)
    if returned:
        return value
    raise value
