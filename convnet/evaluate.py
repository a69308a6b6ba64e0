"""Trained nets: reading them from a run, and measuring them on data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet.build import (
    Data,
    Preparer,
    build_net,
    load_weights,
    open_sets,
    statistics_of,
)
from convnet.checkpoint import Checkpoint
from convnet.config import Config, load_config
from convnet.data import DataError, Loader, Statistics
from convnet.net import Net
from convnet.runfolder import open_checkpoint


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


@dataclass
class Trained:
    """A net with the weights of a checkpoint, and what is needed to feed it."""

    net: Net
    cfg: Config
    classes: tuple[str, ...]
    picture: tuple[int, int, int]  # (H, W, C) of the data, before the crop
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
    cfg = load_config(state["config"])
    backend = backends.get_all(device or "auto")[0]
    if backend.name == "cpu":
        backends.set_threads(cfg.train.threads)
    height, width, channels = state["picture"]
    picture = (height, width, channels)
    net = build_net(cfg, picture, len(state["classes"]), device or "auto")
    load_weights(net, checkpoint)
    stats = statistics_of(checkpoint)
    return Trained(
        net=net,
        cfg=cfg,
        classes=tuple(state["classes"]),
        picture=picture,
        stats=stats,
        checkpoint=checkpoint,
        prepare=Preparer(backend, stats, cfg, picture),
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


def measure(
    net: Net,
    loader: Loader,
    prepare: Preparer,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    total: Callable[[Sequence[float]], Sequence[float]] = lambda sums: sums,
) -> dict[str, float] | None:
    """Runs a net over a whole set in test mode.

    Args:
        net: the net.
        loader: of the set, with train=False.
        prepare: makes inputs of batches.
        progress: called with (batches done, batches in all).
        stop: asked before each batch; true ends the measuring.
        total: adds up numbers over the processes that measure together (see `distributed`).

    Returns:
        Means over the cases: {"loss", "top1", "top5"}, the last two in per cent; None if stopped.
    """
    loss, right, in_five, cases, stopped = 0.0, 0.0, 0.0, 0.0, 0.0
    for number, batch in enumerate(loader.epoch(0)):
        if stop():
            stopped = 1.0
            break
        losses, rank = net.evaluate(prepare(batch), batch.labels)
        loss += float(np.sum(losses, dtype=np.float64))
        right += int(np.count_nonzero(rank == 0))
        in_five += int(np.count_nonzero(rank < 5))
        cases += len(rank)
        progress(number + 1, loader.steps_per_epoch)
    loss, right, in_five, cases, stopped = total([loss, right, in_five, cases, stopped])
    if stopped:
        return None
    return {"loss": loss / cases, "top1": 100.0 * right / cases, "top5": 100.0 * in_five / cases}


def evaluate(
    run: str | os.PathLike[str],
    data: Data = None,
    device: str | None = None,
    warn: Callable[[str], None] = _warn,
) -> dict[str, Any]:
    """Measures a trained net on validation data.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        data: a path, or (training set, validation set); None takes the data of the run.
        device: as for `convnet.backend.get_all`; None is "auto".
        warn: told when a damaged checkpoint is passed over.

    Returns:
        {"loss", "top1", "top5" (per cent), "cases", "data", "checkpoint", "step"}.

    Raises:
        CheckpointError, RunError, DataError, DeviceError.
    """
    trained = open_run(run, device, warn)
    _, validation = open_sets(trained.cfg, data)
    if validation.shape != trained.picture or validation.classes != trained.classes:
        raise DataError(
            f"{validation.description}: expected pictures {trained.picture} of "
            f"{len(trained.classes)} classes as in training, got {validation.shape} of "
            f"{len(validation.classes)}"
        )
    cfg = trained.cfg
    batch = min(cfg.train.batch, len(validation))
    loader = Loader(validation, batch, cfg.seed, cfg.augment, trained.stats, train=False)
    result = measure(trained.net, loader, trained.prepare)
    return {
        **(result or {}),
        "cases": len(validation),
        "data": validation.description,
        "checkpoint": str(trained.checkpoint.path),
        "step": trained.checkpoint.state["step"],
    }
