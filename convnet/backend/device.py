"""Backend: one device, which is a compiled module of operations and the array library for it."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from convnet.common.host_array import owned, plain
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


_NO_CHANGE = contextlib.nullcontext()


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
        if self.logical:
            if getattr(array, "owner", None) is self and array.flags.c_contiguous:
                return array
            return self.own(np.array(_known(array), order="C"))
        if self.xp is np:
            return np.ascontiguousarray(array if isinstance(array, np.ndarray) else _known(array))
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
            array[...] = host
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
            return _NO_CHANGE
        return self.xp.cuda.Device(self.index)


def _known(array: Any) -> Any:
    """What NumPy takes for an array: CuPy's is copied, of others the memory is taken."""
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):
        with array.device:
            return array.get()
    if not hasattr(array, "flags") and hasattr(array, "__dlpack__"):
        return np.from_dlpack(array)  # PyTorch, JAX and others
    return array
