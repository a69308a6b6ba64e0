"""Charts by matplotlib, an optional library: curves, confusion matrix, predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common import distribution
from convnet.common.files import replace
from convnet.data.dataset import DataError, Images, shown
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
_NUMBERED = 20  # classes up to which a confusion matrix has figures and names in it


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
        panel = axes(x, y, _PANEL, _PANEL)
        _show_image(panel, guess.pixels)
        title = "(not known)" if guess.label is None else guess.label
        panel.set_title(title, y=-0.02, va="top", pad=0, fontsize=9, parse_math=False)
        _show_bars(axes(x, y + _PANEL + _CAPTION, _PANEL, bars), guess)
    return figure


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
        text = name if len(name) <= 24 else name[:23] + "…"
        axes.text(0.015, place, text, va="center", fontsize=7.5, parse_math=False)
        axes.text(0.99, place, f"{100 * probability:.0f} %", va="center", ha="right", fontsize=6.5)
    axes.set(xlim=(0, 1), ylim=(len(places) - 0.5, -0.5), xticks=[], yticks=[])
    for side in ("bottom", "top", "right"):
        axes.spines[side].set_visible(False)


# ---- curves --------------------------------------------------------------------------------------


@dataclass
class Curves:
    """The metrics of a run against its epochs.

    Attributes:
        unit: of the horizontal axis: "epoch", or "step" before the first epoch is done.
        steps, epochs: the records of each kind.
        at_step, at_epoch: where they lie on the axis.
    """

    unit: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    at_step: list[float] = field(default_factory=list)
    at_epoch: list[float] = field(default_factory=list)


def curves_of(records: Sequence[dict[str, Any]]) -> Curves:
    """Sorts the records of a metrics.jsonl."""
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = [record for record in records if record["kind"] == "step"]
    per_epoch = epochs[0]["step"] / epochs[0]["epoch"] if epochs else 1.0
    return Curves(
        "epoch" if epochs else "step",
        steps,
        epochs,
        [record["step"] / per_epoch for record in steps],
        [float(record["epoch"]) for record in epochs],
    )


def curves_chart(curves: Curves, title: str) -> Any:
    """Loss, error and learning rate. Returns: the matplotlib Figure, an axes for each."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = _figure(8.0, 3.4, layout="constrained")
        loss, error, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
        figure.suptitle(title, fontsize=9, parse_math=False)
        _lines(loss, curves, "loss", "val_loss", lambda value: value)
        loss.set(title="loss", xlabel=curves.unit)
        _lines(error, curves, "top1", "val_top1", lambda value: 100.0 - value)
        if any(record.get("val_top5", 100.0) < 100.0 for record in curves.epochs):
            five = [100.0 - record["val_top5"] for record in curves.epochs]
            label = "validation, top-5"
            error.plot(curves.at_epoch, five, color=FIVE, lw=1.3, label=label, **_dots(five))
        error.set(title="error, %", xlabel=curves.unit)
        error.set_ylim(bottom=0)
        rates = [record["lr"] for record in curves.steps]
        rate.plot(curves.at_step, rates, color="black", lw=1.0)
        rate.set(title="learning rate", xlabel=curves.unit)
        in_steps = len(set(rates)) <= _RATES
        rate.set_ylim(bottom=None if in_steps else 0.0)
        if in_steps and min(rates, default=0.0) > 0:
            rate.set_yscale("log")
        for axes in (loss, error):
            axes.grid(alpha=0.3, lw=0.5)
            axes.legend(frameon=False, fontsize=7)
    return figure


def _lines(axes: Any, curves: Curves, key: str, val_key: str, value: Any) -> None:
    """Training as a pale line of all steps and a line of epochs; validation as a line."""
    raw = [value(record[key]) for record in curves.steps]
    axes.plot(curves.at_step, raw, color=TRAINING, alpha=0.35, lw=0.8)
    train = [value(record[key]) for record in curves.epochs]
    axes.plot(curves.at_epoch, train, color=TRAINING, lw=1.3, label="training", **_dots(train))
    own = [value(record[val_key]) for record in curves.epochs]
    axes.plot(curves.at_epoch, own, color=VALIDATION, lw=1.3, label="validation", **_dots(own))


def _dots(values: Sequence[float]) -> dict[str, Any]:
    """A single point makes no line: it gets a dot."""
    return {"marker": "o", "ms": 3} if len(values) == 1 else {}


# ---- confusion -----------------------------------------------------------------------------------


def confusion_chart(confusion: np.ndarray, classes: Sequence[str], title: str) -> Any:
    """What the images of each class were taken for, in per cent of the class.

    Args:
        confusion: counts [classes, classes]; row: the class of the image.

    Returns: the matplotlib Figure.
    """
    import matplotlib

    total = confusion.sum(axis=1, keepdims=True)
    share = 100.0 * confusion / np.maximum(total, 1)
    count = len(classes)
    side = 2.2 + 0.36 * count if count <= _NUMBERED else 8.0
    with matplotlib.rc_context({**_STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = _figure(side + 0.8, side, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, shrink=0.7)
        bar.set_label("% of the images of a class")
        axes.set(xlabel="taken for", ylabel="class of the image")
        axes.set_title(title, fontsize=9, parse_math=False)
        if count <= _NUMBERED:
            axes.set_xticks(range(count), classes, rotation=45, ha="right", parse_math=False)
            axes.set_yticks(range(count), classes, parse_math=False)
            for (i, j), per_cent in np.ndenumerate(np.floor(share + 0.5).astype(int)):
                colour = "white" if per_cent > 55 else "black"
                text = str(per_cent) if per_cent else ""
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    return figure
