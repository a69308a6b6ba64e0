"""A backend that was built and cannot be imported is reported: by devices, doctor and the tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
from paths import ROOT

import convnet
from convnet import backend
from convnet.cli.main import main

SYMBOL = "undefined symbol: __tsan_read4"

# A module for pytest's -p, after which the virtual GPU is there and cannot be loaded.
PLUGIN = f"""
import importlib.machinery, sys

class Broken:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "convnet._vgpu":
            return importlib.machinery.ModuleSpec(name, Broken)

    @staticmethod
    def create_module(spec):
        raise ImportError({SYMBOL!r})

    @staticmethod
    def exec_module(module):
        pass

sys.meta_path.insert(0, Broken)
"""


@pytest.fixture
def broken(monkeypatch):
    """broken(name): that module of convnet is there and cannot be loaded."""
    import_module = importlib.import_module

    def break_module(name):
        def import_or_fail(asked, *args):
            if asked == f"convnet.{name}":
                raise ImportError(SYMBOL)
            return import_module(asked, *args)

        monkeypatch.setattr(backend.choice, "_backends", {})
        monkeypatch.setattr(importlib, "import_module", import_or_fail)

    return break_module


@pytest.mark.parametrize(
    ("module", "device"),
    [("_cpu", "cpu"), ("_vgpu", "vgpu"), ("_cuda", "cuda"), ("_cuda", "auto")],
)
def test_the_device_says_what_is_wrong(broken, module, device):
    broken(module)
    with pytest.raises(
        convnet.DeviceError,
        match=f"convnet.{module} was built, but cannot be imported: {SYMBOL}; install",
    ):
        backend.get(device)


def test_doctor_calls_it_a_problem(broken, capsys):
    broken("_vgpu")
    main(["doctor"])
    assert f"problem: vgpu: convnet._vgpu was built, but cannot be imported: {SYMBOL}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("options", [[], ["--backend", "vgpu"]])
def test_no_test_runs_without_it(tmp_path, options):
    (tmp_path / "broken_vgpu.py").write_text(PLUGIN)
    command = [sys.executable, "-P", "-m", "pytest", "-p", "broken_vgpu"]
    result = subprocess.run(
        [
            *command,
            "-p",
            "no:cacheprovider",
            *options,
            "--collect-only",
            "tests/kernels/test_softmax.py",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"convnet._vgpu was built, but cannot be imported: {SYMBOL}" in result.stderr
