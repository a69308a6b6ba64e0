"""Why a CUDA device cannot be used, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.util

from convnet.common import compiled, distribution

CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x")


def cuda_problem(index: int = 0) -> str | None:
    """Why a CUDA device cannot be used and what to do, or None where it can.

    Args:
        index: number of the device, from 0.

    Raises:
        BrokenBackendError: there is a CUDA backend, but it cannot be imported.
    """
    try:
        module = compiled.load("_cuda")
    except ModuleNotFoundError:
        return f"this installation has no CUDA backend ({compiled.cuda_build_reason()})"
    devices = module.device_count()
    if index >= devices > 0:
        return f"there are {devices} CUDA devices, numbered from 0"
    try:
        module.device_description(index)  # says what is missing: driver, GPU, code for this GPU
    except RuntimeError as error:
        return str(error).removeprefix("device_description: ")
    return _cupy_problem()


def _cupy_problem() -> str | None:
    installed = [name for name in CUPY_PACKAGES if distribution.version(name)]
    if len(installed) > 1:
        return (
            f"{len(installed)} packages of CuPy are installed, which overwrite each other "
            f"({', '.join(installed)}): uninstall all of them, then install one"
        )
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {distribution.how_to_install('cuda13')} (or [cuda12])"
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported: {str(error).strip().splitlines()[0]}"
    return None
