"""The rows of conv_throughput.py as a roofline: GFLOP/s against FLOPs per byte.

Winograd's algorithm F(m x m, r x r) makes (m r / (m + r - 1))^2 times fewer multiplications
than the FLOPs that are counted, so its rows have a roof of their own, that many times as high.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limits import Limits

from convnet import ConfigError
from convnet.common.distribution import require

COLOURS = {"fprop": "#2b73b8", "dgrad": "#c9772f", "wgrad": "#3d8a63"}
_WINOGRAD = re.compile(r"Winograd, F\((\d+) x \d+, (\d+) x \d+\)")
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "convnet",
}


def winograd(row: dict[str, Any]) -> tuple[str, float] | None:
    """The algorithm of a row that is computed by Winograd's, and how many times fewer
    multiplications it takes; None for others."""
    found = _WINOGRAD.search(row.get("kernel") or "")
    if found is None:
        return None
    m, r = int(found[1]), int(found[2])
    return f"Winograd F({m}x{m}, {r}x{r})", (m * r / (m + r - 1)) ** 2


def draw(rows: list[dict[str, Any]], machine: Limits, device: str, path: Path) -> None:
    """Writes the plot; rows that compute nothing (pools, norms) are not in it."""
    try:
        require("matplotlib", "plot", "--plot")
    except ConfigError as error:
        sys.exit(str(error))
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        chart(rows, machine, device)[0].savefig(path)


def chart(rows: list[dict[str, Any]], machine: Limits, device: str) -> tuple[Any, list[Any]]:
    """The plot as a figure of matplotlib, and its labels of layers."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["flops"] > 0]
    figure = Figure(figsize=(8.5, 5.4), layout="constrained")
    axes = figure.subplots()
    intensities = [row["flops"] / row["bytes"] for row in rows]
    low = min([*intensities, machine.gemm / machine.copy]) / 8  # room for the names of roofs
    high = max([*intensities, 100.0]) * 2.5
    roofs = dict(sorted({found for row in rows if (found := winograd(row))}, key=lambda r: r[1]))
    for name, factor in {"matrix product": 1.0, **roofs}.items():
        top = machine.gemm * factor
        knee = min(max(top / machine.copy, low), high)
        main = factor == 1.0
        line = {"color": "#1d2025" if main else "#8d959f", "ls": "-" if main else "--", "lw": 1.2}
        axes.plot([low, knee, high], [min(low * machine.copy, top), top, top], zorder=1, **line)
        text = f"{name}: {top:,.0f}" + ("" if main else f" ({factor:.2f} x)")
        axes.annotate(text, (low, top), (2, 3), textcoords="offset points", color=line["color"])
    for step, colour in COLOURS.items():
        chosen = [row for row in rows if row["pass"] == step]
        places = [row["flops"] / row["bytes"] for row in chosen]
        face = [colour if winograd(row) is None else "white" for row in chosen]
        speeds = [row["gflops"] for row in chosen]
        options = {"edgecolors": colour, "linewidths": 1.5, "s": 26, "zorder": 3}
        axes.scatter(places, speeds, c=face or None, **options)
        axes.scatter([], [], color=colour, s=26, label=step)
    if roofs:
        axes.scatter([], [], c="white", edgecolors="#626973", s=26, label="by Winograd's algorithm")
    speeds = [row["gflops"] for row in rows]
    bottom = 0.5 * min([*speeds, machine.gemm])
    axes.set(xscale="log", yscale="log", xlabel="FLOP / byte", ylabel="GFLOP/s", xlim=(low, high))
    axes.set_ylim(bottom, 1.7 * max([*speeds, machine.gemm * max([1.0, *roofs.values()])]))
    axes.set_title(device, fontsize=8, loc="left", parse_math=False)
    axes.grid(alpha=0.25, lw=0.5, which="major")
    axes.legend(frameon=False, loc="lower right")
    return figure, _labels(figure, axes, rows)


def _labels(figure: Any, axes: Any, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The names of layers beside their points, moved up or down until none covers another, in white
    outlines that keep lines from running through them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # from here on nothing moves
    placed: list[Any] = []
    points = [(row["flops"] / row["bytes"], row["gflops"]) for row in rows]
    boxes = [_around(axes.transData.transform(point)) for point in points]
    arrow = {"arrowstyle": "-", "lw": 0.4, "color": "#8d959f", "shrinkA": 0, "shrinkB": 3}
    for point, row in sorted(zip(points, rows, strict=True), key=lambda pair: pair[0]):
        options = {"textcoords": "offset points", "fontsize": 6.5, "va": "center", "zorder": 4}
        options["color"] = COLOURS[row["pass"]]
        for far in (0, *(sign * 2 * step for step in range(1, 60) for sign in (1, -1))):
            lead = arrow if abs(far) > 5 else None
            text = axes.annotate(row["layer"], point, (8, far), arrowprops=lead, **options)
            text.update_positions(canvas.get_renderer())
            box = Text.get_window_extent(text)  # without its line
            if not any(box.overlaps(other) for other in boxes):
                text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
                placed.append(text)
                boxes.append(box)
                break
            text.remove()
    return placed


def _around(place: Any) -> Any:
    """The square of a point."""
    from matplotlib.transforms import Bbox

    x, y = place
    return Bbox([[x - 4, y - 4], [x + 4, y + 4]])
