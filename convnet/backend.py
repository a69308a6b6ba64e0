"""Backends: a compiled module that implements the operations, and the array library it works on.

``cpu`` works on NumPy arrays, ``cuda`` on CuPy arrays; ``emulator`` runs the CUDA kernels on the
CPU, on NumPy arrays, and exists for tests. Functions of :mod:`convnet.ops` follow the arrays they
are given; :func:`use` chooses another backend for NumPy arrays. This is the only file that imports
CuPy.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray, cupy.ndarray, or another library's array on a GPU

DLPACK_CPU, DLPACK_CUDA, DLPACK_CUDA_MANAGED = 1, 2, 13  # kinds of devices in DLPack
CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x")

NAMES = ("auto", "cpu", "cuda", "cuda:N", "emulator")


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and what to do."""


class Backend:
    """One device: its module of operations and its array library.

    Attributes:
        name: ``cpu``, ``cuda`` or ``emulator``.
        device: the name it was chosen by, for example ``cuda:1``.
        module: the compiled extension module.
        xp: ``numpy`` or ``cupy``.
    """

    def __init__(self, name: str, module: ModuleType, xp: ModuleType, index: int = 0) -> None:
        self.name = name
        self.module = module
        self.xp = xp
        self.index = index
        self.device = f"cuda:{index}" if name == "cuda" else name
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<convnet backend {self.device}>"

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An uninitialised C-contiguous array on this device."""
        with self._active():
            return self.xp.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An array of zeros on this device."""
        with self._active():
            return self.xp.zeros(shape, dtype)

    def asarray(self, array: Array) -> Array:
        """``array`` on this device, C-contiguous; not copied where it is there already."""
        if self.xp is np and not isinstance(array, np.ndarray) and hasattr(array, "get"):
            array = array.get()
        with self._active():
            if not hasattr(array, "flags") and hasattr(array, "__dlpack__"):
                array = self.xp.from_dlpack(array)  # PyTorch, JAX and others
            return self.xp.ascontiguousarray(self.xp.asarray(array))

    def to_host(self, array: Array) -> np.ndarray:
        """``array`` as a NumPy array; not copied where it is one already."""
        return array if isinstance(array, np.ndarray) else array.get()

    def stream(self) -> int:
        """The address of this device's current stream (0 on host backends)."""
        return 0 if self.xp is np else int(self._stream().ptr)

    def wait_for(self, other: Backend) -> None:
        """Let this device's stream begin what comes next only when ``other``'s is done."""
        if self.xp is not np and other is not self:
            with other._active():
                event = other._stream().record()
            with self._active():
                self._stream().wait_event(event)

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.xp is not np:
            with self._active():
                self._stream().synchronize()

    def workspace(self, size: int) -> Array | None:
        """At least ``size`` bytes of scratch memory, valid until the next call on this thread."""
        if size == 0:
            return None
        key = f"at_{self.stream()}"
        space = getattr(self._local, key, None)
        if space is None or space.size < size:
            space = self.empty((size,), np.uint8)
            setattr(self._local, key, space)
        return space

    def free_bytes(self) -> int:
        """Bytes of GPU memory that are free, or held in reserve by CuPy's pool."""
        with self._active():
            free, _ = self.xp.cuda.runtime.memGetInfo()
            return int(free) + int(self.xp.get_default_memory_pool().free_bytes())

    def describe(self) -> str:
        """One line: the device and what the backend was built on."""
        description = self.module.device_description(self.index)
        return f"{self.device}: {description}; {self.module.build_description()}"

    def _stream(self) -> Any:
        return self.xp.cuda.get_current_stream(self.index)

    def _active(self) -> contextlib.AbstractContextManager[Any]:
        if self.xp is np:
            return contextlib.nullcontext()
        return self.xp.cuda.Device(self.index)


_backends: dict[str, Backend] = {}
_chosen: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("backend", default=None)


def get(device: str | Backend = "auto") -> Backend:
    """The backend for a device name.

    Args:
        device: ``auto`` (a GPU where there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or
            ``emulator``. An explicit name never falls back to another device.

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


def _open(device: str) -> Backend:
    kind, _, index = device.partition(":")
    if kind == "cuda" and index.isdigit():
        problem = cuda_problem(int(index))
        if problem is not None:
            raise DeviceError(f"device {device!r}: {problem}")
        return Backend("cuda", _module("_cuda"), importlib.import_module("cupy"), int(index))
    if device == "cpu":
        return Backend("cpu", _module("_cpu"), np)
    if device == "emulator":
        try:
            return Backend("emulator", _module("_emulator"), np)
        except ImportError as error:
            raise DeviceError(
                "device 'emulator': this installation was built without the emulator; "
                "build with CONVNET_EMULATOR=on"
            ) from error
    raise ValueError(f"device: expected one of {', '.join(NAMES)}, got {device!r}")


def _module(name: str) -> ModuleType:
    # OpenMP's threads wait for each other dozens of times in a step. GNU's library lets them spin
    # for a millisecond first; on a machine that does anything else besides, the one that is waited
    # for is then not running, and a step takes several times as long. It reads this when loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        return importlib.import_module(f"convnet.{name}")
    except ModuleNotFoundError as error:
        if name != "_cpu":
            raise
        raise ImportError(
            "convnet._cpu, the compiled part of convnet, is not here. If Python was started in a "
            "clone of the repository, it imports the sources and not the installed package: run "
            "it from another folder, or install with `pip install -e .`"
        ) from error


def cuda_problem(index: int = 0) -> str | None:
    """Why CUDA device ``index`` cannot be used and what to do, or None where it can."""
    try:
        module = _module("_cuda")
    except ImportError:
        return f"this installation has no CUDA backend ({_cuda_build_reason()})"
    devices = module.device_count()
    if index >= devices > 0:
        return f"there are {devices} CUDA devices, numbered from 0"
    try:
        module.device_description(index)  # says what is missing: driver, GPU, code for this GPU
    except RuntimeError as error:
        return str(error).removeprefix("device_description: ")
    return _cupy_problem()


def _cupy_problem() -> str | None:
    installed = [name for name in CUPY_PACKAGES if _is_installed(name)]
    if len(installed) > 1:
        return (
            f"{len(installed)} packages of CuPy are installed, which overwrite each other "
            f"({', '.join(installed)}): uninstall all of them, then install one"
        )
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'convnet[cuda13]' (or [cuda12])"
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported: {str(error).strip().splitlines()[0]}"
    return None


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cuda_build_reason() -> str:
    try:
        from convnet import _build_info
    except ImportError:
        return "unknown: convnet._build_info is missing"
    return str(_build_info.CUDA_REASON)


@contextlib.contextmanager
def use(device: str | Backend) -> Iterator[Backend]:
    """Within the block, NumPy arrays are handled by this backend.

    >>> with convnet.backend.use("emulator"):
    ...     y = convnet.ops.relu_fprop(x)
    """
    backend = get(device)
    token = _chosen.set(backend)
    try:
        yield backend
    finally:
        _chosen.reset(token)


def of(*arrays: Array) -> Backend:
    """The backend of these arrays: that of :func:`use`, else the one that holds them.

    Raises:
        ValueError: arrays on different devices, or something that is no array.
    """
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
    if isinstance(array, np.ndarray):
        chosen = _chosen.get()
        return chosen if chosen is not None and chosen.xp is np else get("cpu")
    kind, index = _dlpack_device(array)
    if kind in (DLPACK_CUDA, DLPACK_CUDA_MANAGED):
        return get(f"cuda:{index}")
    if kind is None and hasattr(array, "__cuda_array_interface__"):
        return get("cuda")
    hint = "; numpy.from_dlpack makes one without a copy" if kind == DLPACK_CPU else ""
    raise ValueError(
        f"expected a NumPy or CuPy array, or another library's on a GPU, "
        f"got {type(array).__name__}{hint}"
    )


def _dlpack_device(array: Array) -> tuple[int | None, int]:
    """(kind of device, its number), or (None, 0) of what does not speak DLPack."""
    if isinstance(array, type) or not hasattr(array, "__dlpack_device__"):
        return None, 0
    kind, index = array.__dlpack_device__()
    return int(kind), int(index)


def set_threads(threads: int) -> None:
    """Use this many threads on the CPU; 0 means all cores this process may run on.

    Raises:
        ValueError: a negative number, or more than 1024.
    """
    get("cpu").module.set_thread_count(threads or len(os.sched_getaffinity(0)))
