"""Asynchronous copies of batches to a GPU.

A GPU copies from pinned memory of the host while it computes and while the host goes on. Memory
that is being copied must not be written until the copy is done, and the copy must not be read
before: events order that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from convnet.backend import Array, Backend

UPLOADS = 2  # batches that a device holds: one is read while the next arrives
_ALIGNMENT = 256  # bytes, of each array in a slot; what CUDA gives to arrays of their own
_CHUNK = 1 << 20  # bytes that are worth a thread
_THREADS = 4  # one cannot copy as fast as a GPU reads


class Uploads:
    """Batches on their way to a device: the next one travels while it computes.

    The arrays of a batch lie side by side in one of two slots of pinned memory, and go to one of
    two slots on the device in one copy, on a stream of its own. Events order that stream and the
    device's current stream. A backend of the host copies nothing.

    Args:
        device: the backend that gets the batches.
    """

    def __init__(self, device: Backend) -> None:
        self.device = device
        self._slots: list[_Slot] = []
        self._turn = 0

    @contextmanager
    def put(self, arrays: Sequence[np.ndarray | None]) -> Iterator[list[Any]]:
        """The arrays on the device; work that reads them is enqueued within the block. None stays
        None."""
        device = self.device
        if device.xp is np:
            yield [None if array is None else device.asarray(array) for array in arrays]
            return
        with device.active():
            if not self._slots:
                stream = device.new_stream()
                self._slots = [_Slot(device, stream) for _ in range(UPLOADS)]
            self._turn = (self._turn + 1) % UPLOADS
            slot = self._slots[self._turn]
            yield slot.send(arrays)
            slot.read = device.record()


class _Slot:
    """Memory at both ends of a copy; `read` is an event after the last work that reads it."""

    def __init__(self, device: Backend, stream: Any) -> None:
        self.device, self.stream = device, stream
        self.read: Any = None
        self._sent: Any = None
        self._host, self._there = np.empty(0, np.uint8), device.empty((0,), np.uint8)

    def send(self, arrays: Sequence[np.ndarray | None]) -> list[Array | None]:
        """The arrays on the device; its current stream waits for them, and the host does not."""
        sizes = [0 if array is None else array.nbytes for array in arrays]
        ends = np.cumsum([-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]).tolist()
        starts = [0, *ends]
        self.device.wait(self._sent)  # two batches ago, so it has been sent by now
        if ends[-1] > self._host.size:
            self._host = self.device.pinned(ends[-1], np.uint8)
            self._there = self.device.empty((ends[-1],), np.uint8)
            self.read = self.device.record()  # of what was in that memory before
        for array, start in zip(arrays, starts, strict=False):
            if array is not None:
                fill(_part(self._host, start, array), array)
        self.stream.wait_event(self.read)
        self._there[: ends[-1]].set(self._host[: ends[-1]], self.stream)
        self._sent = self.device.record(self.stream)
        self.device.current_stream().wait_event(self._sent)
        return [
            None if array is None else _part(self._there, start, array)
            for array, start in zip(arrays, starts, strict=False)
        ]


def _part(memory: Array, start: int, like: np.ndarray) -> Any:
    """The bytes of memory from `start` on as an array like another."""
    return memory[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


def fill(to: np.ndarray, source: np.ndarray) -> None:
    """Copies an array into another of its shape, a large one by several threads."""
    chunks = min(_THREADS, source.nbytes // _CHUNK, len(source))
    if chunks < 2:
        np.copyto(to, source)
        return
    parts = np.array_split(to, chunks), np.array_split(source, chunks)
    list(_pool().map(np.copyto, *parts))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "convnet-copy")
