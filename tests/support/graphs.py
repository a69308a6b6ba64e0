"""CUDA graphs under test: counted as they are captured and launched, or made to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from convnet.nn.cuda_graph import Streams


class Graph:
    """A graph of a program, and how often it was launched."""

    def __init__(self, launch: Callable[[], None]) -> None:
        self._launch = launch
        self.launches = 0

    def __call__(self) -> None:
        self.launches += 1
        self._launch()


def count(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs of all programs, in the order in which they will be captured."""
    graphs: list[Graph] = []
    capture = Streams.capture

    def counted(self: Streams, make: Callable[[], None]) -> Graph:
        graphs.append(Graph(capture(self, make)))
        return graphs[-1]

    monkeypatch.setattr(Streams, "capture", counted)
    return graphs


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every program waits for its stream while it is captured, which CUDA forbids."""
    capture = Streams.capture

    def waiting(self: Streams, make: Callable[[], None]) -> Any:
        def and_wait() -> None:
            make()
            self.devices[0].synchronize()

        return capture(self, and_wait)

    monkeypatch.setattr(Streams, "capture", waiting)
