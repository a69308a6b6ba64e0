"""What the binding reads from GPU arrays of other libraries, and what it refuses.

The arrays here only describe themselves as GPU arrays; all of this is checked before any of their
memory is touched, so no GPU is needed, just the CUDA backend. Where there is one, it is asked whose
memory it is, and they name some of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from typing import Any

import numpy as np
import pytest

import convnet

try:
    cuda = importlib.import_module("convnet._cuda")
except ModuleNotFoundError:
    pytest.skip("built without CUDA", allow_module_level=True)

NO_GPU = cuda.device_count() == 0
pytestmark = [] if NO_GPU else [pytest.mark.gpu]


_twins: dict[int, tuple[Any, np.ndarray]] = {}  # memory of the GPU for arrays of the host


def address(array: np.ndarray) -> int:
    """Of memory of the GPU where there is one, the same for views of the same array."""
    if NO_GPU:
        return int(array.ctypes.data)
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    if id(base) not in _twins:
        _twins[id(base)] = importlib.import_module("cupy").empty(base.nbytes, np.uint8), base
    return int(_twins[id(base)][0].data.ptr + array.ctypes.data - base.ctypes.data)


class Interface:
    """An array that speaks ``__cuda_array_interface__``, version 3."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self.array = array
        self.shape = array.shape
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address(array), False),
            "strides": None,
            "version": 3,
            "stream": 1,
            **changes,
        }


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class DLPack:
    """An array that speaks DLPack: of version 1, or of 0.x, which knows no ``max_version``."""

    def __init__(
        self,
        array: np.ndarray,
        versioned: bool = True,
        read_only: bool = False,
        device: int = 2,
        major: int = 1,
    ) -> None:
        self.array, self.versioned, self.device = array, versioned, device
        self.read_only, self.major = read_only, major
        self.shape = array.shape
        self.asked: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        if not self.versioned and "max_version" in options:
            raise TypeError("unexpected keyword max_version")
        rank, array = self.array.ndim, self.array
        begin = int(array.ctypes.data) if self.device == 1 else address(array)
        self.sizes = (ctypes.c_int64 * rank)(*array.shape)
        self.steps = (ctypes.c_int64 * rank)(*(step // array.itemsize for step in array.strides))
        tensor = Tensor(
            begin - 64,
            self.device,
            0,
            rank,
            CODES[array.dtype.kind],
            8 * array.itemsize,
            1,
            self.sizes,
            self.steps,
            64,
        )
        if self.versioned:
            self.managed: Any = ManagedVersioned(
                self.major, 0, None, None, int(self.read_only), tensor
            )
            return new_capsule(ctypes.addressof(self.managed), b"dltensor_versioned", None)
        self.managed = Managed(tensor, None, None)
        return new_capsule(ctypes.addressof(self.managed), b"dltensor", None)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def lrn(x: Any, y: Any, stream: int = 0) -> None:
    cuda.lrn_fprop(x, y, 5, 2.0, 1e-4, 0.75, 1, "sum", stream)


KINDS = {
    "interface": Interface,
    "dlpack-1": DLPack,
    "dlpack-0": lambda array: DLPack(array, versioned=False),
}


@pytest.fixture(params=KINDS)
def gpu(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


def launched() -> contextlib.AbstractContextManager[Any]:
    """Within the block a kernel is launched, which without a GPU is the error."""
    if not NO_GPU:
        return contextlib.nullcontext()
    return pytest.raises(RuntimeError, match=r"^lrn_fprop: src/kernels/lrn\.cu:\d+: .*driver")


def test_good_arrays_reach_the_launch(gpu: Any) -> None:
    with launched():
        lrn(gpu(floats(2, 3, 3, 8)), gpu(floats(2, 3, 3, 8)))


def test_dtype(gpu: Any) -> None:
    with pytest.raises(ValueError, match=r"x: expected float32 or bfloat16, got float64"):
        lrn(gpu(np.zeros((2, 3, 3, 8))), gpu(floats(2, 3, 3, 8)))
    with pytest.raises(ValueError, match=r"x: expected float32 or bfloat16, got int32"):
        lrn(gpu(np.zeros((2, 3, 3, 8), np.int32)), gpu(floats(2, 3, 3, 8)))


def test_shape(gpu: Any) -> None:
    with pytest.raises(ValueError, match=r"lrn_fprop: y: expected shape .*got"):
        lrn(gpu(floats(2, 3, 3, 8)), gpu(floats(2, 3, 3, 4)))


def test_strides() -> None:
    x = floats(2, 8, 3, 3).transpose(0, 2, 3, 1)
    message = r"lrn_fprop: x: expected a C-contiguous array.*cupy\.ascontiguousarray"
    with pytest.raises(ValueError, match=message):
        lrn(DLPack(x), DLPack(floats(2, 3, 3, 8)))
    with pytest.raises(ValueError, match=message):
        lrn(Interface(x, strides=x.strides), Interface(floats(2, 3, 3, 8)))


def test_strides_of_single_elements_do_not_matter() -> None:
    x = floats(1, 8)[:, ::8]  # [1, 1] with a stride of 8
    with launched():
        lrn(DLPack(x), DLPack(floats(1, 1)))


def test_read_only() -> None:
    for y in (
        DLPack(floats(2, 8), read_only=True),
        Interface(floats(2, 8), data=(address(floats(2, 8)), True)),
    ):
        with pytest.raises(ValueError, match="lrn_fprop: y: expected a writable array"):
            lrn(Interface(floats(2, 8)), y)


def test_overlap(gpu: Any) -> None:
    x = floats(3, 8)
    with pytest.raises(ValueError, match="lrn_fprop: y: expected memory apart from x"):
        lrn(gpu(x[:2]), gpu(x[1:]))


def test_arrays_of_the_host(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"x: expected a GPU array .*got ndarray.*cupy\.asarray"):
        lrn(floats(2, 8), gpu(floats(2, 8)))
    with pytest.raises(ValueError, match=r"x: expected a GPU array .*got DLPack"):
        lrn(DLPack(floats(2, 8), device=1), gpu(floats(2, 8)))
    if not NO_GPU:
        monkeypatch.setattr(f"{__name__}.address", lambda array: array.ctypes.data)
        with pytest.raises(ValueError, match="x: expected memory of a GPU, got memory of no GPU"):
            lrn(gpu(floats(2, 8)), gpu(floats(2, 8)))


def test_another_version_of_dlpack() -> None:
    with pytest.raises(ValueError, match=r"x: expected a DLPack tensor of version 1, got .*2"):
        lrn(DLPack(floats(2, 8), major=2), DLPack(floats(2, 8)))


def test_the_producer_is_told_our_stream() -> None:
    x = DLPack(np.zeros((2, 8)))  # float64, so that nothing is launched
    for stream, told in ((0, 1), (2, 2), (12345, 12345)):
        with pytest.raises(ValueError, match="float64"):
            lrn(x, DLPack(floats(2, 8)), stream=stream)
        assert x.asked[-1]["stream"] == told


def test_dlpack_is_used_where_the_interface_names_no_stream() -> None:
    class Both(DLPack):
        version = 2

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {**Interface(self.array).__cuda_array_interface__, "version": self.version}

    x = Both(np.zeros((2, 8)))
    with pytest.raises(ValueError, match="float64"):
        lrn(x, x)
    assert len(x.asked) == 1
    x.version = 3
    with pytest.raises(ValueError, match="float64"):
        lrn(x, x)
    assert len(x.asked) == 1


def test_errors_of_the_producer_are_passed_on() -> None:
    class Broken(DLPack):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("cannot export")

    with pytest.raises(BufferError, match="cannot export"):
        lrn(Broken(floats(2, 8)), DLPack(floats(2, 8)))


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_ops_say_why_there_is_no_gpu(gpu: Any) -> None:
    with pytest.raises(convnet.DeviceError, match=r"device 'cuda:0': no NVIDIA driver"):
        convnet.ops.relu_fprop(gpu(floats(2, 8)))


def test_host_tensors_of_other_libraries() -> None:
    x = floats(2, 8)
    found = convnet.ops.relu_fprop(DLPack(x, device=1))
    assert np.array_equal(found, np.maximum(x, 0))
