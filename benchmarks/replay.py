"""Turns of a benchmark as CUDA graphs: the device's time alone, with nothing of Python in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timing import turns

from convnet.backend import Backend


class Replay:
    """Makes turns of many calls each, as one CUDA graph where that is possible.

    Args:
        backend: whose calls; on the host they are made one by one.

    Attributes:
        problem: why turns are calls one by one, or empty. On short kernels Python then weighs in.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.problem = "" if backend.name == "cuda" else f"{backend.name} has no graphs"
        self._stream: Any = None

    def turn(self, queue: Callable[[], object], times: int, workspace: int) -> Callable[[], object]:
        """A turn of `times` calls of `queue`, which ends when the device has done them all.

        Args:
            workspace: bytes of scratch memory, the most of all turns of the same work: a graph
                keeps its address, so it must not grow and move.
        """
        if not self.problem:
            try:
                return self._captured(queue, times, workspace)
            except RuntimeError as error:  # CuPy's errors of the driver are such
                self.problem = str(error).strip().partition("\n")[0] or type(error).__name__
                print(f"turns   calls one by one: they could not be captured: {self.problem}")
        return turns(queue, self.backend.synchronize, times)

    def _captured(
        self, queue: Callable[[], object], times: int, workspace: int
    ) -> Callable[[], object]:
        with self.backend.active():
            if self._stream is None:  # default streams cannot be captured
                self._stream = self.backend.xp.cuda.Stream(non_blocking=True)
            stream = self._stream
            self.backend.synchronize()
            with stream:
                space = self.backend.workspace(workspace)
                queue()
                stream.synchronize()
                stream.begin_capture()
                try:
                    for _ in range(times):
                        queue()
                finally:
                    graph = stream.end_capture()

        def turn(keeps: Any = space) -> None:
            with self.backend.active():
                with stream:
                    graph.launch()
                stream.synchronize()

        return turn
