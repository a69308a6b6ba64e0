"""The compiled modules of the package: loading one, and why one cannot be used."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from convnet.common import distribution
from convnet.common.exit_codes import NO_DEVICE


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and what to do."""

    exit_code = NO_DEVICE


class BrokenBackendError(DeviceError):
    """The compiled module of a device was built, and cannot be imported."""


def load(name: str) -> ModuleType:
    """A compiled module, such as "_cpu", ready for use.

    Raises:
        ModuleNotFoundError: this installation was built without it.
        InstallationError: "_cpu", which every installation has, is not here.
        BrokenBackendError: it cannot be imported.
    """
    # OpenMP's threads wait for each other dozens of times in a step. GNU's library lets them spin
    # for a millisecond first; on a machine that does anything else besides, the one that is waited
    # for is then not running, and a step takes several times as long. It reads this when loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        module = importlib.import_module(f"convnet.{name}")
    except ModuleNotFoundError as error:
        if name != "_cpu":
            raise
        raise distribution.InstallationError(
            "convnet._cpu, the compiled part of convnet, is not here. If Python was started in a "
            "clone of the repository, it imports the sources and not the installed package: run "
            "it from another folder, or install with `pip install -e .`"
        ) from error
    except ImportError as error:
        raise BrokenBackendError(
            f"convnet.{name} was built, but cannot be imported: {error}; "
            f"install {distribution.DISTRIBUTION} again"
        ) from error
    module.start_backend()
    return module


def cuda_build_reason() -> str:
    """Why this installation was built without CUDA."""
    try:
        from convnet import _build_info
    except ImportError:
        return "unknown: convnet._build_info is missing"
    return str(_build_info.CUDA_REASON)
