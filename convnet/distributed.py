"""Data parallelism: K processes, each with a net of its own and a K-th of every batch.

    mpiexec -n 4 convnet train CFG

Process r of K (MPI calls it a rank) reads cases B r / K .. B (r + 1) / K - 1 of each batch of B.
Which cases these are, how they are varied and which units drop out depends on their place in the
whole batch, so K processes compute what one would; only the sums of the gradients are rounded in
another order. Gradients are added up in buckets while the backward pass still runs: a bucket is
sent as soon as the gradients in it are complete. All processes then make the same update.

Rank 0 alone writes the run's folder and prints. What it reads there the others get from it. A rank
that fails ends the job (MPI_Abort), and so do the others when one hangs; `--resume` continues from
the last checkpoint with any K.

The transport is MPI's (mpi4py, extra "mpi"), and for nets on GPUs NCCL through CuPy.
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
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from convnet import backend as backends
from convnet import distribution
from convnet.exit_codes import FAILED, complain, explain
from convnet.layer import Array, Parameter
from convnet.net import Net
from convnet.sgd import SGD
from convnet.stepresults import StepResult, StepResults

T = TypeVar("T")

BUCKET = 4 << 20  # bytes of gradients that are sent together
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

    def guard(self) -> _Guard:
        """A `with` block in which an error of this rank ends the whole job."""
        return _Guard(self)


class _Guard:
    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def __enter__(self) -> Ranks:
        return self.ranks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and self.ranks.size > 1:
            _end_with(error, self.ranks)


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
        self.timeout = _timeout()
        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        near = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local = near.Get_rank(), near.Get_size()
        near.Free()

    def from_first(self, make: Callable[[], T]) -> T:
        data = pickle.dumps(make()) if self.first else b""
        size = np.array([len(data)], np.int64)
        self._end(self.comm.Ibcast(size), "what rank 0 tells")
        held = np.frombuffer(bytearray(data) if self.first else bytearray(int(size[0])), np.uint8)
        self._end(self.comm.Ibcast(held), "what rank 0 tells")
        found: T = pickle.loads(held.tobytes())
        return found

    def total(self, values: Sequence[float]) -> list[float]:
        sums = np.array(values, np.float64)
        self._end(self.comm.Iallreduce(self._mpi.IN_PLACE, sums), "a sum")
        return [float(value) for value in sums]

    def any(self, value: bool) -> bool:
        found = np.array([value], np.int32)
        request = self.comm.Iallreduce(self._mpi.IN_PLACE, found, self._mpi.MAX)
        self._end(request, "a question to all")
        return bool(found[0])

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
        """Finds out who does not wait as this rank does: all who do tell all others."""
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


def _timeout() -> float:
    text = os.environ.get("CONVNET_MPI_TIMEOUT") or "300"
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < 1e6:
            return float(text)
    raise ValueError(f"CONVNET_MPI_TIMEOUT: expected a number of seconds, got {text!r}")


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


class NoFolder:
    """Stands for the run's folder in the ranks that do not write; see `convnet.runfolder`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = self

    def append(self, line: str) -> None:
        """Rank 0 writes it."""

    def record(self, record: dict[str, Any]) -> None:
        """Rank 0 writes it."""

    def use_config(self, cfg: Any) -> None:
        """Rank 0 writes it."""

    def save(self, state: dict[str, Any], arrays: dict[str, Any], best: bool) -> Path:
        """Where rank 0 writes it."""
        return self.path / "checkpoints" / f"step-{state['step']:08d}.safetensors"

    def rewind(
        self, step: int, epoch_done: bool, records: int | None = None, warn: Any = None
    ) -> list[dict[str, Any]]:
        """Rank 0 has the records."""
        return []

    def close(self) -> None:
        """There is nothing open."""


# ---- steps --------------------------------------------------------------------------------------


class Bucket:
    """Gradients that are summed over the ranks together."""

    def __init__(self, params: list[Parameter]) -> None:
        self.params = params
        self._flat = np.empty(sum(param.size for param in params), np.float32)
        self._done: Callable[[], bool] | None = None

    def start(self, among: Ranks) -> None:
        """Packs the gradients and begins to sum them."""
        for param, part in self._parts():
            np.copyto(part, backends.of(param.data).to_host(param.grad).reshape(-1))
        self._done = among.start_sum(self._flat)

    def poll(self) -> bool:
        """Lets the sum go on; whether it is there. MPI moves data when it is called."""
        if self._done is not None and self._done():
            self._done = None
        return self._done is None

    def finish(self, among: Ranks) -> None:
        """Waits for the sum and puts it into the gradients."""
        among.wait(self.poll, "the sum of gradients")
        for param, part in self._parts():
            backends.of(param.data).put(param.grad, part.reshape(param.shape))

    def _parts(self) -> list[tuple[Parameter, np.ndarray]]:
        ends = np.cumsum([param.size for param in self.params])
        return list(zip(self.params, np.split(self._flat, ends[:-1]), strict=True))


class Parallel:
    """Training steps of a net on all ranks together.

    Args:
        net: this rank's; all have the same parameters.
        among: the ranks.
        bucket: bytes of gradients that are sent together.
    """

    def __init__(self, net: Net, among: Ranks, bucket: int = BUCKET) -> None:
        self.net, self.among, self.bucket = net, among, bucket
        self._results = StepResults(net)
        self._batch = 0  # of the last step, the cases of all ranks
        self._buckets: list[Bucket] = []  # in the order in which they fill
        self._open: list[Parameter] = []
        self._started = 0
        self._nccl = None if among.size == 1 else _nccl(net, among)
        if among.size > 1:
            net.gradient_ready = self._ready

    def train_step(self, x: Array, labels: Array, sgd: SGD, batch: int) -> None:
        """One step of all ranks, which on GPUs is only begun; see `results`.

        Args:
            x, labels: this rank's part of the batch.
            batch: cases in all.
        """
        self._batch = batch
        if self.among.size == 1:
            self.net.start_step(x, labels, sgd)
        else:
            self._summed_step(x, labels, sgd)
        self._results.note()

    def results(self, wait: bool = True) -> Iterator[StepResult]:
        """What the steps came to for whole batches, the same everywhere; each is told once.

        Args:
            wait: for all steps that were begun; without, the last few on GPUs are left for later.

        Raises: LinkError and DivergedError, as `Net.train_step`; the latter the same everywhere.
        """
        wait = wait or self.net.backend.xp is np
        if wait:
            self.finish_steps()
        for own in self._results.read(wait):
            if self.among.size == 1:
                yield own
                continue
            parts = self.among.each((own.loss * len(own.rank), own.rank))
            rank = np.concatenate([part[1] for part in parts])
            yield StepResult(own.step, sum(part[0] for part in parts) / self._batch, rank)

    def finish_steps(self) -> None:
        """Waits for the steps that were begun. Raises: as `results`."""
        self.net.finish_steps(self.among.each)

    def _summed_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        net = self.net
        x, labels = net.begin_step(x, labels, sgd)
        net.first_case = self.among.share(self._batch)[0]
        self._started, self._open = 0, []
        net.start_gradients(x, labels, scale=1.0 / self._batch)
        self._close_bucket()
        for bucket in self._buckets[: self._started]:
            bucket.finish(self.among)
        with backends.use(net.backend):
            net.update(sgd)
        net.step += 1

    def _ready(self, param: Parameter) -> None:
        """Takes a gradient that is complete."""
        self._open.append(param)
        if sum(4 * waiting.size for waiting in self._open) >= self.bucket:
            self._close_bucket()
        for bucket in self._buckets[: self._started]:
            bucket.poll()

    def _close_bucket(self) -> None:
        if not self._open:
            return
        held = self._buckets[self._started : self._started + 1]
        if not held or held[0].params != self._open:  # or others are frozen than before
            make = Bucket if self._nccl is None else self._nccl
            self._buckets[self._started :] = [make(self._open)]
        self._buckets[self._started].start(self.among)
        self._started += 1
        self._open = []


def _nccl(net: Net, among: Ranks) -> Callable[[list[Parameter]], Any] | None:
    """Makes buckets that NCCL sums, for a net on a GPU. Not yet run on several GPUs."""
    if net.backend.name != "cuda" or len(net.backends) > 1:
        return None  # through MPI and the host
    from convnet.nccl import communicator

    return communicator(net.backend, among)


def same_weights(arrays: dict[str, np.ndarray], among: Ranks) -> bool:
    """Whether all ranks hold the same parameters, to the bit."""
    if among.size == 1:
        return True
    words = [
        np.sum(np.ascontiguousarray(array).view(np.uint32), dtype=np.uint64)
        for array in arrays.values()
    ]
    return len(set(among.each(tuple(int(word) for word in words)))) == 1
