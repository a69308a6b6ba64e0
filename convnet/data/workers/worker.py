"""A worker process of `convnet.data.workers.pool`: takes jobs and sends results until it is ended.

A worker does not outlive its parent. On Linux it is killed when the parent ends, also while it
reads a file that does not come; elsewhere it finds its socket closed when it looks for the next
job. It ignores Ctrl-C, which is the parent's to answer.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from convnet.data.dataset import DataError
from convnet.data.image import quiet_pillow

DONE, BAD_DATA, BROKEN = "done", "bad data", "broken"
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def main(parent: int, connection_fd: int, memory_fd: int | None) -> None:
    """Runs a worker.

    Args:
        parent: the process to end with. The system kills a worker when the *thread* that started it
            ends, so that must be one that lives as long as the worker is wanted.
        connection_fd: socket to the parent: first comes the task, then one (number, job) after the
            other; for each goes back (number, DONE, result), (number, BAD_DATA, message) or
            (number, BROKEN, traceback).
        memory_fd: a file descriptor of shared memory, which `task.attach` is given; None: there is
            none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        return
    connection: Connection = Connection(connection_fd)
    try:
        task = connection.recv()
        if memory_fd is not None:
            task.attach(memory_fd)
        connection.send((-1, DONE, os.getpid()))
        with quiet_pillow():
            while True:
                number, job = connection.recv()
                connection.send((number, *_done(task, job)))
    except (EOFError, ConnectionError):
        return  # the parent has closed the socket, or is gone


def _done(task: Callable[[Any], Any], job: Any) -> tuple[str, Any]:
    try:
        return DONE, task(job)
    except DataError as error:
        return BAD_DATA, str(error)
    except Exception:
        return BROKEN, traceback.format_exc()
