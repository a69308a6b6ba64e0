"""Benchmarks on a stand-in for a GPU, with quick limits."""

from __future__ import annotations

import sys

import limits
import numpy as np
import pytest
from device_arrays import XP, DeviceArray, become_device


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch):
    for name, size in (("COPY_BYTES", 1 << 20), ("SQUARE", 64), ("BATCH", 64)):
        monkeypatch.setattr(limits, name, size)


@pytest.fixture
def driver(monkeypatch, vgpu):
    """From now on "cuda" is the stand-in, with what the benchmarks use of CuPy besides."""
    monkeypatch.setattr(XP, "__name__", "cupy", raising=False)
    product = lambda a, b, out: np.matmul(a.host, b.host, out=out.host)  # noqa: E731
    monkeypatch.setattr(XP, "matmul", product, raising=False)
    transposed = property(lambda self: DeviceArray(self.host.T))
    monkeypatch.setattr(DeviceArray, "T", transposed, raising=False)
    return become_device(monkeypatch, vgpu).module.driver


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
