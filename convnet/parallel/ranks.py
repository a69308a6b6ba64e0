"""The processes of a job that trains one net together, and what they tell each other.

MPI calls a process a rank. The transport is MPI's (mpi4py, extra "mpi"); gradients of nets on GPUs
go through NCCL (`convnet.parallel.buckets`). A rank that fails ends the job (MPI_Abort), and so do
the others when one hangs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar, cast

import numpy as np

from convnet import backend as backends
from convnet.backend import Array
from convnet.common import distribution, environment
from convnet.common.exit_codes import FAILED, complain, explain

T = TypeVar("T")

_WAITING = 77  # tag of the messages of ranks that have waited too long
# Set by mpiexec of MPICH and its relatives, of Open MPI, and by srun.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")


class RanksError(RuntimeError):
    """A process of the job does not take part any more; the message says which."""

    exit_code = FAILED


class Ranks:
    """The processes of a job, and this one's place among them; by default it is alone.

    Attributes:
        rank, size: which of how many.
        local: (rank, size) among the processes on this machine.
    """

    rank, size = 0, 1
    local = (0, 1)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """first and last + 1 of this process's part of `count` things."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in rank 0, in every rank."""
        return make()

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks, float64."""
        return [float(value) for value in values]

    def any(self, value: bool) -> bool:
        """Whether it is true in some rank."""
        return value

    def each(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value]

    def start_sum(self, flat: Array) -> Callable[[], bool]:
        """Begins to add up an array over all ranks, in place; call the result until it is true."""
        return lambda: True

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Waits until it is true; `what` the ranks do together.

        Raises: RanksError where some rank has not taken part within the time-out.
        """
        while not done():
            os.sched_yield()  # there may be more processes than cores

    def abort(self, code: int) -> None:
        """Ends all processes of the job, where there are others."""

    @contextlib.contextmanager
    def guard(self) -> Iterator[Ranks]:
        """A `with` block in which an error of this rank ends the whole job."""
        try:
            yield self
        except BaseException as error:
            if self.size > 1:
                _end_with(error, self)
            raise


def _end_with(error: BaseException, ranks: Ranks) -> None:
    """Says what one process of several has come to, and ends them all."""
    if isinstance(error, Exception):
        code, message = explain(error)
    else:
        code, message = 128 + signal.SIGINT, "stopped"
    if not ranks.first:  # what all ranks find is said once
        time.sleep(1.5)
    complain(f"rank {ranks.rank} of {ranks.size}: {message}")
    sys.stderr.flush()
    sys.stdout.flush()
    time.sleep(0.5)  # mpiexec passes on what it has read before it ends the processes
    ranks.abort(code)


class MpiRanks(Ranks):
    """The processes that mpiexec started.

    No rank waits for another for ever: all that they do together is begun and then asked for until
    CONVNET_MPI_TIMEOUT seconds have passed (300 by default).
    """

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self.timeout = environment.seconds("CONVNET_MPI_TIMEOUT", 300)
        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        near = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local = near.Get_rank(), near.Get_size()
        near.Free()

    def from_first(self, make: Callable[[], T]) -> T:
        return cast(T, self.each(make() if self.first else None)[0])

    def total(self, values: Sequence[float]) -> list[float]:
        sums = np.array(values, np.float64)
        self._end(self.comm.Iallreduce(self._mpi.IN_PLACE, sums), "a sum")
        return [float(value) for value in sums]

    def any(self, value: bool) -> bool:
        return self.total([value])[0] > 0.0

    def each(self, value: T) -> list[T]:
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        own = np.array([data.size], np.int64)
        self._end(self.comm.Iallgather(own, sizes), "what all tell")
        held = np.empty(int(sizes.sum()), np.uint8)
        self._end(self.comm.Iallgatherv(data, [held, sizes.tolist()]), "what all tell")
        parts = np.split(held, np.cumsum(sizes)[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

    def start_sum(self, flat: Array) -> Callable[[], bool]:
        request = self.comm.Iallreduce(self._mpi.IN_PLACE, flat)
        return lambda: bool(request.Test())

    def wait(self, done: Callable[[], bool], what: str) -> None:
        start = time.monotonic()
        while not done():
            waited = time.monotonic() - start
            if waited > self.timeout:
                self._late(what)
            if waited < 0.01:
                os.sched_yield()
            else:
                time.sleep(1e-4)

    def _end(self, request: Any, what: str) -> None:
        self.wait(lambda: bool(request.Test()), what)

    def _late(self, what: str) -> NoReturn:
        """The ranks that do not wait as this one does; those that do tell all others."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        word, heard = np.zeros(1, np.uint8), set[int]()
        sent = [self.comm.Isend(word, rank, _WAITING) for rank in others]
        end = time.monotonic() + min(10.0, max(1.0, self.timeout / 4))
        while len(heard) < len(others) and time.monotonic() < end:
            for rank in others:
                if rank not in heard and self.comm.Iprobe(rank, _WAITING):
                    self.comm.Recv(np.empty(1, np.uint8), rank, _WAITING)
                    heard.add(rank)
            time.sleep(1e-3)
        del sent
        missing = [str(rank) for rank in others if rank not in heard]
        who = f"rank {' and '.join(missing)} of {self.size}" if missing else "no rank alone"
        raise RanksError(f"{who} did not take part in {what} within {self.timeout:g} s")

    def abort(self, code: int) -> None:
        _skip_exit_handlers()
        self.comm.Abort(code)
        os._exit(code)  # the call may come back before the process is ended


def _skip_exit_handlers() -> None:
    """Lets a call of C's exit(), which MPI_Abort makes, end the process at once.

    The handlers would take down libraries that other threads of it are using.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc; the handler registered last is called first
        libc.on_exit(libc._exit, None)


def ranks() -> Ranks:
    """The processes of this job.

    Raises:
        ConfigError: mpiexec has started several, but mpi4py is not installed.
    """
    sizes = [os.environ[name] for name in _SIZES if name in os.environ]
    if not any(size.isdigit() and int(size) > 1 for size in sizes):
        return Ranks()
    distribution.require("mpi4py", "mpi", f"{max(sizes)} processes of mpiexec")
    return MpiRanks()


def local_device(device: str, among: Ranks) -> str:
    """The device of this process: with several on a machine, "auto" and "cuda" give each a GPU.

    Not yet run on several GPUs.
    """
    if among.size == 1 or device not in ("auto", "cuda"):
        return device
    if device == "auto" and backends.cuda_problem() is not None:
        return "cpu"
    count = backends.get("cuda:0").module.device_count()
    if among.local[1] > count:
        raise backends.DeviceError(
            f"{among.local[1]} processes on a machine with {count} GPUs: expected one each"
        )
    return f"cuda:{among.local[0]}"


def threads(asked: int, among: Ranks) -> int:
    """Threads of this process on the CPU: those asked for, or its part of the machine's cores."""
    return asked or max(1, len(os.sched_getaffinity(0)) // among.local[1])


def same_weights(arrays: dict[str, np.ndarray], among: Ranks) -> bool:
    """Whether all ranks hold the same parameters, to the bit."""
    if among.size == 1:
        return True
    words = [
        np.sum(np.ascontiguousarray(array).view(np.uint32), dtype=np.uint64)
        for array in arrays.values()
    ]
    return len(set(among.each(tuple(int(word) for word in words)))) == 1
