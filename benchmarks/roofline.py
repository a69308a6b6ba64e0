"""The rows of conv_throughput.py as a roofline: GFLOP/s against FLOPs per byte."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from limits import Limits

from convnet import ConfigError
from convnet.common.distribution import require

COLOURS = {"fprop": "tab:blue", "dgrad": "tab:orange", "wgrad": "tab:green"}


def draw(rows: list[dict[str, Any]], machine: Limits, device: str, path: Path) -> None:
    """Writes the plot; rows that compute nothing (pools, norms) are not in it."""
    try:
        require("matplotlib", "plot", "--plot")
    except ConfigError as error:
        sys.exit(str(error))
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["flops"] > 0]
    figure, axes = plt.subplots(figsize=(8, 5))
    intensities = [row["flops"] / row["bytes"] for row in rows]
    low, high = min([*intensities, 1.0]) / 2, max([*intensities, 100.0]) * 2
    knee = machine.gemm / machine.copy
    axes.plot([low, knee, high], [low * machine.copy, machine.gemm, machine.gemm], "k-")
    for step, colour in COLOURS.items():
        of_step = [row for row in rows if row["pass"] == step]
        places = [row["flops"] / row["bytes"] for row in of_step]
        axes.plot(places, [row["gflops"] for row in of_step], "o", color=colour, label=step)
        for row, place in zip(of_step, places, strict=True):
            axes.annotate(row["layer"], (place, row["gflops"]), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="FLOP / byte", ylabel="GFLOP/s", title=device)
    axes.title.set_fontsize(8)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
