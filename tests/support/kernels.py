"""Kernels of a .cu file, compiled to PTX and run on the virtual GPU."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from ptx import Buffer, PtxError, run_text

FOLDER = Path(__file__).parents[1] / "vgpu"
ORDERS = ["forward", "reverse", "shuffle:1", "shuffle:2", "shuffle:3"]


def nvcc() -> str:
    """The compiler on the PATH, else the one that the extra `test` brings."""
    on_path = shutil.which("nvcc")
    if on_path:
        return on_path
    files = importlib.metadata.files("nvidia-cuda-nvcc") or []
    return next(str(file.locate()) for file in files if file.name == "nvcc")


@functools.cache
def compiled(name: str, architecture: str) -> str:
    """The PTX of a file of tests/vgpu."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "kernels.ptx")
        command = [nvcc(), "-O3", "-lineinfo", "-std=c++17", f"-arch={architecture}", "-ptx"]
        # nvcc does not run under a sanitizer that is preloaded for the tests.
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        command += [str(FOLDER / name), "-o", str(out)]
        subprocess.run(command, check=True, env=environment)
        return out.read_text()


class Kernels:
    """The kernels of a .cu file of tests/vgpu, whose parameters are two arrays x and y."""

    def __init__(self, name: str, architecture: str = "compute_90a") -> None:
        self.path = FOLDER / name
        self.text = compiled(name, architecture)

    def run(
        self,
        kernel: str,
        x: np.ndarray,
        y: np.ndarray,
        *,
        grid: int | tuple[int, int] = 1,
        block: int = 64,
        shared: int = 0,
        order: str = "forward",
    ) -> np.ndarray:
        """y after the kernel. Raises PtxError."""
        buffers = [Buffer(x), Buffer(y)]
        blocks = (grid, 1) if isinstance(grid, int) else grid
        params = struct.pack("<QQ", *(buffer.address for buffer in buffers))
        try:
            with mock.patch.dict(os.environ, VGPU_ORDER=order):
                run_text(self.text, params, (*blocks, 1), (block, 1, 1), shared, kernel)
            return buffers[1].read()
        finally:
            for buffer in buffers:
                buffer.free()

    def message(self, kernel: str, x: np.ndarray, y: np.ndarray, **launch: object) -> str:
        """What is said of a kernel that fails."""
        try:
            self.run(kernel, x, y, **launch)  # type: ignore[arg-type]
        except PtxError as error:
            return str(error)
        raise AssertionError(f"{kernel} was taken for right")


def is_at(message: str, kernels: Kernels, name: str) -> bool:
    """Whether a message names a line that ends with ``MARK: name``.

    Of a statement of several lines, some versions of nvcc name the first and some the last.
    """
    lines = enumerate(kernels.path.read_text().splitlines(), 1)
    numbers = [number for number, line in lines if line.endswith(f"// MARK: {name}")]
    assert numbers, f"no MARK: {name} in {kernels.path}"
    return any(re.search(rf"{kernels.path.name}:{number}\b", message) for number in numbers)
