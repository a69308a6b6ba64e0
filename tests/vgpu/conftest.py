"""tests/vgpu needs the virtual GPU: convnet._vgpu, or a library named by VGPU_LIBRARY."""

from __future__ import annotations

import importlib.util
import os

import pytest


def pytest_ignore_collect() -> bool | None:
    """Leaves the tests out where there is none. Where it should be there, the build has failed."""
    if os.environ.get("VGPU_LIBRARY") or importlib.util.find_spec("convnet._vgpu"):
        return None
    return True


KEPT = ("VGPU_LIBRARY", "VGPU_CC")  # the device is chosen once a process


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VGPU_") and name not in KEPT]:
        monkeypatch.delenv(name)
