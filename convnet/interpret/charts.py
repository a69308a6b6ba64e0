"""Charts by matplotlib, an optional library: curves, confusion matrix, predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common import distribution
from convnet.common.files import replace
from convnet.common.names import cut, width_of
from convnet.data.dataset import DataError, Images, shown
from convnet.interpret.curves import curves_of
from convnet.interpret.fonts import drawable, matplotlib_families
from convnet.interpret.montage import LOSSY

RIGHT, OTHER = "#e4605a", "#9db9d9"  # bars of the right class, and of others
TRAINING, VALIDATION, FIVE = "#1f77b4", "#d62728", "#2ca02c"
_FORMATS = ("png", "svg", "pdf", "jpg", "webp")
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "convnet",
}
_RATES = 8  # different learning rates up to which they were divided now and then: a log axis
_NUMBERED = 20  # classes up to which a confusion matrix has figures in it
_NAMED = 80  # and up to which it has names
_CELLS = 300  # of more classes, several are drawn as one cell


def require() -> None:
    """Raises ConfigError where matplotlib is not installed."""
    distribution.require("matplotlib", "plot", "plot")


def check_name(path: Path) -> str:
    """The format that a file's name ends with.

    Raises:
        DataError: it is none that charts are written in.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _FORMATS:
        raise DataError(
            f"{shown(path)}: expected a name that ends in .png, .svg, .pdf, .jpg or .webp"
        )
    return kind


def save_chart(figure: Any, path: Path) -> None:
    """Writes a chart in the format that the name ends with; the file is whole or not there.

    Raises:
        DataError: another ending. OSError: it cannot be written.
    """
    import matplotlib

    kind = check_name(path)
    options: dict[str, Any] = {"format": kind, "dpi": 110}
    options |= {"metadata": _METADATA[kind]} if kind in _METADATA else {"pil_kwargs": LOSSY}

    def write(file: Any) -> None:
        with warnings.catch_warnings(), matplotlib.rc_context(_STYLE):
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(file, **options)

    replace(path, write)


def _with_fonts(figure: Any) -> Any:
    """The figure, whose texts take the fonts that their characters need."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families = matplotlib_families(sorted({text.get_text() for text in texts}))
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    return figure


def _figure(width: float, height: float, **options: Any) -> Any:
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", **options)


# ---- predictions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guess:
    """An image, its right class where that is known, and the likeliest classes, likeliest
    first."""

    pixels: Images
    label: str | None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


_PANEL, _BAR, _CAPTION, _SPACE = 1.9, 0.19, 0.24, 0.14  # inches


def predictions_chart(guesses: Sequence[Guess], columns: int = 4) -> Any:
    """Images with the right class below, and bars of the likeliest classes, the right one red.

    Returns: the matplotlib Figure; each panel has two axes, image and bars.
    Source: paper, figure 4, left.
    """
    require()
    columns = min(columns, len(guesses))
    lines = -(-len(guesses) // columns)
    bars = _BAR * max(len(guess.classes) for guess in guesses)
    width, height = _PANEL + _SPACE, _PANEL + _CAPTION + bars + 2 * _SPACE
    figure = _figure(columns * width + _SPACE, lines * height + _SPACE)
    whole_w, whole_h = figure.get_size_inches()

    def axes(x: float, y: float, w: float, h: float) -> Any:
        """Axes at (x, y) inches from the upper left corner."""
        return figure.add_axes((x / whole_w, 1 - (y + h) / whole_h, w / whole_w, h / whole_h))

    for number, guess in enumerate(guesses):
        x = _SPACE + (number % columns) * width
        y = _SPACE + (number // columns) * height
        image = axes(x, y, _PANEL, _PANEL)
        _show_image(image, guess.pixels)
        title = "(not known)" if guess.label is None else shortened(guess.label, 22)
        image.set_title(title, y=-0.02, va="top", pad=0, fontsize=9, parse_math=False)
        _show_bars(axes(x, y + _PANEL + _CAPTION, _PANEL, bars), guess)
    return _with_fonts(figure)


def shortened(name: str, most: int) -> str:
    """A name as it can be drawn here, no wider than so many Latin letters."""
    (name,), _ = drawable([name])
    return cut(name, most)


def _show_image(axes: Any, pixels: Images) -> None:
    grey = pixels.shape[2] == 1
    small = min(pixels.shape[:2]) <= 32
    axes.imshow(
        pixels[..., 0] if grey else pixels,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="nearest" if small else "antialiased",
    )
    axes.set(xticks=[], yticks=[])
    for side in ("bottom", "left", "top", "right"):
        axes.spines[side].set(visible=True, color="#cccccc")


def _show_bars(axes: Any, guess: Guess) -> None:
    places = np.arange(len(guess.classes))
    colours = [RIGHT if name == guess.label else OTHER for name in guess.classes]
    axes.barh(places, guess.probabilities, height=0.82, color=colours)
    for place, name, probability in zip(places, guess.classes, guess.probabilities, strict=True):
        axes.text(0.015, place, shortened(name, 24), va="center", fontsize=7.5, parse_math=False)
        axes.text(0.99, place, f"{100 * probability:.0f} %", va="center", ha="right", fontsize=6.5)
    axes.set(xlim=(0, 1), ylim=(len(places) - 0.5, -0.5), xticks=[], yticks=[])
    for side in ("bottom", "top", "right"):
        axes.spines[side].set_visible(False)


# ---- curves --------------------------------------------------------------------------------------


def curves_chart(records: Sequence[dict[str, Any]], title: str) -> Any:
    """Loss, error and learning rate of a run against its epochs (before the first: its steps).

    Args:
        records: the lines of a metrics.jsonl.

    Returns: the matplotlib Figure, an axes for each.
    """
    import matplotlib

    curves = curves_of(records)
    steps, epochs, unit = curves.steps, curves.epochs, curves.unit
    at_step, at_epoch = curves.at_step, curves.at_epoch

    def draw(axes: Any, key: str, name: str, value: Callable[[float], float]) -> None:
        """Training as a pale line of all steps and a line of epochs; validation as a line."""
        axes.plot(at_step, [value(r[key]) for r in steps], color=TRAINING, alpha=0.35, lw=0.8)
        _line(axes, at_epoch, [value(r[key]) for r in epochs], TRAINING, "training")
        _line(axes, at_epoch, [value(r[f"val_{key}"]) for r in epochs], VALIDATION, "validation")
        axes.set(title=name, xlabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, lw=0.5)

    with matplotlib.rc_context(_STYLE):
        figure = _figure(8.0, 3.4, layout="constrained")
        loss, error, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        figure.suptitle(title, fontsize=9, parse_math=False)
        draw(loss, "loss", "loss", lambda value: value)
        draw(error, "top1", "error, %", lambda value: 100.0 - value)
        if curves.five:
            five = [100.0 - record["val_top5"] for record in epochs]
            _line(error, at_epoch, five, FIVE, "validation, top-5")
        error.set_ylim(bottom=0)
        rates = [record["lr"] for record in steps]
        rate.plot(at_step, rates, color="black", lw=1.0)
        rate.set(title="learning rate", xlabel=unit)
        rate.xaxis.get_major_locator().set_params(integer=True)
        in_steps = len(set(rates)) <= min(_RATES, len(rates) // 2)
        low, high = min(rates, default=0.0), max(rates, default=0.0)
        if in_steps and 0 < low < high:
            rate.set_yscale("log")
            rate.set_ylim(low / 1.5, high * 1.5)
            _few_ticks(rate.yaxis, low, high)
        else:
            rate.set_ylim(bottom=0.0)
        for axes in (loss, error):
            axes.legend(frameon=False, fontsize=7)
    return _with_fonts(figure)


def _few_ticks(axis: Any, low: float, high: float) -> None:
    """Figures on a log axis at powers of ten, and within one power at 1, 2 and 5 times it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    narrow = high / low < 20
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def _line(axes: Any, x: Sequence[float], y: Sequence[float], color: str, label: str) -> None:
    """A line; a single point makes none, and gets a dot."""
    dot: dict[str, Any] = {"marker": "o", "ms": 3} if len(y) == 1 else {}
    axes.plot(x, y, color=color, lw=1.3, label=label, **dot)


# ---- confusion -----------------------------------------------------------------------------------


def confusion_chart(confusion: np.ndarray, classes: Sequence[str], title: str) -> Any:
    """What the images of each class were taken for, in per cent of the class.

    With many classes the colours are those of the square root, so that single mistakes are seen;
    with very many a cell is the largest of several.

    Args:
        confusion: counts [classes, classes]; row: the class of the image.
        classes: their names.
        title: of the chart.

    Returns: the matplotlib Figure.
    """
    import matplotlib
    from matplotlib.colors import PowerNorm

    total = confusion.sum(axis=1, keepdims=True)
    share = 100.0 * confusion / np.maximum(total, 1)
    count, step = len(classes), -(-len(classes) // _CELLS)
    names = [shortened(name, 26) for name in classes] if count <= _NAMED else []
    inches = 0.36 if count <= _NUMBERED else 0.15  # of a class
    size = max(2.6, inches * count) if names else 8.0
    room = 0.07 * max(map(width_of, names), default=0)
    with matplotlib.rc_context({**_STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = _figure(size + room + 1.6, size + 0.8 * room + 1.0, layout="constrained")
        axes = figure.subplots()
        norm = PowerNorm(1.0 if count <= _NUMBERED else 0.5, 0, 100)
        cells = _blocks(share, step)
        end = len(cells) * step - 0.5
        options = {"cmap": "Blues", "norm": norm, "interpolation": "nearest"}
        image = axes.imshow(cells, extent=(-0.5, end, end, -0.5), **options)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
        bar = figure.colorbar(image, ax=axes, shrink=0.7)
        bar.set_label("% of the images of a class")
        numbers = "" if names else f" (number of the class, 0 to {count - 1})"
        axes.set(xlabel=f"taken for{numbers}", ylabel="class of the image")
        axes.set_title(title, fontsize=9, parse_math=False)
        if names:
            _name_classes(axes, names)
        if count <= _NUMBERED:
            _figures_in_cells(axes, share)
    return _with_fonts(figure)


def _name_classes(axes: Any, names: Sequence[str]) -> None:
    """Names beside and below a matrix: slanted where they are few, else upright and small."""
    few = len(names) <= _NUMBERED
    places, options = range(len(names)), {"fontsize": 8 if few else 5.5, "parse_math": False}
    turned = {"rotation": 45, "rotation_mode": "anchor"} if few else {"rotation": 90}
    axes.set_xticks(places, names, ha="right" if few else "center", **turned, **options)
    axes.set_yticks(places, names, **options)


def _figures_in_cells(axes: Any, share: np.ndarray) -> None:
    """Per cent in each cell that has some."""
    for (i, j), per_cent in np.ndenumerate(np.floor(share + 0.5).astype(int)):
        colour = "white" if per_cent > 55 else "black"
        text = str(per_cent) if per_cent else ""
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)


def _blocks(share: np.ndarray, step: int) -> np.ndarray:
    """The largest of each step x step cells of a matrix."""
    side = -(-len(share) // step) * step
    padded = np.zeros((side, side))
    padded[: len(share), : len(share)] = share
    blocks = padded.reshape(side // step, step, side // step, step)
    largest: np.ndarray = blocks.max(axis=(1, 3))
    return largest
