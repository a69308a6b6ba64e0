"""Benchmarks with quick limits."""

from __future__ import annotations

import sys
from typing import Any

import limits
import pytest
from gpus import is_virtual
from replay import Replay


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch):
    for name, size in (("COPY_BYTES", 1 << 20), ("SQUARE", 64), ("BATCH", 64)):
        monkeypatch.setattr(limits, name, size)


@pytest.fixture
def gpu(cuda, monkeypatch):
    """A GPU that can multiply matrices: with the virtual one there is no cuBLAS."""
    if is_virtual(cuda):

        def product(a: Any, b: Any, out: Any) -> None:
            (a[:, :, None] * b).sum(1, out=out)

        monkeypatch.setattr(cuda.xp, "matmul", product)
    return cuda


@pytest.fixture
def captured(monkeypatch):
    """The turns that are CUDA graphs, by the number of calls in each."""
    turns = []
    capture = Replay._captured

    def counted(self: Replay, queue: Any, times: int, workspace: int) -> Any:
        turn = capture(self, queue, times, workspace)
        turns.append(times)
        return turn

    monkeypatch.setattr(Replay, "_captured", counted)
    return turns


@pytest.fixture
def forbidden(gpu, monkeypatch):
    """Makes every turn wait for its stream while it is captured, which CUDA forbids."""
    capture = Replay._captured

    def waiting(self: Replay, queue: Any, times: int, workspace: int) -> Any:
        def and_wait() -> None:
            queue()
            gpu.synchronize()

        return capture(self, and_wait, times, workspace)

    return lambda: monkeypatch.setattr(Replay, "_captured", waiting)


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
