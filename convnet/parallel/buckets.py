"""Gradients that are summed over the ranks together: a bucket is sent as soon as it is full.

Through MPI and the memory of the host, or on GPUs by NCCL, through CuPy. The latter was not yet run
on several GPUs.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.backend import Backend
from convnet.layers.layer import Parameter
from convnet.parallel.ranks import Ranks


class Bucket:
    """Gradients that are summed over the ranks together."""

    def __init__(self, params: list[Parameter]) -> None:
        self.params = params
        self._flat = np.empty(sum(param.size for param in params), np.float32)
        self._done: Callable[[], bool] | None = None

    def start(self, among: Ranks) -> None:
        """Packs the gradients and begins to sum them."""
        for param, part in _parts(self.params, self._flat):
            np.copyto(part, backends.of(param.data).to_host(param.grad))
        self._done = among.start_sum(self._flat)

    def poll(self) -> bool:
        """Whether the sum is complete. MPI only makes progress while it is called."""
        if self._done is not None and self._done():
            self._done = None
        return self._done is None

    def finish(self, among: Ranks) -> None:
        """Waits for the sum and puts it into the gradients."""
        among.wait(self.poll, "the sum of gradients")
        for param, part in _parts(self.params, self._flat):
            backends.of(param.data).put(param.grad, part)


class NcclBucket:
    """As `Bucket`, in the memory of a GPU and on a stream of its own."""

    def __init__(self, device: Backend, comm: Any, stream: Any, params: list[Parameter]) -> None:
        self.device, self.comm, self.stream, self.params = device, comm, stream, params
        self._flat: Any = device.empty((sum(param.size for param in params),))

    def start(self, among: Ranks) -> None:
        """Packs the gradients on the net's stream, then sums them on the other one."""
        nccl = importlib.import_module("cupy.cuda.nccl")
        with self.device.active():
            for param, part in _parts(self.params, self._flat):
                part[...] = param.grad
            self.stream.wait_event(self.device.record())
            data, count = self._flat.data.ptr, self._flat.size
            kinds = nccl.NCCL_FLOAT32, nccl.NCCL_SUM
            self.comm.allReduce(data, data, count, *kinds, self.stream.ptr)

    def poll(self) -> bool:
        """The stream needs no help."""
        return True

    def finish(self, among: Ranks) -> None:
        """Puts the sums into the gradients, on the net's stream."""
        with self.device.active():
            self.device.current_stream().wait_event(self.device.record(self.stream))
            for param, part in _parts(self.params, self._flat):
                param.grad[...] = part


def _parts(params: list[Parameter], flat: Any) -> Iterator[tuple[Parameter, Any]]:
    """Each parameter, and its part of the bucket in its shape."""
    for param, end in zip(params, itertools.accumulate(p.size for p in params), strict=True):
        yield param, flat[end - param.size : end].reshape(param.shape)


def communicator(device: Backend, among: Ranks) -> Callable[[list[Parameter]], NcclBucket]:
    """Joins all ranks, each with one GPU; returns what makes buckets for them."""
    nccl = importlib.import_module("cupy.cuda.nccl")
    unique = among.from_first(nccl.get_unique_id)
    with device.active():
        comm = nccl.NcclCommunicator(among.size, unique, among.rank)
    return functools.partial(NcclBucket, device, comm, device.new_stream())
