"""Each reason why a GPU cannot be used has a message of its own, with what to do about it."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types

import pytest

import convnet
from convnet import backend
from convnet.backend import choice
from convnet.common import compiled


class Cuda(types.ModuleType):
    """Stands in for convnet._cuda: so many devices, and what keeps them from being used."""

    def __init__(self, devices: int = 1, problem: str = "") -> None:
        super().__init__("convnet._cuda")
        self.devices, self.problem = devices, problem

    def start_backend(self) -> None:
        pass

    def device_count(self) -> int:
        return self.devices

    def device_description(self, device: int = 0) -> str:
        if self.problem:
            raise RuntimeError(f"device_description: {self.problem}")
        return "a GPU"


@pytest.fixture
def machine(monkeypatch):
    """machine(cuda, cupys, cupy): a machine with this module, packages of CuPy and module cupy."""
    monkeypatch.setattr(choice, "_backends", {})

    def set_up(cuda=None, packages=("cupy-cuda13x",), cupy="works"):
        monkeypatch.setitem(sys.modules, "convnet._cuda", cuda)
        monkeypatch.setattr(convnet, "_cuda", cuda, raising=False)

        def version(name):
            if name in packages:
                return "14.0"
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        module = types.ModuleType("cupy")
        module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        monkeypatch.setitem(sys.modules, "cupy", module if cupy == "works" else None)
        if cupy == "broken":

            def find_spec(name):
                return module.__spec__

            def import_module(name):
                if name == "cupy":
                    raise ImportError("libcudart.so.12: cannot open\nand a page of advice")
                return sys.modules[name]

            monkeypatch.setattr(importlib.util, "find_spec", find_spec)
            monkeypatch.setattr(importlib, "import_module", import_module)

    return set_up


def refusal(device="cuda"):
    with pytest.raises(convnet.DeviceError) as error:
        backend.get(device)
    return str(error.value)


def test_nothing_is_wrong(machine):
    machine(Cuda())
    assert backend.cuda_problem() is None
    assert backend.get("auto").device == "cuda:0"


def test_built_without_cuda(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(compiled, "cuda_build_reason", lambda: "no CUDA compiler: nvcc was not")
    assert refusal() == (
        "device 'cuda:0': this installation has no CUDA backend (no CUDA compiler: nvcc was not)"
    )
    assert backend.get("auto").device == "cpu"


@pytest.mark.parametrize(
    "problem",
    [
        "no NVIDIA driver is installed, or it is not visible here",
        "the NVIDIA driver is for CUDA 11.4, this build needs 13.0: update the driver",
        "this build has no code for Tesla K80, sm_37; set CONVNET_CUDA_ARCHS and build again",
    ],
)
def test_what_the_driver_says_is_passed_on(machine, problem):
    machine(Cuda(devices=0, problem=problem))
    assert refusal() == f"device 'cuda:0': {problem}"


def test_a_device_that_is_not_there(machine):
    machine(Cuda(devices=2))
    assert backend.get("cuda:1").index == 1
    assert refusal("cuda:2") == "device 'cuda:2': there are 2 CUDA devices, numbered from 0"


def test_no_cupy(machine, monkeypatch):
    machine(Cuda(), packages=(), cupy="absent")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal() == (
        "device 'cuda:0': CuPy is not installed: "
        "pip install 'convnet-kernels[cuda13]' (or [cuda12])"
    )


def test_two_cupys(machine):
    machine(Cuda(), packages=("cupy-cuda12x", "cupy-cuda13x"))
    assert refusal() == (
        "device 'cuda:0': 2 packages of CuPy are installed, which overwrite each other "
        "(cupy-cuda12x, cupy-cuda13x): uninstall all of them, then install one"
    )


def test_a_cupy_that_cannot_be_imported(machine):
    machine(Cuda(), cupy="broken")
    assert refusal() == ("device 'cuda:0': CuPy cannot be imported: libcudart.so.12: cannot open")
