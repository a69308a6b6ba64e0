"""Images of a run: its curves, first filters, predictions and confusions (paper, figures 3, 4).

Each function writes one file and returns a line or a few saying what is in it. Filters need no
library besides Pillow; charts need matplotlib (`pip install 'convnet-kernels[plot]'`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnet.common.checks import check_int
from convnet.common.own_code import allowed
from convnet.common.typecheck import did_you_mean
from convnet.data.dataset import mismatch, shown
from convnet.evaluation.evaluate import as_warning, measure_classes, open_run
from convnet.evaluation.predict import classify, likeliest
from convnet.interpret import charts
from convnet.interpret.examples import examples_of
from convnet.interpret.fonts import lacking_text
from convnet.interpret.montage import filter_sheet, save_image
from convnet.layers import Conv, Dense, graph
from convnet.nn.net import Net, Node
from convnet.training.checkpoint import Checkpoint
from convnet.training.datasets import Data
from convnet.training.nets import build_net
from convnet.training.run_folder import METRICS, RunError, open_checkpoint, read_metrics

Run = str | os.PathLike[str]
Warn = Callable[[str], None]


def place_for(run: Run, name: str, out: Run | None = None) -> Path:
    """Where an image goes: `out`, or by default into the run's folder, beside a checkpoint."""
    if out is not None:
        return Path(out)
    path = Path(run)
    return (path.parent if path.is_file() else path) / name


def _chart_place(run: Run, name: str, out: Run | None) -> Path:
    """As `place_for`, once it is known that a chart can be written there."""
    charts.require()
    path = place_for(run, name, out)
    charts.check_name(path)
    return path


# ---- filters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filters:
    """The filters of one layer: float32 [K, R, S, C], of so many towers."""

    layer: str
    w: np.ndarray
    towers: int


def read_filters(checkpoint: Checkpoint, layer: str | None = None) -> Filters:
    """The filters of a layer in a checkpoint.

    Args:
        checkpoint: a checkpoint of any run.
        layer: the name of a convolution, or of a dense layer that reads the image; None: the
            first there is.

    Raises:
        DataError: no such layer, or one without filters to show.
    """
    state = checkpoint.state
    height, width, channels = state["picture"]
    cfg = checkpoint.config()
    shape = (height, width, channels)
    net = build_net(cfg, shape, len(state["classes"]), "cpu", sizes_only=True)
    names = [node.name for node in net.nodes if _has_filters(node)]
    if not names:
        raise mismatch(checkpoint.path, "a net with a convolution", "none")
    name = names[0] if layer is None else layer
    if name not in names:
        raise mismatch("layer", "one with filters", f"{name!r}{did_you_mean(name, names)}")
    node = next(node for node in net.nodes if node.name == name)
    w = checkpoint.arrays[f"{node.share or name}.w"]
    if isinstance(node.layer, Dense):
        w = w.reshape(-1, *node.layer.in_shape)
    return Filters(name, w, towers_of(net, node))


def _has_filters(node: Node) -> bool:
    layer = node.layer
    return isinstance(layer, Conv) or (isinstance(layer, Dense) and len(layer.in_shape) == 3)


def towers_of(net: Net, node: Node) -> int:
    """In how many parts the output of a node goes on: its groups, or those of the layers above it
    as long as no layer in between mixes channels (paper, section 3.5 and figure 2)."""
    readers = graph.consumers(net.nodes)
    waiting = [node]
    while waiting:
        here = waiting.pop(0)
        groups = getattr(here.layer, "groups", 1)
        if groups > 1:
            return groups if net.shapes[node.name][-1] % groups == 0 else 1
        if here is node or here.layer.split_by == "channel":
            waiting += readers[here.name]
    return 1


def plot_filters(
    run: Run,
    out: Run | None = None,
    layer: str | None = None,
    towers: int | None = None,
    scale: int = 0,
    each: bool = False,
    most: int = 64,
    warn: Warn = as_warning,
    code: bool = False,
) -> tuple[Path, str]:
    """The kernels of a layer as one image, towers apart (paper, figure 3).

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        out: the file; by default filters.png in the run's folder.
        layer: which; by default the first with filters.
        towers: how many blocks; by default as many as the net has.
        scale: pixels a weight; 0 chooses.
        each: every filter at full contrast by itself.
        most: the most filters and channels that are shown of filters that are neither grey nor in
            colour, which have one panel for each channel.
        warn: called with a line of text when a damaged checkpoint is passed over.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns: the file, and what is in it.
    Raises: CheckpointError, RunError, DataError; OSError: the file cannot be written.
    """
    with allowed(code):
        filters = read_filters(open_checkpoint(run, warn), layer)
    w, towers = filters.w, filters.towers if towers is None else check_int("towers", towers)
    count, height, width, channels = w.shape
    if count % towers:
        raise mismatch("towers", f"a divisor of {count} filters", towers)
    text = f"{count} filters {height}x{width}x{channels} of {filters.layer}"
    text += f", {towers} towers of {count // towers}" if towers > 1 else ""
    if channels not in (1, 3):
        size = count // towers
        kept = min(size, max(1, most // towers))
        w = w.reshape(towers, size, height, width, channels)[:, :kept, ..., :most]
        w = np.ascontiguousarray(w).reshape(-1, height, width, w.shape[-1])
        if w.shape[0] < count or w.shape[3] < channels:
            text += f"; the first {kept} of each tower" if towers > 1 else f"; the first {kept}"
            text += f", {w.shape[3]} of their channels" if w.shape[3] < channels else ""
    path = place_for(run, "filters.png", out)
    save_image(filter_sheet(w, towers, scale, each), path)
    return path, text


# ---- predictions ---------------------------------------------------------------------------------


def plot_predictions(
    run: Run,
    images: Sequence[Run] = (),
    out: Run | None = None,
    labels: Sequence[str] = (),
    pick: Sequence[int] = (),
    count: int = 8,
    top: int = 5,
    ten_crop: bool = False,
    data: Data = None,
    device: str | None = None,
    warn: Warn = as_warning,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Path, str]:
    """Images with the classes that the net finds likeliest, the right one red (paper, figure 4).

    Args:
        run: a run folder or a checkpoint file.
        images: image files; without any, validation images.
        out: the file, .png, .svg, .pdf, .jpg, .webp; by default predictions.png in the run's
            folder.
        labels: the right classes of `images`; by default the names of the folders they lie in,
            where these are classes.
        pick: numbers of validation images; by default `count`, chosen by the seed of the run.
        top: bars an image.
        ten_crop, data, device, warn, overrides, code: as for
            `convnet.evaluation.evaluate.evaluate`.

    Returns: the file, and how many are right.
    Raises: CheckpointError, RunError, DataError, DeviceError; ConfigError: no matplotlib.
    """
    path = _chart_place(run, "predictions.png", out)
    trained = open_run(run, device, warn, overrides, code)
    examples = examples_of(trained, data, images, pick, count, labels)
    rows = classify(trained, np.stack([one.pixels for one in examples]), ten_crop)
    guesses = [
        charts.Guess(example.shown, example.label, *likeliest(trained, row, top))
        for example, row in zip(examples, rows, strict=True)
    ]
    charts.save_chart(charts.predictions_chart(guesses), path)
    known = [guess for guess in guesses if guess.label is not None]
    right = sum(guess.classes[0] == guess.label for guess in known)
    among = sum(guess.label in guess.classes for guess in known)
    text = f"{len(guesses)} images"
    if known:
        text += f"; of {len(known)} with a known class {right} right"
        text += f", {among} in the first {top}" if top < len(trained.classes) else ""
    shown_names = {name for guess in guesses for name in guess.classes}
    return path, text + lacking_text(sorted(shown_names))


# ---- curves and confusion ------------------------------------------------------------------------


def plot_curves(run: Run, out: Run | None = None) -> tuple[Path, str]:
    """Loss, error and learning rate of a run against its epochs.

    Args:
        run: a run folder; it may still be training.
        out: the file, .png, .svg, .pdf, .jpg, .webp; by default curves.png in the run's folder.

    Returns: the file, and what is in it.
    Raises: RunError: no metrics in that folder. ConfigError: no matplotlib. OSError.
    """
    path, folder = _chart_place(run, "curves.png", out), Path(run)
    if not folder.is_dir():
        raise RunError(f"{shown(folder)}: expected the folder of a run")
    records = read_metrics(folder / METRICS)
    if not records:
        raise RunError(f"{shown(folder)}: no metrics in this folder yet (metrics.jsonl)")
    charts.save_chart(charts.curves_chart(records, shown(folder.absolute().name)), path)
    epochs = sum(record["kind"] == "epoch" for record in records)
    return path, f"{epochs} epochs, {records[-1]['step']} steps"


def plot_confusion(
    run: Run,
    out: Run | None = None,
    ten_crop: bool = False,
    data: Data = None,
    device: str | None = None,
    warn: Warn = as_warning,
    most: int = 5,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Path, str]:
    """What validation images of each class are taken for.

    Args:
        run: a run folder or a checkpoint file.
        out: the file, .png, .svg, .pdf, .jpg, .webp; by default confusion.png in the run's
            folder.
        ten_crop, data, device, warn, overrides, code: as for
            `convnet.evaluation.evaluate.evaluate`.
        most: how many of the most frequent confusions to tell.

    Returns: the file, and the most frequent confusions.
    Raises: CheckpointError, RunError, DataError, DeviceError; ConfigError: no matplotlib.
    """
    path = _chart_place(run, "confusion.png", out)
    metrics, validation = measure_classes(run, data, device, warn, ten_crop, overrides, code)
    title = f"{shown(Path(run).absolute().name)}: {metrics.means()['top1']:.2f} % right"
    charts.save_chart(charts.confusion_chart(metrics.confusion, metrics.classes, title), path)
    right = f"{metrics.means()['top1']:.2f} % right"
    lines = [f"{len(validation)} images, {right}{lacking_text(metrics.classes)}"]
    for row, column, count in metrics.confusions(most):
        lines.append(f"  {metrics.classes[row]} taken for {metrics.classes[column]}: {count}")
    return path, "\n".join(lines)
