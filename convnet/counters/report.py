"""A report of counted pieces of work: printed as they come, kept as JSON, compared with another
build's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convnet.counters.counts import total
from convnet.counters.table import (
    HEADER,
    bound_line,
    bound_notes,
    comparison_line,
    kernel_line,
    lines_table,
    residency_line,
)


class Report:
    """Rows of counters: a piece of work, such as a pass of a layer, and its kernels.

    Args:
        gpu: the GPU whose bound is shown, or None.
        lines: how many lines of each kernel are shown, those that cost most first.
        show: takes each line of text.
    """

    def __init__(self, gpu: str | None, lines: int, show: Callable[[str], object]) -> None:
        self.gpu = gpu
        self.lines = lines
        self.show = show
        self.rows: list[dict[str, Any]] = []
        show(HEADER)

    def add(self, name: str, kernels: list[dict[str, Any]], **facts: Any) -> None:
        """A piece of work: its name, unique in the report, and what was counted while it ran."""
        self.rows.append({"name": name, **facts, "kernels": kernels})
        self.show(name)
        for kernel in kernels:
            self.show(kernel_line(kernel))
            if "registers" in kernel:
                self.show(residency_line(kernel))
            if self.gpu:
                self.show(bound_line(kernel, self.gpu))
            for line in lines_table(kernel, self.lines) if self.lines else []:
                self.show(line)

    def close(self) -> None:
        """What stands below the table."""
        if self.gpu:
            for line in bound_notes(self.gpu):
                self.show(line)

    def compare(self, before: list[dict[str, Any]]) -> None:
        """Shows what differs from the rows of another report, and which rows only one has."""
        found = {row["name"]: total(row["kernels"]) for row in before}
        for row in self.rows:
            if row["name"] in found:
                now = total(row["kernels"])
                self.show(comparison_line(row["name"], now, found.pop(row["name"])))
            else:
                self.show(f"{row['name']}: only here")
        for name in found:
            self.show(f"{name}: only there")


def run_build(folder: Path, command: Sequence[str]) -> str:
    """Runs Python with another build of the package: what it printed.

    Args:
        folder: holds that build's ``convnet`` folder, with its ``_vgpu``: what
            ``pip install --target FOLDER`` writes.
        command: arguments of Python.

    Raises:
        ValueError: there is no such build in the folder, or the command fails.
    """
    package = folder / "convnet"
    if not (package / "__init__.py").exists() or not list(package.glob("_vgpu*")):
        raise ValueError(f"--against: expected a folder with convnet/_vgpu, got {str(folder)!r}")
    run = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(folder.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise ValueError(f"--against: {str(folder)!r}: {run.stderr.strip()[-500:]}")
    return run.stdout
