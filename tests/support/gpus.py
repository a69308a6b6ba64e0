"""What tests must know of the GPU that they run on."""

from __future__ import annotations

from convnet.backend import Backend


def is_virtual(cuda: Backend) -> bool:
    """Whether CUDA's driver is that of the virtual GPU (cupy_on_vgpu.py)."""
    return ": vgpu " in cuda.describe()
