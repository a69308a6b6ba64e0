"""Two kinds of SVG plots, without a plotting library: curves, and values in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 52  # margins
COLOURS = ("#1f5fa8", "#c0392b", "#2e7d32", "#8e5ea2")
_STYLE = (
    "<style>.axis{stroke:#333}.grid{stroke:#ddd}.tick{font-size:12px;fill:#333}"
    ".note{font-size:12px;fill:#555}.title{font-size:15px;fill:#111}</style>"
)


@dataclass(frozen=True)
class Curve:
    """Points (x, y), joined by a line.

    `label` stands in the legend, but for "" (then it is one of several faint lines beside another);
    `dashed` and `colour`, an index into `COLOURS`, set it apart.
    """

    points: Sequence[tuple[float, float]]
    label: str = ""
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Row:
    """Values to be drawn as dots, and their mean as a stroke; the first row is compared with."""

    label: str
    values: Sequence[float]


def curves(
    title: str, found: Sequence[Curve], x_label: str, y_label: str, level: float | None = None
) -> str:
    """A plot of curves; both axes start at 0. `level` is a horizontal line."""
    points = [point for curve in found for point in curve.points]
    last = max(x for x, _ in points)
    x_ticks = [tick for tick in ticks(0.0, last) if tick <= last]
    y_ticks = ticks(0.0, max([y for _, y in points] + [level or 0.0]))
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / last * (right - LEFT),
            low - y / y_ticks[-1] * (low - TOP),
        )

    lines = _axes(title, x_label, y_label, HEIGHT)
    for tick in x_ticks:
        x, _ = place(tick, 0.0)
        lines.append(_text(x, low + 18, f"{tick:g}", "tick", "middle"))
    for tick in y_ticks:
        _, y = place(0.0, tick)
        lines.append(_line(LEFT, y, right, y, "grid"))
        lines.append(_text(LEFT - 8, y + 4, f"{tick:g}", "tick", "end"))
    lines += [_line(LEFT, low, right, low, "axis"), _line(LEFT, TOP, LEFT, low, "axis")]
    if level is not None:
        _, y = place(0.0, level)
        lines.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#777" '
            'stroke-dasharray="2 3"/>'
        )
        lines.append(_text(right, y - 5, f"{level:g} %", "note", "end"))
    for curve in sorted(found, key=lambda curve: bool(curve.label)):
        lines.append(_curve(curve, [place(*point) for point in curve.points]))
    legend = [curve for curve in found if curve.label]
    for number, curve in enumerate(legend):
        y = TOP + 14 + 20 * number
        lines.append(_curve(curve, [(right - 190, y), (right - 152, y)]))
        lines.append(_text(right - 144, y + 4, curve.label, "tick"))
    return _svg(lines, HEIGHT)


def rows(title: str, found: Sequence[Row], x_label: str) -> str:
    """A plot of rows of values; a vertical line marks the mean of the first."""
    left, step, right = 270, 26, WIDTH - RIGHT
    height = TOP + step * len(found) + BOTTOM
    values = [value for row in found for value in row.values]
    low, high = min(values), max(values)
    marks = ticks(low, high)
    span = (marks[-1] - marks[0]) or 1.0

    def place(value: float) -> float:
        return left + (value - marks[0]) / span * (right - left)

    lines = _axes(title, x_label, "", height, left)
    bottom = height - BOTTOM
    for tick in marks:
        lines.append(_line(place(tick), TOP, place(tick), bottom, "grid"))
        lines.append(_text(place(tick), bottom + 18, f"{tick:g}", "tick", "middle"))
    first = place(_mean(found[0].values))
    lines.append(
        f'<line x1="{first:.1f}" y1="{TOP}" x2="{first:.1f}" y2="{bottom}" stroke="#777" '
        'stroke-dasharray="4 3"/>'
    )
    for number, row in enumerate(found):
        y = TOP + step * (number + 0.5)
        colour = COLOURS[0] if number == 0 else COLOURS[1]
        lines.append(_text(left - 12, y + 4, row.label, "tick", "end"))
        x = place(_mean(row.values))
        lines.append(
            f'<line x1="{x:.1f}" y1="{y - 9:.1f}" x2="{x:.1f}" y2="{y + 9:.1f}" '
            f'stroke="{colour}" stroke-width="2.5"/>'
        )
        lines += [
            f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="4" fill="{colour}" '
            'fill-opacity="0.55"/>'
            for value in row.values
        ]
    return _svg(lines, height)


def ticks(low: float, high: float) -> list[float]:
    """About six round numbers that enclose low .. high."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"ticks: expected finite numbers, got {low} and {high}")
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _axes(title: str, x_label: str, y_label: str, height: int, left: int = LEFT) -> list[str]:
    lines = [_text(24 if left > LEFT else left, 24, title, "title")]
    lines.append(_text((left + WIDTH - RIGHT) / 2, height - 12, x_label, "tick", "middle"))
    if y_label:
        y = (TOP + height - BOTTOM) / 2
        lines.append(
            f'<text transform="translate(18 {y:.0f}) rotate(-90)" class="tick" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
    return lines


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _curve(curve: Curve, places: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="7 4"' if curve.dashed else ""
    look = 'stroke-width="2.2"' if curve.label else 'stroke-width="1" stroke-opacity="0.35"'
    return (
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[curve.colour]}" {look}{dashes}/>'
    )


def _svg(lines: Sequence[str], height: int) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif">',
            _STYLE,
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            *lines,
            "</svg>\n",
        ]
    )
