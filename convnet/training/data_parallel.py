"""Data parallelism: K processes, each with a net of its own and a K-th of every batch.

    mpiexec -n 4 convnet train CFG

Process r of K (MPI calls it a rank) reads samples B r / K .. B (r + 1) / K - 1 of each batch of B.
Which samples these are, how they are varied and which units drop out depends on their place in the
whole batch, so K processes compute what one would; only the sums of the gradients are rounded in
another order. Gradients are summed in buckets while the backward pass still runs: a bucket is sent
as soon as the gradients in it are complete. All processes then make the same update.

Rank 0 alone writes the run's folder and prints. What it reads there the others get from it.
`--resume` continues from the last checkpoint with any K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.backend import Array
from convnet.layers.layer import Parameter
from convnet.nn.net import Net
from convnet.nn.step_results import StepResult, StepResults
from convnet.optim.sgd import SGD
from convnet.parallel.buckets import Bucket, communicator
from convnet.parallel.ranks import Ranks

BUCKET = 4 << 20  # bytes of gradients that are sent together


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
        self._batch = 0  # samples of the last step, of all ranks
        self._buckets: list[Bucket] = []  # in the order in which they fill
        self._open: list[Parameter] = []
        self._started = 0
        self._nccl = None if among.size == 1 else _nccl(net, among)
        if among.size > 1:
            net.gradient_ready = self._ready

    def train_step(self, x: Array, labels: Array, sgd: SGD, batch: int) -> None:
        """One step of all ranks. On GPUs it is only begun; see `results`.

        Args:
            x, labels: this rank's part of the batch.
            batch: samples of all ranks together.
        """
        self._batch = batch
        if self.among.size == 1:
            self.net.start_step(x, labels, sgd)
        else:
            self._summed_step(x, labels, sgd)
        self._results.note()

    def results(self, wait: bool = True) -> Iterator[StepResult]:
        """The results of steps for whole batches, the same on all ranks; each step's once.

        Args:
            wait: for all steps that were begun; else the last few on GPUs are left for later.

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
        net.first_sample = self.among.share(self._batch)[0]
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
    return communicator(net.backend, among)
