"""A worker process of `convnet.data.workers`: takes jobs and sends results until it is ended.

The parent's end of the socket closes when the parent ends, however it ends; the worker then reads
the end of the file and ends too. It ignores Ctrl-C, which is the parent's to answer.
"""

from __future__ import annotations

import os
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any, Protocol

from convnet.data.dataset import DataError
from convnet.data.picture import quiet_pillow

DONE, BAD_DATA, BROKEN = "done", "bad data", "broken"


class Task(Protocol):
    """What workers do: sent to each once, as a pickle, and called with every job."""

    def attach(self, memory: int | None) -> None:
        """Called once in the worker with a file descriptor of shared memory, or None."""

    def __call__(self, job: Any) -> Any:
        """Does one job. A DataError is raised again in the parent."""


def main(connection_fd: int, memory_fd: int | None) -> None:
    """Runs a worker.

    Args:
        connection_fd: socket to the parent: first comes the task, then one (number, job) after the
            other; for each goes back (number, DONE, result), (number, BAD_DATA, message) or
            (number, BROKEN, traceback).
        memory_fd: what `Task.attach` is given.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection = Connection(connection_fd)
    try:
        task = connection.recv()
        task.attach(memory_fd)
        connection.send((-1, DONE, os.getpid()))
        with quiet_pillow():
            while True:
                number, job = connection.recv()
                connection.send((number, *_done(task, job)))
    except (EOFError, ConnectionError):
        return  # the parent has closed the socket, or is gone


def _done(task: Task, job: Any) -> tuple[str, Any]:
    try:
        return DONE, task(job)
    except DataError as error:
        return BAD_DATA, str(error)
    except Exception:
        return BROKEN, traceback.format_exc()
