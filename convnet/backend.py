"""Backends: a compiled module that implements the operations, and the array library it works on.

``cpu`` works on NumPy arrays, ``cuda`` on CuPy arrays; ``vgpu`` runs the CUDA kernels on
the CPU, on NumPy arrays, and exists for tests. Functions of `convnet.ops` follow the
arrays they are given; `use` chooses another backend for NumPy arrays. This is the only file
that imports CuPy.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from convnet.common import compiled, distribution
from convnet.common.compiled import BrokenBackendError, DeviceError, load  # noqa: F401
from convnet.common.host_array import HostArray, owned, plain
from convnet.common.host_memory import at_cache_line


class Array(Protocol):
    """What is asked of an array: of NumPy's, CuPy's, or a tensor of a trace, whose values nobody
    can ask for. Arrays of other libraries on a GPU become CuPy's where they are given."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def reshape(self) -> Callable[..., Any]: ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __setitem__(self, index: Any, value: Any, /) -> None: ...
    def __neg__(self) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...


DLPACK_CPU, DLPACK_CUDA, DLPACK_CUDA_MANAGED = 1, 2, 13  # kinds of devices in DLPack
CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x")

NAMES = ("auto", "cpu", "cuda", "cuda:N", "vgpu")
# Backends on NumPy arrays that only some builds have: what they are, and how to build them.
FOR_TESTS = {
    "vgpu": "the virtual GPU; build with CONVNET_VGPU=on",
}
LOGICAL = 2  # devices that a backend on NumPy arrays presents: cpu:0 and cpu:1


class Backend:
    """One device: its module of operations and its array library.

    Attributes:
        name: ``cpu``, ``cuda`` or ``vgpu``.
        device: the name it was chosen by, for example ``cuda:1``.
        module: the compiled extension module.
        xp: ``numpy`` or ``cupy``.
        index: of the device among those of its kind.
        logical: whether it is one of several devices in the memory of the host.
        tracing: whether operations are noted instead of run (see `convnet.nn.trace`).
    """

    tracing = False

    def __init__(
        self, name: str, module: ModuleType, xp: ModuleType, index: int = 0, logical: bool = False
    ) -> None:
        self.name = name
        self.module = module
        self.xp = xp
        self.index = index
        self.logical = logical
        self.device = f"{name}:{index}" if name == "cuda" or logical else name
        self._local = threading.local()

    def beside(self, device: Backend) -> Backend:
        """Another device of the same net, as operations see it."""
        return device

    @property
    def real(self) -> Backend:
        """The device itself, also of one that only notes what it is given."""
        return self

    @property
    def stores_bfloat16(self) -> bool:
        """Whether every operation takes bfloat16 activations here."""
        return bool(self.module.stores_bfloat16())

    def __repr__(self) -> str:
        return f"<convnet backend {self.device}>"

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An uninitialised C-contiguous array on this device; on the host, from a cache line on."""
        return self._new("empty", shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An array of zeros on this device; on the host, from a cache line on."""
        return self._new("zeros", shape, dtype)

    def _new(self, make: str, shape: tuple[int, ...], dtype: Any) -> Array:
        if self.xp is np:
            return self.own(at_cache_line(getattr(np, make), shape, dtype))
        with self.active():
            return getattr(self.xp, make)(shape, dtype)

    def pinned(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """Memory of the host that this GPU reads and writes by itself; CuPy keeps it for reuse."""
        with self.active():
            return importlib.import_module("cupyx").empty_pinned(shape, dtype)

    def asarray(self, array: Any) -> Array:
        """``array`` on this device, C-contiguous; not copied where it is there already."""
        if self.xp is np and not isinstance(array, np.ndarray) and hasattr(array, "get"):
            array = of(array).to_host(array)
        if self.logical:
            if getattr(array, "owner", None) is self and array.flags.c_contiguous:
                return array
            return self.own(np.array(array, order="C"))
        with self.active():
            if not hasattr(array, "flags") and hasattr(array, "__dlpack__"):
                array = self.xp.from_dlpack(array)  # PyTorch, JAX and others
            return self.xp.ascontiguousarray(self.xp.asarray(array))

    def to_host(self, array: Any) -> np.ndarray:
        """``array`` as a NumPy array; not copied where it is one already. Waits for a GPU."""
        if isinstance(array, np.ndarray):
            return plain(array)
        with self.active():
            return array.get()  # on the stream of the current device

    def fetch(self, array: Any) -> np.ndarray:
        """A copy of `array` on the host, which on a GPU is only begun: it is there once an event
        that is recorded now (see `record`) is done."""
        if isinstance(array, np.ndarray):
            return np.array(plain(array))
        with self.active():
            return array.get(out=self.pinned(array.shape, array.dtype), blocking=False)

    def put(self, array: Any, host: Any) -> None:
        """Writes numbers of the host into `array`, in the order of what this device does."""
        if self.xp is np:
            np.copyto(plain(array), host)
        else:
            with self.active():
                array.set(host)

    def own(self, array: Any) -> Array:
        """``array``, just made here, marked as memory of this device if that is a logical one."""
        return owned(array, self) if self.logical else array

    def stream(self) -> int:
        """The address of this device's current stream (0 on host backends)."""
        return 0 if self.xp is np else int(self.current_stream().ptr)

    def wait_for(self, other: Backend) -> None:
        """Let this device's stream begin what comes next only when ``other``'s is done."""
        if self.xp is not np and other is not self:
            self.wait_event(other.record())

    def wait_event(self, event: Any) -> None:
        """Let this GPU's stream begin what comes next only after an event. The default stream has
        the same address on every GPU, which means that of the current one."""
        with self.active():
            self.current_stream().wait_event(event)

    def record(self, stream: Any = None) -> Any:
        """An event: that a stream of this GPU, its current one by default, is done with what it has
        been given so far. CuPy makes events on the current device, whatever the stream's is. On
        the host, where all is done, None."""
        if self.xp is np:
            return None
        with self.active():
            event = self.xp.cuda.Event(disable_timing=True)
            event.record(self.current_stream() if stream is None else stream)
            return event

    def wait(self, event: Any) -> None:
        """Lets the host wait for an event of this GPU; most often it is done already."""
        if event is not None and not event.done:
            event.synchronize()

    def new_stream(self) -> Any:
        """A stream of this GPU beside the current one."""
        with self.active():
            return self.xp.cuda.Stream(non_blocking=True)

    @property
    def threads(self) -> int:
        """Threads that operations use on the CPU."""
        return int(self.module.thread_count())

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.xp is not np:
            with self.active():
                self.current_stream().synchronize()

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
        with self.active():
            free, _ = self.xp.cuda.runtime.memGetInfo()
            return int(free) + int(self.xp.get_default_memory_pool().free_bytes())

    def describe(self) -> str:
        """One line: the device and what the backend was built on."""
        description = self.module.device_description(0 if self.logical else self.index)
        return f"{self.device}: {description}; {self.module.build_description()}"

    def current_stream(self) -> Any:
        """CuPy's object for this GPU's current stream."""
        return self.xp.cuda.get_current_stream(self.index)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Within the block, this is the current device; nothing on the host."""
        if self.xp is np:
            return contextlib.nullcontext()
        return self.xp.cuda.Device(self.index)


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


def cuda_problem(index: int = 0) -> str | None:
    """Why a CUDA device cannot be used and what to do, or None where it can.

    Args:
        index: number of the device, from 0.

    Raises:
        BrokenBackendError: there is a CUDA backend, but it cannot be imported.
    """
    try:
        module = load("_cuda")
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


@contextlib.contextmanager
def use(device: str | Backend) -> Iterator[Backend]:
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
    backend = get(device)
    token = _chosen.set(backend)
    try:
        with backend.active():
            yield backend
    finally:
        _chosen.reset(token)


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
