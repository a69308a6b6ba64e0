"""Trained nets: reading them from a run, and measuring them on data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.config import Config, load_config
from convnet.data import DataError, Dataset, Loader, Statistics
from convnet.evaluation.crops import probabilities, views
from convnet.evaluation.metrics import Scores
from convnet.nn.net import Net
from convnet.training.checkpoint import Checkpoint
from convnet.training.run_folder import RunError, open_checkpoint
from convnet.training.setup import (
    Data,
    Preparer,
    build_net,
    check_weights,
    load_weights,
    open_sets,
    statistics_of,
    workers_for,
)

Run = str | os.PathLike[str]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


@dataclass
class Trained:
    """A net with the weights of a checkpoint, and what is needed to feed it."""

    net: Net
    cfg: Config
    classes: tuple[str, ...]
    image: tuple[int, int, int]  # (H, W, C) of the data, before the crop
    stats: Statistics
    checkpoint: Checkpoint
    prepare: Preparer


def open_run(
    run: str | os.PathLike[str],
    device: str | None = None,
    warn: Callable[[str], None] = _warn,
) -> Trained:
    """Reads a trained net.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        device: as for `convnet.backend.get_all`; None is "auto".
        warn: told when a damaged checkpoint is passed over.

    Raises:
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
    """
    checkpoint = open_checkpoint(run, warn)
    state = checkpoint.state
    cfg = load_config(state["config"], saved=True)
    backend = backends.get_all(device or "auto")[0]
    if backend.name == "cpu":
        backends.set_threads(cfg.train.threads)
    height, width, channels = state["picture"]
    image = (height, width, channels)
    # The configuration may ask for any net: it must fit the weights before memory is taken.
    check_weights(build_net(cfg, image, len(state["classes"]), "cpu", sizes_only=True), checkpoint)
    net = build_net(cfg, image, len(state["classes"]), device or "auto")
    load_weights(net, checkpoint)
    stats = statistics_of(checkpoint)
    return Trained(
        net=net,
        cfg=cfg,
        classes=tuple(state["classes"]),
        image=image,
        stats=stats,
        checkpoint=checkpoint,
        prepare=Preparer(backend, stats, cfg, image),
    )


def load(run: str | os.PathLike[str], device: str | None = None) -> Net:
    """The net of a run folder or checkpoint file, with its trained weights.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        device: as for `convnet.backend.get_all`; None is "auto".

    Raises:
        CheckpointError, RunError: no usable checkpoint. DeviceError: no such device.
    """
    return open_run(run, device).net


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
        name = net.checkpoint.path
        if net.classes != first.classes:
            raise DataError(f"{name}: {_class_difference(net.classes, first)}")
        here, there = net.cfg.data, first.cfg.data
        if data is None and (here.source, here.path) != (there.source, there.path):
            raise DataError(
                f"{name}: expected the data of {first.checkpoint.path}, {there.source} "
                f"{there.path or 'where it is found'}; got {here.source} "
                f"{here.path or 'where it is found'}; --data names one set for all"
            )
        if here not in opened:
            opened[here] = _validation_set(net, data)
        mine, theirs = opened[here].labels, opened[there].labels
        if len(mine) != len(theirs) or not np.array_equal(mine, theirs):
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
    _, validation = open_sets(net.cfg, data)
    if validation.shape != net.image or validation.classes != net.classes:
        raise DataError(
            f"{validation.description}: expected images {net.image} of "
            f"{len(net.classes)} classes as in training, got {validation.shape} of "
            f"{len(validation.classes)}"
        )
    return validation


def _loader(net: Trained, dataset: Dataset, batch: int, warn: Callable[[str], None]) -> Loader:
    """The images as this net's training prepared them, in order."""
    cfg = net.cfg
    return Loader(
        dataset,
        batch,
        cfg.seed,
        cfg.augment,
        net.stats,
        train=False,
        workers=workers_for(cfg, net.prepare.backend),
        fallback=cfg.data.workers == "auto",
        warn=warn,
    )


def _score_centre(net: Trained, loader: Loader, tables: bool) -> Scores:
    """One net, the centre crop: the very figures of validation in training. What images were
    taken for is only found where `tables` are wanted."""
    scores = Scores(net.classes)
    for batch in loader.epoch(0):
        x = net.prepare(batch)
        losses, rank = net.net.evaluate(x, batch.labels)
        guesses = net.net.predict(x).argmax(axis=1) if tables else batch.labels
        scores.add_ranked(losses, rank, guesses, batch.labels)
    return scores


def _score_average(
    nets: Sequence[Trained], loaders: Sequence[Loader], ten_crop: bool, nine_crop: bool = False
) -> tuple[Scores, list[Scores]]:
    """The average of nets and views, and what each net comes to by itself."""
    together, own = Scores(nets[0].classes), [Scores(net.classes) for net in nets]
    seen = [views(net.image, net.cfg.augment, ten_crop, nine_crop) for net in nets]
    for batches in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        labels = batches[0].labels
        total = np.zeros((len(labels), len(together.classes)))
        for net, batch, look, scores in zip(nets, batches, seen, own, strict=True):
            one = probabilities(net.net, net.prepare, batch, look)
            scores.add(one, labels)
            total += one
        together.add(total / len(nets), labels)
    return together, own


def score(
    run: Run,
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = _warn,
    ten_crop: bool = False,
) -> tuple[Scores, Dataset]:
    """The tables of one net on its validation data, and these; arguments as for `evaluate`."""
    net = open_run(run, device, warn)
    (validation,) = validation_sets([net], data)
    loader = _loader(net, validation, min(len(validation), net.cfg.train.batch), warn)
    if ten_crop:
        return _score_average([net], [loader], ten_crop)[0], validation
    return _score_centre(net, loader, tables=True), validation


def evaluate(
    run: Run | Sequence[Run],
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = _warn,
    ten_crop: bool = False,
    csv: str | os.PathLike[str] | None = None,
    nine_crop: bool = False,
) -> dict[str, Any]:
    """Measures a trained net, or the average of several, on validation data.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file; or several,
            of which the softmax outputs are averaged (paper, section 6).
        data: a path, or (training set, validation set); None takes the data of the run.
        device: as for `convnet.backend.get_all`; None is "auto".
        warn: told when a damaged checkpoint is passed over.
        ten_crop: average over four corners, the centre and their mirror images (paper, section
            4.1), and not only look at the centre.
        csv: a folder to write classes.csv and confusion.csv to; see `convnet.evaluation.metrics`.
        nine_crop: average over three by three crops, not mirrored, as cuda-convnet did on CIFAR-10.

    Returns:
        {"loss", "top1", "top5" (per cent), "cases", "data", "views", "nets"}; "nets" is a list of
        {"run", "checkpoint", "step"}, with loss, top1 and top5 of each where there are several. For
        one net "checkpoint" and "step" are at the top too.

    Raises:
        CheckpointError, RunError, DataError, DeviceError.
        OSError: a table cannot be written.
    """
    runs = [run] if isinstance(run, (str, os.PathLike)) else list(run)
    if not runs:
        raise RunError("evaluate: expected a run, got none")
    if csv is not None:
        Path(csv).mkdir(parents=True, exist_ok=True)  # before the work, in case it cannot be
    nets = [open_run(each, device, warn) for each in runs]
    sets = validation_sets(nets, data)
    batch = min(len(sets[0]), *(net.cfg.train.batch for net in nets))
    loaders = [_loader(net, one, batch, warn) for net, one in zip(nets, sets, strict=True)]
    facts: list[dict[str, Any]] = [
        {
            "run": os.fspath(each),
            "checkpoint": str(net.checkpoint.path),
            "step": net.checkpoint.state["step"],
        }
        for each, net in zip(runs, nets, strict=True)
    ]
    if len(nets) == 1 and not ten_crop and not nine_crop:
        scores = _score_centre(nets[0], loaders[0], tables=csv is not None)
    else:
        scores, own = _score_average(nets, loaders, ten_crop, nine_crop)
        if len(nets) > 1:
            for fact, one in zip(facts, own, strict=True):
                fact.update(one.means())
    if csv is not None:
        scores.write(Path(csv))
    return {
        **scores.means(),
        "cases": len(sets[0]),
        "data": sets[0].description,
        "views": 10 if ten_crop else 9 if nine_crop else 1,
        "nets": facts,
        **({key: facts[0][key] for key in ("checkpoint", "step")} if len(nets) == 1 else {}),
    }
