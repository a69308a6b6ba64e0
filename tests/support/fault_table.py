"""Planted faults and what the virtual GPU says of them: the table of docs/virtual-gpu.md.

    python tests/support/fault_table.py

runs every kernel of tests/vgpu/faults.cu, pipelines.cu and clusters.cu once and prints the table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from ptx import PtxError

from kernels import Kernels

FILES = ("faults.cu", "pipelines.cu", "clusters.cu")
PAGE = Path(__file__).parents[2] / "docs" / "virtual-gpu.md"
BEGIN, END = "<!-- planted faults -->", "<!-- end of planted faults -->"


def launch_of(file: str, kernel: str) -> dict[str, object]:
    """How the tests launch it."""
    if file == "clusters.cu":
        return {"grid": (4, 2) if kernel == "butterfly" else 4}
    if kernel.startswith("pipeline_"):
        return {"block": 160}
    if kernel.startswith("wgmma_"):
        return {"block": 128}
    shared = 256 if kernel == "shared_read_overrun" else 0
    return {"grid": 3 if kernel == "trap_in_one" else 1, "shared": shared}


FUNCTION = r"(?: \((?:[^()]|\([^()]*\))*\))?"
PLACE = rf" at \S+:\d+{FUNCTION}(?:, (?:inlined|called) at \S+:\d+{FUNCTION})*"


def said_of(kernels: Kernels, file: str, kernel: str) -> str:
    """The message without places in the source; empty where the kernel passes."""
    x = np.arange(1, 769, dtype=np.float32)[: 768 if kernel.startswith("pipeline_") else 512]
    if file != "clusters.cu" and not kernel.startswith("pipeline_"):
        x = x[:64]
    y = np.zeros(512 if file == "clusters.cu" else 64, np.float32)
    if kernel.startswith(("pipeline_", "wgmma_")):
        y = np.zeros(128, np.float32)
    try:
        kernels.run(kernel, x, y, **launch_of(file, kernel))  # type: ignore[arg-type]
    except PtxError as error:
        text = str(error).split("; thread (")[0]
        text = re.sub(PLACE, "", text)
        return re.sub(r"0x[0-9a-f]{6,}", "0x...", text)
    return ""


def table() -> list[str]:
    """Lines of Markdown: a row for each planted fault, and how many kernels were right."""
    rows, right = [], 0
    for file in FILES:
        kernels = Kernels(file)
        for kernel in re.findall(r"\.entry (\w+)\(", kernels.text):
            said = said_of(kernels, file, kernel)
            right += not said
            if said:
                rows.append(f"| `{kernel}` | {said} |")
    head = ["| kernel | message, without the places in the source |", "|---|---|"]
    count = f"{len(rows)} of {len(rows) + right} kernels have a fault, and all of these are found; "
    return [*head, *rows, "", count + f"the other {right} are right and pass."]


def kernels_of(lines: list[str]) -> list[str]:
    """Which kernels a table names, and the counts below it."""
    return [*re.findall(r"^\| `(\w+)`", "\n".join(lines), re.MULTILINE), lines[-1]]


def in_page() -> list[str]:
    """The table as the page has it."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()


if __name__ == "__main__":
    print("\n".join(table()))
