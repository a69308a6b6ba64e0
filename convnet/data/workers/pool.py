"""Worker processes that do many small jobs: decoding, checking, packing images.

They are started as fresh Python processes (never forked, as the parent has threads and perhaps a
GPU; and never by `multiprocessing`, which would run the caller's main script again in each). Each
ends with the parent, even by SIGKILL. It is joined to it by one socket, so the parent notices when
it dies. A worker that dies is replaced, with a warning, and its jobs are done again; where that
does not help, the error says what it was working on.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from convnet.data.dataset import DataError
from convnet.data.folder.class_folders import usable_cpus
from convnet.data.workers.worker import BAD_DATA, BROKEN

_AT_ONCE = 2  # jobs a worker holds: it never waits for the next one
_DEATHS = 5  # of a pool's workers that are made good
_AHEAD = 4  # jobs per worker that `ordered` lets run ahead of the result it waits for
_AUTO_MOST = 16
_ITEMS = 16  # in a job of `each`

_SIGNALS = {int(one): one.name for one in signal.Signals}

# The worker's own libraries should not start threads: there is one worker for each CPU already.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class WorkerError(RuntimeError):
    """Worker processes that cannot be started, or that keep dying."""


class BadDataError(DataError):
    """What a worker's DataError is raised as here."""


def auto_workers() -> int:
    """How many workers to start where nobody says: one for each usable CPU, at most 16."""
    return min(usable_cpus(), _AUTO_MOST)


def warn_plainly(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


@dataclass
class _Job:
    number: int
    content: Any
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)


_Start = tuple[Future[subprocess.Popen[bytes]], Callable[[], subprocess.Popen[bytes]]]


def _start_all(to_start: queue.SimpleQueue[_Start | None]) -> None:
    """Starts processes until there is None."""
    while (item := to_start.get()) is not None:
        made, start = item
        try:
            made.set_result(start())
        except BaseException as error:
            made.set_exception(error)


class Pool:
    """Worker processes for one task. For one thread at a time; close it, or use it with `with`.

    Args:
        task: what the workers do with a job; it must pickle. A DataError it raises is raised again
            here.
        workers: how many processes, at least 1.
        memory: a file descriptor of shared memory to give to `task.attach` in each, or None.
        warn: called with a line of text when a worker died and was replaced.

    Raises:
        WorkerError: a process cannot be started.
    """

    def __init__(
        self,
        task: Callable[[Any], Any],
        workers: int,
        memory: int | None = None,
        warn: Callable[[str], None] = warn_plainly,
    ) -> None:
        self._task = pickle.dumps(task)
        self._memory = memory
        self._warn = warn
        self._deaths = 0
        self._todo: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        # A worker is killed when the thread that started it ends (see `worker.main`), and a pool's
        # caller may be one that only reads one epoch: so a thread of the pool's own starts them,
        # which lasts as long as the process (an executor's ends before).
        self._to_start: queue.SimpleQueue[_Start | None] = queue.SimpleQueue()
        starter = threading.Thread(
            target=_start_all, args=(self._to_start,), name="convnet-workers", daemon=True
        )
        starter.start()
        self._process = os.getpid()
        self._end = weakref.finalize(self, _end_all, self._workers, self._to_start)
        self.size = workers
        try:
            for _ in range(workers):
                self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers at once, whatever they are doing; may be called again."""
        self._end()

    @property
    def pids(self) -> list[int]:
        """The process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]

    def _start(self) -> None:
        if not self._end.alive:
            raise WorkerError("data workers: the pool is closed")
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from convnet.data.workers.worker import main;"
            f" main({os.getpid()}, {theirs.fileno()}, {self._memory!r})"
        )
        handles = [theirs.fileno()] + ([] if self._memory is None else [self._memory])
        try:
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                "pass_fds": handles,
                "env": {**os.environ, **_ENVIRONMENT},
                "process_group": 0,  # a Ctrl-C in the terminal is for the parent alone
            }
            made: Future[subprocess.Popen[bytes]] = Future()
            popen: Any = partial(subprocess.Popen, [sys.executable, "-c", code], **options)
            self._to_start.put((made, popen))
            process = made.result()
        except OSError as error:
            ours.close()
            raise WorkerError(
                f"data workers: expected to start {self.size} processes, got {error.strerror};"
                " data.workers=0 decodes without them"
            ) from None
        finally:
            theirs.close()
        worker = _Worker(process, Connection(ours.detach()))
        self._workers.append(worker)
        try:
            worker.connection.send_bytes(self._task)
        except OSError:
            self._bury(worker)

    # ---- jobs -----------------------------------------------------------------------------------

    def submit(self, number: int, job: Any) -> None:
        """Hands a job to the workers; `results` will name its number.

        Raises: WorkerError: the workers are those of the process that this one was forked from.
        """
        if os.getpid() != self._process:
            raise WorkerError(
                f"data workers: they belong to process {self._process}, which this one was forked"
                " from; expected one that makes a Loader of its own"
            )
        self._todo.append(_Job(number, job))
        self._hand_out()

    def results(self) -> list[tuple[int, Any]]:
        """Waits until at least one job is done.

        Returns:
            (number, result) of the jobs that are; the result of one that failed on its data is a
            `BadDataError`, to be raised where that is wanted.

        Raises:
            WorkerError: workers keep dying, or cannot start.
            RuntimeError: a job failed by a mistake in the program; with the worker's traceback.
        """
        while True:
            self._hand_out()
            if not self._workers:
                raise WorkerError("data workers: the pool is closed")
            by_connection = {worker.connection: worker for worker in self._workers}
            found = []
            for connection in wait(list(by_connection)):
                found += self._receive(by_connection[connection])  # type: ignore[index]
            if found:
                self._hand_out()
                return found

    def _receive(self, worker: _Worker) -> list[tuple[int, Any]]:
        try:
            number, how, result = worker.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._bury(worker)
            return []
        worker.ready = True
        if number < 0:
            return []
        worker.jobs.popleft()
        if how == BROKEN:
            raise RuntimeError(f"a data worker failed:\n{result}")
        return [(number, BadDataError(result) if how == BAD_DATA else result)]

    def _hand_out(self) -> None:
        """Gives jobs to the workers that hold the fewest, evenly."""
        for held in range(_AT_ONCE):
            for worker in list(self._workers):
                if self._todo and worker.ready and len(worker.jobs) == held:
                    worker.jobs.append(job := self._todo.popleft())
                    try:
                        worker.connection.send((job.number, job.content))
                    except OSError:
                        self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Replaces a worker that has died, and puts its jobs back."""
        self._workers.remove(worker)
        code = _end(worker)
        how = (
            f"exit code {code}"
            if code >= 0
            else f"killed by {_SIGNALS.get(-code, f'signal {-code}')}"
        )
        if not worker.ready and code >= 0:  # it would fail in the same way again
            raise WorkerError(
                f"data worker {worker.process.pid}: expected it to start, got its end ({how});"
                " data.workers=0 decodes without workers"
            )
        self._deaths += 1
        memory = " (is the machine short of memory?)" if code == -signal.SIGKILL else ""
        if worker.jobs:
            suspect = worker.jobs[0]
            suspect.deaths += 1
            if suspect.deaths > 1:
                raise WorkerError(
                    f"data workers: two died in the same job, the second by {how}{memory}:"
                    f" {' '.join(str(suspect.content).split()):.300}"
                )
        if self._deaths > _DEATHS:
            raise WorkerError(
                f"data workers: {self._deaths} have died, the last {how}{memory}; fewer of them"
                " (data.workers) take less memory"
            )
        self._todo.extendleft(reversed(worker.jobs))
        self._warn(f"data worker {worker.process.pid} died, {how}{memory}; started another")
        self._start()

    def ordered(self, jobs: Iterable[Any]) -> Iterator[Any]:
        """The results of jobs, in their order; a few of them are worked on ahead.

        Raises:
            DataError: of the first job that failed on its data. WorkerError, RuntimeError.
        """
        waiting = enumerate(jobs)
        done: dict[int, Any] = {}
        sent = 0
        for given in itertools.count():
            for job in itertools.islice(waiting, _AHEAD * self.size - (sent - given)):
                self.submit(*job)
                sent += 1
            if given == sent:
                return
            while given not in done:
                done.update(self.results())
            result = done.pop(given)
            if isinstance(result, BadDataError):
                raise result
            yield result


def each(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    workers: int | None,
    warn: Callable[[str], None] = warn_plainly,
) -> Generator[Any, None, None]:
    """function(item) of every item, in order, computed by worker processes.

    Args:
        function: must pickle.
        workers: how many processes; None: one for each usable CPU, at most 16.
        warn: called with a line of text when a worker died and was replaced.

    Raises:
        DataError: of the first item that failed on its data. WorkerError, RuntimeError.
    """
    rest = iter(items)
    jobs = iter(lambda: list(itertools.islice(rest, _ITEMS)), [])
    with Pool(partial(_all, function), workers or auto_workers(), warn=warn) as pool:
        for results in pool.ordered(jobs):
            yield from results


def _all(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    return [function(item) for item in items]


def _end(worker: _Worker) -> int:
    """Ends a worker if it is still there; returns its exit code."""
    worker.connection.close()
    try:  # its socket closes a moment before there is an exit code
        return worker.process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()


def _end_all(workers: list[_Worker], to_start: queue.SimpleQueue[_Start | None]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
    workers.clear()
    to_start.put(None)
