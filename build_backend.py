"""What pip calls to build convnet: scikit-build-core, with nvcc from PyPI where that is asked for.

`CONVNET_CUDA=pypi pip install .` builds the CUDA backend on a machine without a CUDA toolkit: the
compiler is then one more build requirement, which pip puts into the build's own environment. It
takes 350 MB there while the build lasts, and nothing of it is needed afterwards. So does
`CONVNET_VGPU=on` where there is no nvcc.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from scikit_build_core import build as _build
from scikit_build_core.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# The compiler (which brings ptxas, nvvm and its headers), the runtime's headers and static library.
NVCC = ["nvidia-cuda-nvcc>=13,<14", "nvidia-cuda-runtime>=13,<14", "nvidia-cuda-cccl>=13,<14"]

Settings = Mapping[str, str | list[str]] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _build.get_requires_for_build_wheel(config_settings) + _nvcc()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _build.get_requires_for_build_editable(config_settings) + _nvcc()


def _nvcc() -> list[str]:
    from_pypi = os.environ.get("CONVNET_CUDA", "").lower() == "pypi"
    for_vgpu = os.environ.get("CONVNET_VGPU", "").lower() in ("on", "1", "true", "yes")
    found = bool(os.environ.get("CUDACXX")) or shutil.which("nvcc") is not None
    return NVCC if from_pypi or (for_vgpu and not found) else []
