"""The loop of a training run: steps, validation, checkpoints, and what may stop it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet.common.distribution import VERSION
from convnet.config import Config
from convnet.data import DataError
from convnet.layers.graph import INPUT
from convnet.optim.sgd import DivergedError
from convnet.parallel.ranks import same_weights
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.progress import Reporter, duration, figures
from convnet.training.run_folder import RunFolder
from convnet.training.setup import Parts, load_weights, statistics_arrays
from convnet.training.signals import Signals
from convnet.training.update_ratios import update_ratios
from convnet.training.validation import measure

Record = dict[str, Any]
Callback = Callable[[Record], Any]


@dataclass
class Tally:
    """Running sums over samples: the loss, those whose top guess is right, and how many."""

    loss: float = 0.0
    right: int = 0
    samples: int = 0

    def add(self, mean_loss: float, rank: np.ndarray) -> None:
        """One batch: its mean loss and the rank of each label."""
        self.loss += mean_loss * len(rank)
        self.right += int(np.count_nonzero(rank == 0))
        self.samples += len(rank)

    def means(self) -> dict[str, float]:
        """{"loss": mean, "top1": per cent}."""
        count = max(1, self.samples)
        return {"loss": self.loss / count, "top1": 100.0 * self.right / count}

    def state(self) -> list[float]:
        """What `Tally(*state)` makes again."""
        return [self.loss, self.right, self.samples]


class Clock:
    """Time spent training since the last reset, and the part of it waiting for data."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.waited = 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        self.images += images
        self.seconds += seconds
        self.waited += waited

    def rates(self) -> dict[str, float]:
        """{"images_per_s": ..., "wait": per cent of the time}."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_s": round(self.images / seconds, 1),
            "wait": round(min(100.0, 100.0 * self.waited / seconds), 2),
        }


class StuckHint:
    """Notices a loss that stays at ln(classes), the value of a net that has learned nothing."""

    BAND = 0.01  # of ln(classes)

    def __init__(self, classes: int) -> None:
        self.chance = math.log(classes) if classes > 1 else 0.0
        self.patience = max(200, 2 * classes)  # steps; large nets begin slowly
        self.steps = 0
        self.given = self.chance == 0.0

    def watch(self, loss: float, steps: int) -> str | None:
        """Takes the mean loss over some steps; returns the hint once."""
        near = abs(loss - self.chance) <= self.BAND * self.chance
        self.steps = self.steps + steps if near else 0
        if self.given or self.steps < self.patience:
            return None
        self.given = True
        return (
            f"hint: the loss has stayed at {self.chance:.3f} = ln(classes) for {self.steps} steps: "
            "nothing is learned yet. Try a larger or smaller sgd.lr, a larger std of the initial "
            "weights, or check data.scale and the labels"
        )


class Trainer:
    """One run in progress.

    Args:
        cfg, parts: what to train, and the objects made from it.
        folder: where the run is kept.
        reporter: where it is shown.
        callbacks: called with each record of metrics.jsonl; the result True ends the run.
    """

    def __init__(
        self,
        cfg: Config,
        parts: Parts,
        folder: RunFolder,
        reporter: Reporter,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.cfg, self.parts, self.folder, self.reporter = cfg, parts, folder, reporter
        self.callbacks = callbacks
        self.net = parts.net
        self.ranks = parts.parallel.among
        self.epoch = 0  # the one in progress, from 0
        self.step_in_epoch = 0
        self.best: Record | None = None
        self.history: list[Record] = []
        self.checkpoint: Any = None
        self.epoch_tally, self.window_tally = Tally(), Tally()
        self.epoch_clock, self.window_clock, self.run_clock = Clock(), Clock(), Clock()
        self.validation_seconds = 0.0
        self.stuck = StuckHint(self.net.classes or 1)
        self.stop_asked = False
        self.lr = cfg.sgd.lr

    # ---- state ----------------------------------------------------------------------------------

    def save(self, best: bool = False) -> None:
        """Writes a checkpoint of this moment.

        Raises:
            DivergedError: the net has diverged, or parameters are not finite; nothing is written.
            OSError: it cannot be written; the one before is whole.
        """
        self._take_results(wait=True)
        if self.net.diverged is not None:
            raise self.net.diverged
        arrays = self.net.state(copy=False)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} holds NaN or infinity")
        if not same_weights(arrays, self.ranks):
            raise RuntimeError("the processes of this run no longer hold the same parameters")
        state = {
            "version": VERSION,
            "step": self.net.step,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "epoch_tally": self.epoch_tally.state(),
            "window_tally": self.window_tally.state(),
            "best": self.best,
            "lr": self.lr,
            "schedule": self.parts.schedule.state(),
            **self.parts.facts(),
            "machine": self.parts.machine(),
            "config": self.cfg.to_dict(),
        }
        arrays = {**arrays, **statistics_arrays(self.parts.stats)}
        self.checkpoint = self.folder.save(state, arrays, best)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts the run where the checkpoint was taken.

        Raises:
            CheckpointError: it is of another net or of other data.
        """
        state = checkpoint.state
        self.parts.check_same(state, checkpoint.path)
        load_weights(self.net, checkpoint)
        if state["config"]["schedule"]["kind"] == self.cfg.schedule.kind:  # else a new one begins
            self.parts.schedule.load(state["schedule"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        if self.step_in_epoch > self.parts.loader.steps_per_epoch:
            raise CheckpointError(
                f"{checkpoint.path}: step {self.step_in_epoch} of a shorter epoch"
            )
        self.epoch_tally = Tally(*state["epoch_tally"])
        self.window_tally = Tally(*state["window_tally"])
        self.best, self.lr = state["best"], state["lr"]
        self.checkpoint = checkpoint.path
        self.history = self.folder.rewind(
            state["step"], self.step_in_epoch == 0, state.get("records"), self.reporter.warn
        )

    # ---- the loop -------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        return self.cfg.train.epochs * self.parts.loader.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.epoch >= self.cfg.train.epochs or self.parts.schedule.finished

    def run(self, signals: Signals) -> str:
        """Trains to the end, or until something stops it.

        Returns:
            "done", "stopped" (by a callback) or "interrupted" (by a signal; saved).

        Raises:
            DivergedError: the loss is not finite. OSError: something cannot be written.
        """
        while not self.finished:
            status = self._train_epoch(signals) or self._finish_epoch(signals)
            if status:
                return status
        return "done"

    def _train_epoch(self, signals: Signals) -> str | None:
        steps = self.parts.loader.steps_per_epoch
        waited = self.parts.loader.wait_seconds
        start = time.perf_counter()
        for batch in self.parts.loader.epoch(self.epoch, self.step_in_epoch):
            self._step(batch)
            self.step_in_epoch += 1
            last = self.step_in_epoch == steps
            log = last or self.step_in_epoch % self.cfg.train.log_steps == 0
            every = self.cfg.train.checkpoint_steps
            keep = bool(every) and self.net.step % every == 0 and not last
            self._take_results(wait=log or keep)
            now, total_waited = time.perf_counter(), self.parts.loader.wait_seconds
            for clock in (self.epoch_clock, self.window_clock, self.run_clock):
                clock.add(self.cfg.train.batch, now - start, total_waited - waited)
            waited = total_waited
            if log:
                self._log_step()
            elif self.reporter.has_bar and self.window_tally.samples:
                self._show_bar({"lr": self.lr, **self.window_tally.means()}, self.window_clock)
            if self.ranks.any(bool(signals.received or self.stop_asked)):
                self.save()
                return "interrupted" if self.ranks.any(bool(signals.received)) else "stopped"
            if keep:
                self.save()
            start = time.perf_counter()
        return None

    def _step(self, batch: Any) -> None:
        self.lr = self.parts.schedule.lr(self.net.step, self.total_steps)
        self.parts.sgd.lr = self.lr
        self.parts.groups.begin_step(self.net.step, self.total_steps)
        x = self.parts.prepare(batch)
        self.parts.parallel.train_step(
            x, self.parts.prepare.labels, self.parts.sgd, self.cfg.train.batch
        )

    def _take_results(self, wait: bool) -> None:
        """Adds what steps have come to; `wait`: all steps, though a GPU may not have done them."""
        try:
            for result in self.parts.parallel.results(wait):
                if not math.isfinite(result.loss):
                    self.parts.parallel.finish_steps()  # knows more of it
                    now = result.step == self.net.step
                    what = "loss is" if now else f"loss of step {result.step} was"
                    raise self._diverged(f"the {what} {result.loss}")
                self.epoch_tally.add(result.loss, result.rank)
                self.window_tally.add(result.loss, result.rank)
        except DivergedError as error:
            if error.node == INPUT:
                raise self._bad_data() from error
            raise

    def _diverged(self, what: str) -> ValueError | ArithmeticError:
        """The error for something that is not finite: the data's fault, or that of a layer."""
        found = self.ranks.each(self.net.check_finite())
        node = next((name for name in found if name), None)
        if node == INPUT:
            return self._bad_data()
        return DivergedError(f"{what}; first in node {node}" if node else what, node=node)

    def _bad_data(self) -> DataError:
        return DataError(f"{self.parts.train.description}: the data hold NaN or infinity")

    def _finish_epoch(self, signals: Signals) -> str | None:
        """Validation, the line of the epoch, the schedule's turn, and the checkpoint."""
        start = time.perf_counter()
        result = measure(
            self.net,
            self.parts.validation_loader,
            self.parts.prepare,
            progress=lambda done, total: self.reporter.bar("validation", done, total),
            stop=lambda: bool(signals.received),
            total=self.ranks.total,
        )
        self.validation_seconds = time.perf_counter() - start
        if result is None:
            self.save()
            return "interrupted"
        if not math.isfinite(result["loss"]):
            raise self._diverged(f"the validation loss is {result['loss']}")
        record: Record = {
            "kind": "epoch",
            "epoch": self.epoch + 1,
            "step": self.net.step,
            **self.epoch_tally.means(),
            "lr": self.lr,
            **self.epoch_clock.rates(),
            **{f"val_{name}": result[name] for name in ("loss", "top1", "top5")},
            "update_ratio": update_ratios(self.net),
        }
        best = self.best is None or self._error(record) < self._error(self.best)
        if best:
            self.best = record
        self._show_epoch(record, best)
        message = self.parts.schedule.observe(self._error(record))
        if message:
            self.reporter.line(message)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.epoch_tally, self.epoch_clock = Tally(), Clock()
        self._emit(record)
        self.save(best)
        if self.ranks.any(bool(signals.received)):
            return "interrupted"
        if self.parts.schedule.finished:
            return "done"
        return "stopped" if self.ranks.any(self.stop_asked) else None

    def _error(self, record: Record) -> float:
        """What validation is judged by: the error in per cent; the loss where nothing is named."""
        return float(record["val_loss"] if self.net.classes is None else 100.0 - record["val_top1"])

    # ---- showing --------------------------------------------------------------------------------

    def _emit(self, record: Record) -> None:
        self.folder.record(record)
        self.history.append(record)
        for callback in self.callbacks:
            self.stop_asked = callback(record) is True or self.stop_asked

    def _log_step(self) -> None:
        steps = max(1, round(self.window_tally.samples / self.cfg.train.batch))
        record: Record = {
            "kind": "step",
            "epoch": self.epoch + 1,
            "step": self.net.step,
            **self.window_tally.means(),
            "lr": self.lr,
            **self.window_clock.rates(),
        }
        self._show_bar(record, self.window_clock)
        self.reporter.step(f"{self._place()}  {figures(record, self._eta())}")
        hint = self.stuck.watch(record["loss"], steps)
        if hint:
            self.reporter.line(hint)
        self.window_tally, self.window_clock = Tally(), Clock()
        self._emit(record)

    def _place(self) -> str:
        steps = self.parts.loader.steps_per_epoch
        return (
            f"epoch {self.epoch + 1}/{self.cfg.train.epochs}  "
            f"step {self.step_in_epoch:{len(str(steps))}d}/{steps}"
        )

    def _show_bar(self, record: Record, clock: Clock) -> None:
        text = figures({**record, **clock.rates()}, self._eta())
        self.reporter.bar(
            self._place(), self.step_in_epoch, self.parts.loader.steps_per_epoch, text
        )

    def _eta(self) -> float:
        """Seconds the rest of the run should take."""
        per_step = self.run_clock.seconds / max(1, self.run_clock.images) * self.cfg.train.batch
        validations = self.cfg.train.epochs - self.epoch
        return per_step * (self.total_steps - self.net.step) + validations * self.validation_seconds

    def _show_epoch(self, record: Record, best: bool) -> None:
        seconds = self.epoch_clock.seconds + self.validation_seconds
        self.reporter.line(
            f"epoch {record['epoch']}/{self.cfg.train.epochs} done: loss {record['loss']:.4f}, "
            f"top-1 {record['top1']:.2f} %; validation loss {record['val_loss']:.4f}, "
            f"top-1 {record['val_top1']:.2f} %, top-5 {record['val_top5']:.2f} %"
            f"{' (best so far)' if best else ''}; {record['images_per_s']:.0f} images/s, "
            f"{record['wait']:.0f} % waiting for data, {duration(seconds)}"
        )
        ratios = (f"{name} {value:.1e}" for name, value in record["update_ratio"].items())
        self.reporter.note(f"last update / weights: {', '.join(ratios)}")
