"""Which backend: by the name of a device, within a block, and of some arrays."""

from __future__ import annotations

import contextvars
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from convnet.backend.cuda import cuda_problem
from convnet.backend.device import Array, Backend
from convnet.common.compiled import DeviceError, load
from convnet.common.host_array import HostArray

DLPACK_CPU, DLPACK_CUDA, DLPACK_CUDA_MANAGED = 1, 2, 13  # kinds of devices in DLPack

NAMES = ("auto", "cpu", "cuda", "cuda:N", "vgpu")
# Backends on NumPy arrays that only some builds have: what they are, and how to build them.
FOR_TESTS = {
    "vgpu": "the virtual GPU; build with CONVNET_VGPU=on",
}
LOGICAL = 2  # devices that a backend on NumPy arrays presents: cpu:0 and cpu:1

_backends: dict[str, Backend] = {}
_chosen: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("backend", default=None)


def get(device: str | Backend = "auto") -> Backend:
    """The backend for a device name.

    Args:
        device: ``auto`` (a GPU where there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or
            ``vgpu``; ``cpu:0``, ``cpu:1``, ``vgpu:0`` and so on for one of two
            logical devices. An explicit name never falls back to another device.

    Raises:
        ValueError: the name is not one of these.
        DeviceError: the device cannot be used; the message says why.
    """
    if isinstance(device, Backend):
        return device
    if device == "auto":
        return get("cuda:0") if cuda_problem() is None else get("cpu")
    if device == "cuda":
        device = "cuda:0"
    if device not in _backends:
        _backends[device] = _open(device)
    return _backends[device]


def get_all(device: str | Backend | Sequence[str | Backend] = "auto") -> list[Backend]:
    """The backends for one device, or for two of a kind that share a net.

    Args:
        device: as for `get`; or two of them, in a sequence or with a comma: ``cuda:0,cuda:1``.

    Raises:
        ValueError: more than two, the same one twice, two of different kinds, or no such name.
        DeviceError: a device cannot be used.
    """
    if isinstance(device, Backend):
        return [device]
    names = device.split(",") if isinstance(device, str) else list(device)
    shown = ",".join(getattr(name, "device", str(name)) for name in names)
    if not 1 <= len(names) <= 2:
        raise ValueError(
            f"device: expected one device, or two of a kind; got {len(names)}: {shown!r}"
        )
    if len({part.strip().partition(":")[0] for part in shown.split(",")}) != 1:
        raise ValueError(
            f"device: expected two devices of one kind, such as cuda:0,cuda:1; got {shown!r}"
        )
    found = [get(name.strip() if isinstance(name, str) else name) for name in names]
    if len(found) == 1:
        return found
    if found[0] is found[1] or not all(be.logical or be.name == "cuda" for be in found):
        kind = found[0].name
        raise ValueError(
            f"device: expected two different devices, such as {kind}:0,{kind}:1; got {shown!r}"
        )
    return found


def _open(device: str) -> Backend:
    kind, _, index = device.partition(":")
    if kind == "cuda" and index.isdigit():
        problem = cuda_problem(int(index))
        if problem is not None:
            raise DeviceError(f"device {device!r}: {problem}")
        return Backend("cuda", load("_cuda"), importlib.import_module("cupy"), int(index))
    logical = index.isdigit() and int(index) < LOGICAL
    if kind not in ("cpu", *FOR_TESTS) or (not logical and device != kind):
        raise ValueError(
            f"device: expected one of {', '.join(NAMES)}, or two of a kind (cuda:0,cuda:1 or "
            f"cpu:0,cpu:1); got {device!r}"
        )
    try:
        return Backend(kind, load(f"_{kind}"), np, int(index) if logical else 0, logical)
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"device {kind!r}: this installation was built without {FOR_TESTS[kind]}"
        ) from error


class use:  # noqa: N801 - read as a verb: with use("vgpu")
    """Within the block, NumPy arrays are handled by this backend; its device is the current one.

    >>> with convnet.backend.use("vgpu"):
    ...     y = convnet.ops.relu_fprop(x)

    Args:
        device: as for `get`.

    Yields:
        The backend.

    Raises:
        ValueError, DeviceError: as `get`.
    """

    def __init__(self, device: str | Backend) -> None:
        self._backend = device if isinstance(device, Backend) else get(device)

    def __enter__(self) -> Backend:
        self._active = self._backend.active()
        self._active.__enter__()
        self._before = _chosen.set(self._backend)
        return self._backend

    def __exit__(self, *error: Any) -> None:
        _chosen.reset(self._before)
        self._active.__exit__(*error)


def of(*arrays: Array) -> Backend:
    """The backend of some arrays: that of `use`, else the one that holds them.

    Args:
        arrays: NumPy's, CuPy's, or another library's on a GPU; None is passed over.

    Raises:
        ValueError: arrays on different devices, or something that is no array.
    """
    if {*map(type, arrays)} == {np.ndarray}:
        return _of_one(arrays[0])
    for array in arrays:
        traced = getattr(array, "traced_on", None)
        if traced is not None:  # a symbolic tensor: the operation is noted, not run
            return traced
    found: Backend | None = None
    for array in arrays:
        if array is None:
            continue
        backend = _of_one(array)
        if found is not None and backend is not found:
            raise ValueError(f"arrays on one device expected, got {found.device}, {backend.device}")
        found = backend
    return found or _chosen.get() or get("cpu")


def _of_one(array: Array) -> Backend:
    if isinstance(array, HostArray) and array.owner is not None:
        return array.owner
    if isinstance(array, np.ndarray):
        chosen = _chosen.get()
        return chosen if chosen is not None and chosen.xp is np else get("cpu")
    kind, index = None, 0  # of the device, and its number
    if not isinstance(array, type) and hasattr(array, "__dlpack_device__"):
        kind, index = map(int, array.__dlpack_device__())
    if kind in (DLPACK_CUDA, DLPACK_CUDA_MANAGED):
        return get(f"cuda:{index}")
    if kind is None and hasattr(array, "__cuda_array_interface__"):
        return get("cuda")
    hint = "; numpy.from_dlpack makes one without a copy" if kind == DLPACK_CPU else ""
    raise ValueError(
        f"expected a NumPy or CuPy array, or another library's on a GPU, "
        f"got {type(array).__name__}{hint}"
    )


def set_threads(threads: int) -> None:
    """Sets how many threads operations use on the CPU.

    Args:
        threads: 0 to 1024; 0 means all cores this process may run on.

    Raises:
        ValueError: a negative number, or more than 1024.
    """
    get("cpu").module.set_thread_count(threads or len(os.sched_getaffinity(0)))
