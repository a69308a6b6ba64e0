"""Sums of gradients over GPUs by NCCL, through CuPy. Not yet run on several GPUs."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convnet.backend import Backend
from convnet.layer import Parameter

if TYPE_CHECKING:
    from convnet.distributed import Ranks


class NcclBucket:
    """As `convnet.distributed.Bucket`, in the memory of a GPU and on a stream of its own."""

    def __init__(self, device: Backend, comm: Any, stream: Any, params: list[Parameter]) -> None:
        self.device, self.comm, self.stream, self.params = device, comm, stream, params
        self._flat = device.empty((sum(param.size for param in params),))

    def start(self, among: Ranks) -> None:
        """Packs the gradients on the net's stream, then sums them on the other one."""
        nccl = importlib.import_module("cupy.cuda.nccl")
        with self.device.active():
            at = 0
            for param in self.params:
                self._flat[at : at + param.size] = param.grad.reshape(-1)
                at += param.size
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
            at = 0
            for param in self.params:
                param.grad[...] = self._flat[at : at + param.size].reshape(param.shape)
                at += param.size


def communicator(device: Backend, among: Ranks) -> Callable[[list[Parameter]], NcclBucket]:
    """Joins all ranks, each with one GPU; returns what makes buckets for them."""
    nccl = importlib.import_module("cupy.cuda.nccl")
    unique = among.from_first(nccl.get_unique_id)
    with device.active():
        comm = nccl.NcclCommunicator(among.size, unique, among.rank)
    return functools.partial(NcclBucket, device, comm, device.new_stream())
