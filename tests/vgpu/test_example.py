"""The example of docs/virtual-gpu.md: a CUDA program of one's own on the virtual GPU."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from kernels import nvcc

PAGE = (ROOT / "docs" / "virtual-gpu.md").read_text()


@pytest.mark.parametrize("flags", ["", "-DWITHOUT_BARRIER"])
def test_the_commands_of_the_page(tmp_path: Path, flags: str) -> None:
    """They print what the page says, also for the kernel with its barrier left out."""
    compiles, runs = re.findall(r"^(?:nvcc|python) .*block_sum.*$", PAGE, re.MULTILINE)
    library = str(tmp_path / "block_sum.so")
    command = compiles.replace("nvcc", nvcc(), 1).replace("block_sum.so", library) + " " + flags
    subprocess.run(shlex.split(command), check=True, cwd=ROOT)
    command = runs.replace("python", sys.executable, 1).replace("block_sum.so", library)
    ran = subprocess.run(shlex.split(command), capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    said = (ran.stderr + ran.stdout).replace(f"{ROOT}/", "")
    expected = PAGE.split("prints\n\n```\n")[2 if flags else 1].split("\n```")[0]
    pattern = re.escape(expected).replace(r"PTX\ line\ 58", "PTX line [0-9]+")
    assert re.fullmatch(pattern.replace(r"\.\.\.", ".*"), said.rstrip("\n"))
