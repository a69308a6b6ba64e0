"""`convnet bench conv --counters` and `benchmarks/conv_throughput.py --counters`, on small nets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

import convnet.backend
from convnet import ops
from convnet.cli.main import main
from convnet.counters.counts import counted

COMMAND = ["bench", "conv", "fashion-mnist", "--counters", "--image", "9,9,2", "--batch", "2"]
SHAPE = ["--shape", "2,5,5,4,8,3,3", "--pad", "1"]


@pytest.fixture(autouse=True)
def _needs_the_module() -> None:
    pytest.importorskip("convnet._vgpu")


def test_json_has_every_pass_and_its_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = [row["name"] for row in rows]
    assert {"conv1 fprop", "conv1 wgrad", "conv2 fprop", "conv2 dgrad", "conv2 wgrad"} <= set(names)
    assert "conv1 dgrad" not in names
    for row in rows:
        assert row["kernels"], row["name"]
        for kernel in row["kernels"]:
            lines = kernel["lines"]
            for metric in ("warp_instructions", "shared_wavefronts", "global_sectors"):
                assert sum(line[metric] for line in lines) == kernel[metric]


def test_the_table_says_the_bound_and_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--passes", "fprop", "--gpu", "h200", "--lines", "2"]) == 0
    text = capsys.readouterr().out
    assert "conv1 fprop" in text
    assert "on h200" in text
    assert ".cu:" in text
    assert "It leaves out:" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "h300"], "--gpu: expected one of h200"),
        (["--passes", "all"], "--passes: expected some of fprop"),
        (["--against", "nowhere"], "--against: expected a folder with convnet/_vgpu"),
    ],
)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--passes", "fprop", *options]) != 0
    assert message in capsys.readouterr().err


def test_counts_of_a_convolution() -> None:
    """Multiply-adds by the definition: with ffma, each is one instruction of a lane, apart from
    those of lanes beyond the edges of tiles; and two runs agree."""
    backend = convnet.backend.get("vgpu")
    x, w = np.ones((2, 8, 8, 16), np.float32), np.ones((32, 3, 3, 16), np.float32)
    with convnet.backend.use(backend):
        runs = []
        y = backend.empty((2, 8, 8, 32))
        for _ in range(2):
            with counted(backend.module) as kernels:
                ops.conv_fprop(x, w, np.zeros(32, np.float32), pad=(1, 1), precision="ffma", out=y)
            runs.append(kernels)
    assert runs[0] == runs[1]
    flops = sum(kernel["float_flops"] for kernel in runs[0])
    least = 2 * y.size * 3 * 3 * 16
    assert least <= flops < 4 * least
    assert sum(kernel["dram_write_bytes"] for kernel in runs[0]) >= y.nbytes


def test_two_builds_are_compared(tmp_path: Path) -> None:
    """A copy of this build is the same."""
    shutil.copytree(
        ROOT / "convnet", tmp_path / "convnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    installed = Path(sys.modules["convnet._vgpu"].__file__ or "").parent
    for module in (*installed.glob("_vgpu*"), *installed.glob("_cpu*")):
        shutil.copy(module, tmp_path / "convnet")
    if (installed / "lib").exists():  # oneDNN, where it came with the wheel
        shutil.copytree(installed / "lib", tmp_path / "convnet" / "lib")
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "conv_throughput.py"), "--device", "vgpu"]
    command += ["--counters", *SHAPE, "--passes", "fprop,wgrad", "--json", str(report)]
    run = subprocess.run(
        [*command, "--against", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "conv fprop fp32: the same" in run.stdout
    assert "conv wgrad fp32: the same" in run.stdout
    assert [row["name"] for row in json.loads(report.read_text())["rows"]] == [
        "conv fprop fp32",
        "conv wgrad fp32",
    ]
