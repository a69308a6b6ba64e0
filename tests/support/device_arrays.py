"""A stand-in for CuPy: the virtual GPU's arrays in a type out of NumPy's reach."""

from __future__ import annotations

import types
from typing import Any

import fake_cuda
import numpy as np
import pytest

import convnet
from convnet.backend import Backend


class DeviceArray:
    """An array out of NumPy's reach."""

    __array__ = None  # numpy.asarray(self) raises
    __array_ufunc__ = None

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)

    flags = property(lambda self: self.host.flags)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        return DeviceArray(self.host.astype(dtype, copy=copy))

    def __eq__(self, other: object) -> DeviceArray:  # type: ignore[override]
        assert isinstance(other, DeviceArray)
        return DeviceArray(self.host == other.host)

    def __add__(self, other: DeviceArray) -> DeviceArray:
        return DeviceArray(self.host + other.host)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self.host[bare_index(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[bare_index(index)] = value.host if isinstance(value, DeviceArray) else value

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self.host.reshape(*shape))

    def fill(self, value: float) -> None:
        self.host.fill(value)

    def sum(self, dtype: Any = None) -> DeviceArray:
        return DeviceArray(np.asarray(self.host.sum(dtype=dtype)))

    def __float__(self) -> float:
        return float(self.host)

    def all(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.host.all()))

    def __bool__(self) -> bool:
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.host.view(dtype))

    def get(self, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        assert blocking or out is not None
        if out is None:
            return self.host.copy()
        assert self.flags.c_contiguous
        assert out.flags.c_contiguous
        out[...] = self.host
        return out

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        assert isinstance(host, np.ndarray)
        assert host.dtype == self.dtype
        self.host[...] = host

    def copy(self) -> DeviceArray:
        return DeviceArray(self.host.copy())


def bare_index(index: Any) -> Any:
    assert not isinstance(index, np.ndarray), "CuPy is indexed with its own arrays"
    return index.host if isinstance(index, DeviceArray) else index


def bare(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise AssertionError("an operation was given an array of the host")
    if isinstance(value, (list, tuple)):
        return type(value)(map(bare, value))
    return value.host if isinstance(value, DeviceArray) else value


class Module:
    """The virtual GPU's operations, on DeviceArrays only."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name in ("philox", "infer", "schema"):  # on the host; they look at no values
            return function
        return lambda *args: function(*map(bare, args))


def to_device(array: Any, dtype: Any = None) -> DeviceArray:
    return array if isinstance(array, DeviceArray) else DeviceArray(np.array(array, dtype))


XP = types.SimpleNamespace(
    empty=lambda shape, dtype: DeviceArray(np.full(shape, 77, dtype)),
    zeros=lambda shape, dtype: DeviceArray(np.zeros(shape, dtype)),
    asarray=to_device,
    ascontiguousarray=lambda array: DeviceArray(np.ascontiguousarray(array.host)),
    isfinite=lambda array: DeviceArray(np.isfinite(array.host)),
    square=lambda array: DeviceArray(np.square(array.host)),
    sum=lambda array, dtype: DeviceArray(np.asarray(array.host.sum(dtype=dtype))),
    get_default_memory_pool=lambda: types.SimpleNamespace(free_bytes=lambda: 0),
    cuda=types.SimpleNamespace(
        runtime=types.SimpleNamespace(memGetInfo=lambda: (2**30, 2**30)),
        get_current_stream=None,  # see fake_cuda
        Device=None,
    ),
)


def become_device(monkeypatch: pytest.MonkeyPatch, vgpu: Backend, index: int = 0) -> Backend:
    """From now on all arrays are DeviceArrays, and "cuda:index" is the virtual GPU working on them;
    the current device is 0."""
    backend = Backend("cuda", Module(vgpu.module), XP, index)  # type: ignore[arg-type]
    fake_cuda.install(monkeypatch, [backend], XP, DeviceArray)

    def of(*arrays: Any) -> Backend:
        traced = [array.traced_on for array in arrays if hasattr(array, "traced_on")]
        if traced:
            return traced[0]
        for array in arrays:
            assert array is None or isinstance(array, DeviceArray), type(array)
        return backend

    monkeypatch.setattr(convnet.backend, "of", of)
    monkeypatch.setitem(convnet.backend._backends, backend.device, backend)
    return backend
