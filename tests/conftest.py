"""The backends that tests run on: `pytest --backend cpu,vgpu,cuda`, by default all found.

`pytest -n auto` runs them in as many processes as there are cores. `--thorough` adds the cases that
are marked so: more seeds and sizes of what other cases test too. CI runs them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import signals
from gpus import is_virtual

# Each of several processes takes its share of the cores. OpenMP reads this when it is loaded.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))

# What one test finds out about files is not for the next, and not for the user.
os.environ["CONVNET_CACHE"] = "off"

import convnet.backend

NAMES = ("cpu", "vgpu", "cuda")
BACKENDS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        default=None,
        help="comma list of cpu, vgpu, cuda (default: every one available here)",
    )

    parser.addoption("--thorough", action="store_true", help="also the tests marked thorough")


def pytest_configure(config: pytest.Config) -> None:
    asked = config.getoption("--backend")
    if asked is None:
        config.stash[BACKENDS] = [name for name in NAMES if missing(name) is None]
        return
    for name in asked.split(","):
        reason = missing(name) if name in NAMES else f"expected one of {', '.join(NAMES)}"
        if reason:
            raise pytest.UsageError(f"--backend {name}: {reason}")
    config.stash[BACKENDS] = asked.split(",")


def missing(name: str) -> str | None:
    """Why a backend cannot run here; None where it can.

    One that was built and cannot be imported would leave out its tests without a word: no test runs
    then.
    """
    try:
        convnet.backend.get(name)
    except convnet.backend.BrokenBackendError as error:
        raise pytest.UsageError(str(error)) from error
    except convnet.backend.DeviceError as error:
        return str(error)
    return None


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [convnet.backend.get(name).describe() for name in config.stash[BACKENDS]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, excluded in (("backend", ()), ("kernels_backend", ("cpu",))):
        if fixture in metafunc.fixturenames:
            params = [
                pytest.param(name, marks=[pytest.mark.gpu] if name == "cuda" else [])
                for name in metafunc.config.stash[BACKENDS]
                if name not in excluded
            ]
            metafunc.parametrize(fixture, params, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests that want a GPU, and leaves out cases too large for one that is virtual, and
    the thorough ones unless they are asked for."""
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)
    slow = {"vgpu"}
    if "cuda" in config.stash[BACKENDS] and is_virtual(convnet.backend.get("cuda")):
        slow.add("cuda")
    left_out = [item for item in items if too_large(getattr(item, "callspec", None), slow)]
    if not config.getoption("--thorough"):
        left_out += [item for item in items if item.get_closest_marker("thorough")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def too_large(callspec: Any, slow: set[str]) -> bool:
    if callspec is None or slow.isdisjoint(map(str, callspec.params.values())):
        return False
    return not getattr(callspec.params.get("case"), "small", True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[convnet.backend.Backend]:
    """The backend under test, chosen for `convnet.ops` and layers while the test runs."""
    with convnet.backend.use(request.param):
        yield convnet.backend.get(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers of the test's own: the same in every run and on every backend."""
    return np.random.default_rng(zlib.crc32(request.node.originalname.encode()))


@pytest.fixture
def default_signals() -> Iterator[None]:
    """For tests that send themselves or a child a hangup or Ctrl-C."""
    with signals.by_default():
        yield


@pytest.fixture
def kernels_backend(request: pytest.FixtureRequest) -> Iterator[convnet.backend.Backend]:
    """As `backend`, where it runs the CUDA kernels: on a GPU or a virtual one."""
    with convnet.backend.use(request.param):
        yield convnet.backend.get(request.param)


@pytest.fixture
def vgpu() -> convnet.backend.Backend:
    """The virtual GPU, which runs the CUDA kernels without a GPU, where it was built."""
    return available("vgpu")


@pytest.fixture
def cuda() -> convnet.backend.Backend:
    """The first GPU, where there is one; support/cupy_on_vgpu.py runs CuPy without."""
    return available("cuda")


@pytest.fixture
def virtual_cuda(cuda: convnet.backend.Backend) -> convnet.backend.Backend:
    """As `cuda`, where it is the virtual GPU."""
    if not is_virtual(cuda):
        pytest.skip("a real GPU does not show what was forgotten")
    return cuda


def available(name: str) -> convnet.backend.Backend:
    try:
        return convnet.backend.get(name)
    except convnet.backend.DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def tensor_cores(vgpu: convnet.backend.Backend) -> convnet.backend.Backend:
    """The virtual GPU where mma.sync takes TF32: from compute capability 8.0 (VGPU_CC) on."""
    if "sm_75" in vgpu.describe():
        pytest.skip("no tensor cores for TF32: compute capability below 8.0")
    return vgpu


@pytest.fixture
def hopper(vgpu: convnet.backend.Backend) -> convnet.backend.Backend:
    """The virtual GPU where it is of compute capability 9.0 (VGPU_CC), as it is by default."""
    if "sm_90" not in vgpu.describe():
        pytest.skip("no Hopper: there is mma.sync alone")
    return vgpu
