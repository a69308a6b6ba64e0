"""What a run says of itself: what it works with, how it ended, and how to go on."""

from __future__ import annotations

import os
import shlex

from convnet.optim.sgd import DivergedError
from convnet.training.datasets import Data
from convnet.training.progress import Reporter
from convnet.training.setup import Parts
from convnet.training.trainer import Trainer


def show_parts(parts: Parts, reporter: Reporter) -> None:
    """Prints what a run works with.

    Args:
        parts: of the run.
        reporter: prints it.
    """
    cfg, net, block = parts.cfg, parts.net, reporter.block
    height, width, channels = parts.train.shape
    block(
        "data",
        parts.train.description,
        f"{len(parts.train)} training and {len(parts.validation)} validation "
        f"images, {height} x {width} x {channels}, {len(parts.train.classes)} classes",
    )
    if net.partition is not None:
        block("links", net.partition.links.describe())
        for note in net.partition.links.notes:
            reporter.warn(note)
    block(
        "net",
        f"{cfg.net.model or cfg.name}: {len(net.nodes)} nodes, "
        f"{net.parameter_count:,} parameters, {net.macs / 1e6:.1f} M multiply-adds per image",
    )
    block("memory", *parts.memory.lines(cfg.train.batch, parts.parallel.among.size))
    block("step", net.programs.describe())
    if cfg.net.lr_mult:
        rates = cfg.net.lr_mult.items()
        texts = (f"{name} x {rate:g}" if rate else f"{name} frozen" for name, rate in rates)
        block("rates", ", ".join(texts))
    block("init", *(parts.taken.lines() if parts.taken else ()))
    if cfg.train.sampling == "balanced":
        block("sampling", f"balanced: as many images of each class, {len(parts.train)} an epoch")
    block("weights", *parts.class_weights.lines(parts.train.classes))
    total = cfg.train.epochs * parts.loader.steps_per_epoch
    warm_up = parts.schedule.warm_up(total)
    if warm_up < cfg.schedule.warmup_steps:
        reporter.warn(
            f"schedule.warmup_steps: expected at most {total}, the steps of the run, got "
            f"{cfg.schedule.warmup_steps}; {warm_up} are taken, a tenth of the run"
        )
    options = [cfg.schedule.kind, *([f"warm-up {warm_up} steps"] if warm_up else [])]
    options += [f"{key} {value}" for key, value in cfg.schedule.options.items()]
    block(
        "schedule",
        f"{cfg.train.epochs} epochs of {parts.loader.steps_per_epoch} steps of "
        f"{cfg.train.batch}; lr {cfg.sgd.lr:g} {', '.join(options)}; "
        f"momentum {cfg.sgd.momentum:g}, weight decay {cfg.sgd.weight_decay:g}",
    )


def show_end(trainer: Trainer, status: str, text: str) -> None:
    """Prints how a run ended.

    Args:
        trainer: of the run.
        status: as of `TrainResult`.
        text: of one that diverged, why; of one that was ended, the way back.
    """
    reporter, best = trainer.reporter, trainer.best
    if status == "diverged":
        reporter.error(text)
    elif status != "done":
        reporter.line(f"{status} at step {trainer.net.step}; {text}", always=True)
    elif best is not None:
        if trainer.out_of_patience and trainer.epoch < trainer.cfg.train.epochs:
            reporter.line(_stopped_early(trainer))
        command = shlex.join(["convnet", "predict", str(trainer.folder.path)])
        loss = trainer.cfg.train.best == "val_loss"
        what = f"loss {best['val_loss']:.4f}, " if loss else ""
        reporter.line(
            f"done: best validation {what}top-1 {best['val_top1']:.2f} % in epoch "
            f"{best['epoch']}; try: {command} IMAGE"
        )


def divergence(trainer: Trainer, error: DivergedError) -> str:
    """Why a run diverged, and what to try."""
    return (
        f"diverged at step {trainer.net.step}: {error}; {_kept(trainer)}; try a smaller "
        f"sgd.lr (it was {trainer.lr:g}) or schedule.warmup_steps"
    )


def way_back(trainer: Trainer, device: str, data: Data) -> str:
    """The last checkpoint, and the command that goes on from it.

    Args:
        trainer: of the run.
        device, data: as `train` was given them.
    """
    folder = str(trainer.folder.path)
    if data is not None and not isinstance(data, (str, os.PathLike)):
        command = f"convnet.train(resume={folder!r}, data=...)"
    else:
        options = ["--device", device] if device != "auto" else []
        command = shlex.join(["convnet", "train", "--resume", folder, *options])
    return f"{_kept(trainer)}; resume with: {command}"


def _kept(trainer: Trainer) -> str:
    if trainer.checkpoint is None:
        return "there is no checkpoint yet"
    return f"the last checkpoint is {trainer.checkpoint}"


def _stopped_early(trainer: Trainer) -> str:
    """Why a run ended before its last epoch."""
    train = trainer.cfg.train
    what = {"val_top1": "validation top-1", "val_loss": "validation loss"}[train.best]
    epochs = "the last epoch was" if train.patience == 1 else f"{train.patience} epochs were"
    return (
        f"stopped early: {epochs} not better than the best ({what}, train.patience="
        f"{train.patience}), after {trainer.epoch} of {train.epochs} epochs; resumed with "
        "--set train.patience=0 the run trains on"
    )
