"""Trained nets: reading them from a run, and measuring them on data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.common.own_code import allowed
from convnet.common.progress import progress
from convnet.common.typecheck import brief
from convnet.config import Config, ConfigError, load_config
from convnet.data import Batch, DataError, Dataset, Loader, Statistics
from convnet.evaluation.crops import crops_of, probabilities
from convnet.evaluation.metrics import Metrics
from convnet.nn.net import Net, remade
from convnet.nn.saved import is_net
from convnet.nn.saved import read as read_net
from convnet.training.checkpoint import Checkpoint, check_weights, load_weights
from convnet.training.datasets import Data, open_sets
from convnet.training.inputs import Preparer
from convnet.training.nets import build_net
from convnet.training.run_folder import RunError, open_checkpoint
from convnet.training.setup import workers_for

# Keys that may differ from those of training when a run is used.
_OF_DATA = ("data.bad_files", "data.workers")

Run = str | os.PathLike[str]


def as_warning(text: str) -> None:
    """Issues a Python warning; commands print lines instead."""
    warnings.warn(text, stacklevel=3)


@dataclass
class Trained:
    """A net with the weights of a checkpoint, and what is needed to feed it.

    Attributes:
        net, cfg: the net and its configuration; classes: names of its outputs.
        image_shape: (H, W, C) of the data, before the crop.
        stats: of the training data.
        checkpoint: where the weights are from.
        prepare: makes the net's input of batches.
    """

    net: Net
    cfg: Config
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    stats: Statistics
    checkpoint: Checkpoint
    prepare: Preparer


def loader_of(
    net: Trained, images: Dataset, batch: int, warn: Callable[[str], None] = as_warning
) -> Loader:
    """Batches of images, in order and as the net's training prepared them."""
    cfg, workers = net.cfg, workers_for(net.cfg, net.prepare.backend)
    loader = Loader(images, batch, cfg.seed, cfg.augment, net.stats, train=False, workers=workers)
    loader.fallback, loader.warn = cfg.data.workers == "auto", warn
    return loader


def open_run(
    run: Run,
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> Trained:
    """Reads a trained net.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        device: as for `convnet.train`; None is "auto".
        warn: called with a message when a damaged checkpoint is passed over.
        overrides: changes of its configuration, of how data are found: "data.bad_files=skip".
        code: whether code of one's own that the run names may be imported: look at it first.

    Raises:
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
        ConfigError: an override of what the net was trained with.
    """
    with allowed(code):
        return _opened(open_checkpoint(run, warn), device, overrides)


def _opened(checkpoint: Checkpoint, device: str | None, overrides: Sequence[str]) -> Trained:
    """The net of a checkpoint."""
    state = checkpoint.state
    cfg = _overridden(checkpoint.config(), overrides)
    backend = backends.get_all(device or "auto")[0]
    if backend.name == "cpu":
        backends.set_threads(cfg.train.threads)
    classes, shape = tuple(state["classes"]), tuple(state["picture"])
    # The configuration may ask for any net: it must fit the weights before memory is taken.
    sizes = build_net(cfg, shape, len(classes), "cpu", sizes_only=True)
    check_weights(sizes, checkpoint)
    net = build_net(cfg, shape, len(classes), device or "auto")
    load_weights(net, checkpoint)
    stats = checkpoint.statistics()
    prepare = Preparer(backend, stats, cfg, shape, net.stored)
    return Trained(net, cfg, classes, shape, stats, checkpoint, prepare)


def _overridden(cfg: Config, overrides: Sequence[str]) -> Config:
    """The configuration with other ways to read its data. Raises: ConfigError: other keys."""
    if not overrides:
        return cfg
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key not in _OF_DATA:
            raise ConfigError(f"--set {brief(text)}: of a run, expected {' or '.join(_OF_DATA)}")
    return load_config(cfg, overrides, saved=True, folder=cfg.folder)


def load(run: str | os.PathLike[str], device: str | None = None, code: bool = False) -> Net:
    """The net of a run folder or checkpoint file, with its trained weights; or of `Net.save`.

    Args:
        run: a run folder (its best checkpoint, else the newest), a checkpoint file, or a file that
            `Net.save` has written.
        device: as for `convnet.train`; None is "auto".
        code: whether layers of one's own, "module:Class", may be imported: look at them first.

    Returns: a net that can predict, and be trained further with `Net.train_step`.

    Raises:
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
        ValueError: a damaged file of a net, or one with code where that is not allowed.
    """
    path = Path(run)
    with allowed(code):
        if not path.is_file() or not is_net(path):
            return open_run(run, device).net
        facts, nodes, state = read_net(path)
    step = facts.pop("step")
    facts["device"] = device or "auto"
    return remade(nodes, facts, {"state": state, "step": step})


def validation_sets(nets: Sequence[Trained], data: Data = None) -> list[Dataset]:
    """The validation set as each net takes it: the same images, perhaps of other sizes.

    Args:
        nets: one or several.
        data: as for `evaluate`.

    Raises:
        DataError: it is not what a net was trained for, or the nets are of different classes or
            data.
    """
    first = nets[0]
    opened: dict[Any, Dataset] = {}
    for net in nets:
        name, here, there = net.checkpoint.path, net.cfg.data, first.cfg.data
        if net.classes != first.classes:
            raise DataError(f"{name}: {_class_difference(net.classes, first)}")
        places = [f"{cfg.source} {cfg.path or 'where it is found'}" for cfg in (there, here)]
        if data is None and places[0] != places[1]:
            raise DataError(
                f"{name}: expected the data of {first.checkpoint.path}, {places[0]}; got "
                f"{places[1]}; --data names one set for all"
            )
        if here not in opened:
            opened[here] = _validation_set(net, data)
        mine, theirs = opened[here].labels, opened[there].labels
        if not np.array_equal(mine, theirs):
            raise DataError(
                f"{name}: expected the {len(theirs)} validation images of "
                f"{first.checkpoint.path}, got {len(mine)}, or others"
            )
    return [opened[net.cfg.data] for net in nets]


def _class_difference(classes: tuple[str, ...], first: Trained) -> str:
    expected = f"expected the {len(first.classes)} classes of {first.checkpoint.path}"
    if len(classes) != len(first.classes):
        return f"{expected}, got {len(classes)}"
    pairs = zip(first.classes, classes, strict=True)
    number, one, other = next((i, a, b) for i, (a, b) in enumerate(pairs) if a != b)
    return f"{expected}, got others: class {number} is {other!r} instead of {one!r}"


def _validation_set(net: Trained, data: Data) -> Dataset:
    _, found = open_sets(net.cfg, data, training=False)
    if found.shape != net.image_shape or found.classes != net.classes:
        raise DataError(
            f"{found.description}: expected images {net.image_shape} of {len(net.classes)} classes "
            f"as in training, got {found.shape} of {len(found.classes)}"
        )
    return found


def _measure(
    nets: Sequence[Trained],
    sets: Sequence[Dataset],
    warn: Callable[[str], None],
    ten_crop: bool,
    nine_crop: bool = False,
    tables: bool = True,
) -> list[Metrics]:
    """The metrics of the average of nets and crops, then those of each of several nets."""
    batch = min(len(sets[0]), *(net.cfg.train.batch for net in nets))
    loaders = [loader_of(net, images, batch, warn) for net, images in zip(nets, sets, strict=True)]
    if len(nets) == 1 and not ten_crop and not nine_crop:
        return [_measure_centre(nets[0], loaders[0], tables)]
    together, own = Metrics(nets[0].classes), [Metrics(net.classes) for net in nets]
    crops = [crops_of(net.image_shape, net.cfg.augment, ten_crop, nine_crop) for net in nets]
    for batches in _counted(zip(*(loader.epoch(0) for loader in loaders), strict=True), loaders[0]):
        labels = batches[0].labels
        total = np.zeros((len(labels), len(together.classes)))
        for net, one_batch, taken, metrics in zip(nets, batches, crops, own, strict=True):
            one = probabilities(net.net, net.prepare, one_batch, taken)
            metrics.add(one, labels)
            total += one
        together.add(total / len(nets), labels)
    return [together, *(own if len(nets) > 1 else ())]


def _counted(batches: Iterable[tuple[Batch, ...]], loader: Loader) -> Iterator[tuple[Batch, ...]]:
    """The same batches, with progress."""
    done, total = 0, len(loader.dataset)
    with progress("measuring", "images") as tell:
        for several in batches:
            yield several
            done += len(several[0])
            tell(done, total)


def _measure_centre(net: Trained, loader: Loader, tables: bool) -> Metrics:
    """One net on centre crops: the same numbers as validation in training. Only where `tables` are
    wanted is it found which classes are likeliest."""
    metrics = Metrics(net.classes)
    for (batch,) in _counted(zip(loader.epoch(0), strict=True), loader):
        x = net.prepare(batch)
        losses, rank = net.net.evaluate(x, batch.labels)
        guesses = net.net.predict(x).argmax(axis=1) if tables else batch.labels
        metrics.add_ranked(losses, rank, guesses, batch.labels)
    return metrics


def measure_classes(
    run: Run,
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    ten_crop: bool = False,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> tuple[Metrics, Dataset]:
    """The metrics of one net by class, and its validation data; arguments as for `evaluate`."""
    net = open_run(run, device, warn, overrides, code)
    sets = validation_sets([net], data)
    return _measure([net], sets, warn, ten_crop)[0], sets[0]


def evaluate(
    run: Run | Sequence[Run],
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = as_warning,
    ten_crop: bool = False,
    csv: str | os.PathLike[str] | None = None,
    nine_crop: bool = False,
    overrides: Sequence[str] = (),
    code: bool = False,
) -> dict[str, Any]:
    """Measures a trained net, or the average of several, on validation data.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file; or several,
            of which the softmax outputs are averaged (paper, section 6).
        data: a path, or (training set, validation set); None takes the data of the run.
        device: as for `convnet.train`; None is "auto".
        warn: called with a message when a damaged checkpoint is passed over.
        ten_crop: average over four corners, the centre and their mirror images (paper, section
            4.1), where otherwise the centre alone is taken.
        csv: a folder to write classes.csv and confusion.csv to; see `convnet.evaluation.metrics`.
        nine_crop: average over three by three crops, not mirrored, as cuda-convnet did on CIFAR-10.
        overrides: changes of the run's configuration: "data.bad_files=skip" leaves out files that
            are no usable images.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns:
        {"loss": mean, "top1", "top5": per cent, "images": how many, "classes": how many, "data": a
        description, "crops": of each image, "nets"}; "nets" is a list of {"run", "checkpoint",
        "step"}, with loss, top1 and top5 of each where there are several. For one net "checkpoint"
        and "step" are at the top too. "cases" and "views" are older names of "images" and "crops".

    Raises:
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
        DataError: the data cannot be used, or do not go with the nets.
        OSError: a table cannot be written.
    """
    runs = [run] if isinstance(run, (str, os.PathLike)) else list(run)
    if not runs:
        raise RunError("evaluate: expected a run, got none")
    if ten_crop and nine_crop:
        raise ValueError("evaluate: expected ten crops or nine, got both")
    if csv is not None:
        Path(csv).mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be
    nets = [open_run(each, device, warn, overrides, code) for each in runs]
    sets = validation_sets(nets, data)
    metrics, *own = _measure(nets, sets, warn, ten_crop, nine_crop, tables=csv is not None)
    if csv is not None:
        metrics.write(Path(csv))
    facts: list[dict[str, Any]] = []
    for each, net in zip(runs, nets, strict=True):
        path, step = str(net.checkpoint.path), net.checkpoint.state["step"]
        facts.append({"run": os.fspath(each), "checkpoint": path, "step": step})
    top = {key: facts[0][key] for key in ("checkpoint", "step")} if len(nets) == 1 else {}
    for fact, one in zip(facts, own, strict=False):
        fact.update(one.means())
    images, crops = len(sets[0]), 10 if ten_crop else 9 if nine_crop else 1
    older = {"cases": images, "views": crops}
    counts = {
        "images": images,
        "classes": len(nets[0].classes),
        "data": sets[0].description,
        "crops": crops,
        **older,
    }
    return {**metrics.means(), **counts, "nets": facts, **top}
