"""Backends: a compiled module that implements the operations, and the array library it works on.

``cpu`` works on NumPy arrays, ``cuda`` on CuPy arrays; ``vgpu`` runs the CUDA kernels on
the CPU, on NumPy arrays, and exists for tests. Functions of `convnet.ops` follow the
arrays they are given; `use` chooses another backend for NumPy arrays. Nothing outside of this
folder imports CuPy.
"""

from convnet.backend.choice import DLPACK_CPU, FOR_TESTS, get, get_all, of, set_threads, use
from convnet.backend.cuda import CUPY_PACKAGES, cuda_problem
from convnet.backend.device import Array, Backend
from convnet.common.compiled import BrokenBackendError, DeviceError

__all__ = [
    "CUPY_PACKAGES",
    "DLPACK_CPU",
    "FOR_TESTS",
    "Array",
    "Backend",
    "BrokenBackendError",
    "DeviceError",
    "cuda_problem",
    "get",
    "get_all",
    "of",
    "set_threads",
    "use",
]
