"""Charts of a page, as SVG within it: lines over epochs, and a confusion matrix."""

from __future__ import annotations

import io
import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.common.names import cut, width_of
from convnet.interpret.curves import thinned
from convnet.report.markup import Markup, element, joined

_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 10, 38  # around the area of a chart
_DIGITS = 1e-3  # numbers from here on are written as they are, smaller ones with an exponent


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: in the legend; empty: in none.
        x, y: of its points.
        kind: its class in the style sheet: "train", "steps", "validation", "five".
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str


# ---- lines ---------------------------------------------------------------------------------------


def line_chart(title: str, lines: Sequence[Line], unit: str, log: bool = False) -> Markup:
    """Lines over epochs or steps, with the legend beside the title.

    Args:
        title: with the unit of y.
        lines: points that are not finite are left out.
        unit: of x.
        log: a logarithmic y axis, where the values are positive and differ.
    """
    lines = [_finite(line) for line in lines]
    values = [value for line in lines for value in line.y]
    log = log and bool(values) and 0 < min(values) < max(values)
    y = _Axis.of(_capped(lines), _HEIGHT - _BOTTOM, _TOP, log, zero=not log)
    ends = [value for line in lines for value in line.x]
    x = _Axis.of([0.0, *ends], _LEFT, _WIDTH - _RIGHT, False, whole=True)
    drawn = [
        element("g", *_grid(x, y), class_="grid"),
        element("g", *[_path(line, x, y) for line in lines], class_="lines"),
        element("line", class_="cursor", y1=_TOP, y2=_HEIGHT - _BOTTOM, visibility="hidden"),
        _text(_WIDTH - _RIGHT, _HEIGHT - 5, unit, "end"),
    ]
    labels = [line.label for line in lines if line.label]
    svg = element(
        "svg",
        *drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title} against {unit}: {', '.join(labels) or 'one line'}",
    )
    keys = [element("span", line.label, class_=f"key {line.kind}") for line in lines if line.label]
    head = element("figcaption", element("b", title), element("span", *keys, class_="keys"))
    said = element("output", class_="readout")
    return element("figure", head, svg, said, class_="chart", data_unit=unit)


def _finite(line: Line) -> Line:
    x, y = thinned(line.x, line.y)
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Line(line.label, [a for a, _ in points], [b for _, b in points], line.kind)


def _capped(lines: Sequence[Line]) -> list[float]:
    """The values that the y axis has to span: single steps may leave it at the top."""
    steady = [value for line in lines if line.kind != "steps" for value in line.y]
    noisy = [value for line in lines if line.kind == "steps" for value in line.y]
    if not noisy or not steady:
        return steady + noisy
    top = max(*steady, float(np.percentile(noisy, 97)))
    return [*steady, *(min(value, top) for value in noisy)]


@dataclass(frozen=True)
class _Axis:
    """An axis: values low .. high lie at places start .. end."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        start: float,
        end: float,
        log: bool,
        zero: bool = False,
        whole: bool = False,
    ) -> _Axis:
        """The axis that spans some values, and its ticks.

        Args:
            values: what it spans; zero: and 0 too.
            start, end: pixels.
            whole: ticks are whole numbers.
        """
        low, high = min(values, default=0.0), max(values, default=1.0)
        if log:
            ticks = _log_ticks(low, high)
            low, high = min(low, ticks[0]), max(high, ticks[-1])
            return cls(math.log10(low), math.log10(high), start, end, True, ticks)
        low = min(low, 0.0) if zero else low
        high = high if high > low else low + 1.0
        step = _step((high - low) / 4.5)
        step = max(1.0, step) if whole else step
        high = high if whole else step * math.ceil(high / step - 1e-9)
        count = math.floor((high - low) / step + 1e-9)
        return cls(low, high, start, end, False, tuple(low + step * i for i in range(count + 1)))

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        share = (at - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def _step(about: float) -> float:
    """1, 2 or 5 times a power of ten, near `about`."""
    power: float = 10.0 ** math.floor(math.log10(about))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= about * 0.999)


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten around low .. high; with 2 and 5 between them where these are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    every = [10.0**power * factor for power in range(first, last + 1) for factor in factors]
    below = max((tick for tick in every if tick <= low), default=low)
    above = min((tick for tick in every if tick >= high), default=high)
    return tuple(tick for tick in every if below <= tick <= above)


def _grid(x: _Axis, y: _Axis) -> list[Markup]:
    drawn = []
    for tick in y.ticks:
        drawn.append(
            element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_at(y(tick)), y2=_at(y(tick)))
        )
        drawn.append(_text(_LEFT - 6, y(tick) + 4, number(tick), "end"))
    for tick in x.ticks:
        drawn.append(_text(x(tick), _HEIGHT - _BOTTOM + 16, number(tick), "middle"))
    return drawn


def _path(line: Line, x: _Axis, y: _Axis) -> Markup:
    """A line; a single point makes none, and gets a dot."""
    places = [(_at(x(a)), _at(y(b))) for a, b in zip(line.x, line.y, strict=True)]
    if len(places) == 1:
        return element("circle", cx=places[0][0], cy=places[0][1], r=3, class_=line.kind)
    points = [
        [round(a, 3), float(f"{b:.4g}"), c]
        for a, b, (c, _) in zip(line.x, line.y, places, strict=True)
    ]
    data = json.dumps(points, separators=(",", ":")) if line.label else None
    drawn = " ".join(f"{a:g},{b:g}" for a, b in places)
    return element(
        "polyline", points=drawn, class_=line.kind, data_points=data, data_label=line.label
    )


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=_at(x), y=_at(y), text_anchor=anchor)


def _at(place: float) -> float:
    return round(place, 1)


def number(value: float) -> str:
    """A number of an axis."""
    if value == 0 or abs(value) >= _DIGITS:
        return f"{value:,.10g}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:.0e}".replace("e-0", "e-")


# ---- confusion -----------------------------------------------------------------------------------

CELLS = 40  # classes up to which the matrix is drawn cell by cell, with names
_FIGURES = 20  # classes up to which the cells have figures in them
_LETTER = 7.4  # pixels of a letter of these names, at most
_NAME = 18  # the width of a name beside the matrix, in letters


def confusion_cells(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """The matrix as a drawing with names: per cent of the images of a class (a row).

    Args:
        confusion: counts [classes, classes]; row: the class of the image.
        classes: at most 40 names.
    """
    names = [cut(name, _NAME) for name in classes]
    count = len(names)
    cell = max(30, 200 // count) if count <= 12 else 24 if count <= _FIGURES else 15
    longest = max(map(width_of, names))
    left, top = 12 + _LETTER * longest, 16 + _LETTER * longest * 0.75
    right = 24 + _LETTER * width_of(names[-1]) * 0.62  # of a slanted name beyond the last column
    share = 100.0 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    drawn: list[Markup] = []
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        at = f"translate({_at(left + middle + 3)} {_at(top - 7)}) rotate(-48)"
        drawn.append(element("text", name, transform=at, class_="name"))
        drawn.append(_named(left - 8, top + middle + 4, name))
    for (i, j), per_cent in np.ndenumerate(share):
        drawn += _cell(left + j * cell, top + i * cell, cell, float(per_cent), i == j, count)
        if images := confusion[i, j]:
            said = f"{classes[i][:100]} taken for {classes[j][:100]}: {images} ({per_cent:.1f} %)"
            drawn[-1] = element("g", drawn[-1], element("title", said))
    width, height = left + count * cell + right, top + count * cell + 6
    box = f"0 0 {width:.0f} {height:.0f}"
    label = "confusion matrix: rows are classes of images, columns what they are taken for"
    svg = element("svg", *drawn, viewBox=box, role="img", aria_label=label, width=round(width))
    return element("div", svg, class_="matrix")


def _named(x: float, y: float, name: str) -> Markup:
    return element("text", name, x=_at(x), y=_at(y), text_anchor="end", class_="name")


def _cell(x: float, y: float, side: int, per_cent: float, right: bool, count: int) -> list[Markup]:
    """A square, the more opaque the larger its share, and the figure where there is room."""
    gap = 1 if count <= _FIGURES else 0.5
    strength = 0.0 if per_cent == 0 else 0.1 + 0.9 * (per_cent / 100) ** (0.8 if right else 0.5)
    square = element(
        "rect",
        x=_at(x + gap),
        y=_at(y + gap),
        width=side - 2 * gap,
        height=side - 2 * gap,
        rx=2,
        class_="none" if strength == 0 else "right" if right else "wrong",
        style=None if strength == 0 else f"opacity:{strength:.2f}",
    )
    if count > _FIGURES or per_cent < 0.5:
        return [square]
    strong = "strong" if strength > 0.6 else None
    figure = element(
        "text", f"{per_cent:.0f}", x=_at(x + side / 2), y=_at(y + side / 2 + 4), class_=strong
    )
    return [joined(square, figure)]


def confusion_image(confusion: npt.NDArray[np.int64], spread: int = 0) -> str:
    """The matrix of many classes as an image, a pixel for each cell, for a data: URL: right ones
    blue, wrong ones red, the stronger the larger their share; what did not happen is transparent.

    Args:
        confusion: counts [classes, classes].
        spread: each cell also covers so many around it, so that it is seen where the image is shown
            smaller than it is.
    """
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(share), dtype=bool)
    own, others = _spread(share * right, spread), _spread(share * ~right, spread)
    blue = own > 0
    share = np.where(blue, own, others)
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., :3] = (0xD0, 0x57, 0x3A)
    pixels[blue, :3] = (0x2B, 0x73, 0xB8)
    pixels[..., 3] = np.where(share > 0, np.rint(110 + 145 * np.sqrt(share)), 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _spread(cells: npt.NDArray[np.float64], by: int) -> npt.NDArray[np.float64]:
    """In place of each cell the largest of those up to `by` rows and columns away."""
    for axis in (0, 1):
        moved = [cells]
        for step in range(1, by + 1):
            for sign in (1, -1):
                other = np.roll(cells, sign * step, axis)
                edge = [slice(None), slice(None)]
                edge[axis] = slice(0, step) if sign == 1 else slice(-step, None)
                other[tuple(edge)] = 0.0
                moved.append(other)
        cells = np.max(moved, axis=0)
    return cells
