"""Runs pytest --backend cuda with the real CuPy, on a machine without a GPU.

    python tests/support/cupy_on_vgpu.py [--folder FOLDER] [--devices N] [PYTEST ARGUMENTS]

CuPy talks to the virtual GPU's libcuda.so.1, and so does a convnet._cuda whose kernels are the PTX
that nvcc made: build with CONVNET_VGPU=on and CONVNET_VGPU_LIBRARY=on. Nothing is installed: CuPy,
NVRTC and what builds CuPy's module are downloaded with pip into the folder (1 GB), once, and put on
PYTHONPATH.

CuPy's wheel is linked with NVIDIA's own runtime library, which runs over NVIDIA's driver only. One
of its modules calls it: cupy_backends.cuda.api.runtime. That one is built from CuPy's source
against the virtual GPU's library, and imported instead (cupy_vgpu/sitecustomize.py).

What of CuPy is missing then: cuBLAS, cuRAND, cuFFT and the like, CUB, memory pools of the driver
(cudaMallocAsync), managed memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

CUPY = "14.2.0"
PACKAGES = [f"cupy-cuda13x=={CUPY}", "cuda-pathfinder==1.9.1", "nvidia-cuda-nvrtc==13.5.37"]
BUILDERS = ["cython==3.3.1", "setuptools==84.2.1"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
HERE = Path(__file__).resolve().parent


def pip(*arguments: str | Path, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(
        [*command, "-q", "--disable-pip-version-check"], env=os.environ | environment
    )
    if done.returncode != 0:
        raise SystemExit(f"CuPy could not be fetched, nothing was tested: {' '.join(command)}")


def download(folder: Path) -> None:
    """CuPy, NVRTC and the builders into folder/site, CuPy's source into folder/source."""
    done = folder / f"downloaded-{CUPY}"
    if done.exists():
        return
    site = folder / "site"
    pip("install", "--target", site, "--upgrade", "--no-deps", *PACKAGES, *BUILDERS)
    # pip asks the source for its metadata; built for its documentation, it wants no toolkit.
    pip(
        "download",
        "--no-binary=:all:",
        "--no-deps",
        "--no-build-isolation",
        f"cupy=={CUPY}",
        "--dest",
        folder,
        READTHEDOCS="True",
        PYTHONPATH=str(site),
    )
    with tarfile.open(folder / f"cupy-{CUPY}.tar.gz") as source:
        if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
            source.extraction_filter = tarfile.data_filter
        source.extractall(folder / "source")
    done.touch()


def build_runtime(folder: Path, libraries: Path, include: Path) -> Path:
    """CuPy's module of the runtime API, linked with the virtual GPU's library."""
    made = folder / f"runtime-{CUPY}{SUFFIX}"
    if made.exists():
        return made
    source = folder / "source" / f"cupy-{CUPY}"
    code = source / "cupy_backends/cuda/api/runtime.cpp"
    settings = {
        "CUPY_CUDA_VERSION": 13000,
        "CUPY_HIP_VERSION": 0,
        "CUPY_USE_CUDA_PYTHON": False,
        "CUPY_CUFFT_STATIC": False,
        "CUPY_DTYPE": False,
        "CYTHON_VERSION": "3",
    }
    subprocess.run(
        [
            sys.executable,
            *("-m", "cython", "-3", "--cplus", "-X", "always_allow_keywords=True"),
            *(part for name, value in settings.items() for part in ("-E", f"{name}={value}")),
            *(code.with_suffix(".pyx"), "-o", code),
        ],
        check=True,
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(folder / "site")},
        stderr=subprocess.DEVNULL,  # what later versions of Cython will not take
    )
    folders = [include, "cupy/_core/include", "cupy_backends", ".", sysconfig.get_path("include")]
    subprocess.run(
        [
            *("c++", "-shared", "-fPIC", "-O1", "-w", "-D_FORCE_INLINES=1"),
            *(f"-I{each}" for each in folders),
            *(code, "-o", made, str(libraries / "libcuda.so.1")),
        ],
        check=True,
        cwd=source,
    )
    return made


def environment(folder: Path, libraries: Path, toolkit: Path, devices: int) -> dict[str, str]:
    """The environment in which convnet and CuPy run on the virtual GPU."""
    modules = {
        "cupy_backends.cuda.api.runtime": build_runtime(folder, libraries, toolkit / "include"),
        "convnet._cuda": libraries / f"_cuda{SUFFIX}",
    }
    nvrtc = folder / "site/nvidia/cu13/lib"
    found = os.environ.get("LD_LIBRARY_PATH")
    return os.environ | {
        "CUDA_PATH": str(toolkit),
        "LD_LIBRARY_PATH": ":".join(map(str, filter(None, [libraries, nvrtc, found]))),
        "PYTHONPATH": f"{HERE / 'cupy_vgpu'}:{folder / 'site'}",
        "VGPU_MODULES": "\n".join(f"{name}={file}" for name, file in modules.items()),
        "VGPU_DEVICES": str(devices),
        "CUPY_COMPILE_WITH_PTX": "1",
        "CUPY_CACHE_IN_MEMORY": "1",
        "CUPY_ACCELERATORS": "",  # CUB's kernels ask for what is not there
    }


def libraries_folder() -> Path:
    """Where the build has put the libraries of the virtual GPU and a convnet._cuda for them."""
    found = importlib.util.find_spec("convnet._vgpu")
    folder = Path(found.origin).parent / "vgpu" if found and found.origin else None
    if folder is None or not (folder / "libcuda.so.1").exists():
        raise SystemExit(
            "the virtual GPU's libcuda.so.1 is missing: build with CONVNET_VGPU=on "
            "CONVNET_VGPU_LIBRARY=on"
        )
    return folder


def toolkit_folder() -> Path:
    """The CUDA toolkit of the nvcc on the PATH: its headers are what CuPy's kernels include."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("no nvcc on the PATH: name a toolkit with --toolkit")
    done = subprocess.run(
        [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, check=True
    )
    return Path(re.search(r"(?m)^#\$ TOP=(.*)$", done.stderr).group(1)).resolve()  # type: ignore[union-attr]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/cupy"))
    parser.add_argument("--libraries", type=Path, default=None)
    parser.add_argument("--toolkit", type=Path, default=None)
    parser.add_argument("--devices", type=int, default=2)
    options, rest = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    libraries = (options.libraries or libraries_folder()).resolve()
    download(folder)
    variables = environment(folder, libraries, options.toolkit or toolkit_folder(), options.devices)
    # -P: not the sources in this folder, but what is installed.
    command = [sys.executable, "-P", "-m", "pytest", "--backend", "cuda", *rest]
    return subprocess.run(command, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
