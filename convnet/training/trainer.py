"""The loop of a training run: steps, validation, checkpoints, and what may stop it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.distribution import VERSION
from convnet.data import DataError
from convnet.layers.graph import INPUT
from convnet.optim.sgd import DivergedError
from convnet.parallel.ranks import same_weights
from convnet.training.callbacks import Callback, Record
from convnet.training.checkpoint import Checkpoint, CheckpointError, load_weights, statistics_arrays
from convnet.training.progress import Reporter
from convnet.training.run_folder import NoFolder, RunFolder
from convnet.training.setup import Parts
from convnet.training.signals import Signals
from convnet.training.tally import Clock, Tally
from convnet.training.update_ratios import update_ratios
from convnet.training.validation import measure


class Trainer:
    """One run in progress.

    Args:
        parts: the objects that the run works with.
        folder: where the run is kept.
        reporter: where it is shown.
        callbacks: functions of a record of metrics.jsonl, and `Callback`s.

    Attributes:
        epoch, step_in_epoch: where the run stands; both count from 0.
        best: the record of the best epoch; history: all records; checkpoint: the newest.
        epoch_tally, window_tally: sums since the epoch and since the last record began; and clocks.
    """

    def __init__(
        self,
        parts: Parts,
        folder: RunFolder | NoFolder,
        reporter: Reporter,
        callbacks: Sequence[Callable[[Record], Any]] = (),
    ) -> None:
        self.parts, self.folder, self.reporter, self.callbacks = parts, folder, reporter, callbacks
        self.cfg, self.net = parts.cfg, parts.net
        self.ranks = parts.parallel.among
        self.epoch = self.step_in_epoch = 0
        self.best: Record | None = None
        self.history: list[Record] = []
        self.checkpoint: Path | None = None
        self.epoch_tally, self.window_tally = Tally(), Tally()
        self.epoch_clock, self.window_clock, self.run_clock = Clock(), Clock(), Clock()
        self.validation_seconds = 0.0
        self.stop_asked = False
        self.lr = parts.cfg.sgd.lr

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
            "epoch_tally": self.epoch_tally.sums()[:3],
            "window_tally": self.window_tally.sums()[:3],
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
        """The steps of the whole run."""
        return self.cfg.train.epochs * self.parts.loader.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        ended = self.epoch >= self.cfg.train.epochs or self.parts.schedule.finished
        return ended or (self.out_of_patience and self.step_in_epoch == 0)

    @property
    def out_of_patience(self) -> bool:
        """Whether the best epoch lies `train.patience` epochs back, which ends the run."""
        patience = self.cfg.train.patience
        return bool(patience and self.best and self.epoch - self.best["epoch"] >= patience)

    def run(self, signals: Signals) -> str:
        """Trains to the end, or until something stops it.

        Returns:
            "done", "stopped" (by a callback) or "interrupted" (by a signal; saved).

        Raises:
            DivergedError: the loss is not finite. OSError: something cannot be written.
        """
        with ExitStack() as stack:
            for callback in self._followers():
                callback.begin(self)
                stack.callback(callback.end)
            while not self.finished:
                if status := self._train_epoch(signals) or self._finish_epoch(signals):
                    return status
        return "done"

    def _followers(self) -> list[Callback]:
        return [callback for callback in self.callbacks if isinstance(callback, Callback)]

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
            for callback in self._followers():
                callback.step()
            if log:
                self._log_step()
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
        x, size = self.parts.prepare(batch), self.cfg.train.batch
        self.parts.parallel.train_step(x, self.parts.prepare.labels, self.parts.sgd, size)

    def _take_results(self, wait: bool) -> None:
        """Adds up the results of steps; `wait`: of all steps, once the GPU has done them."""
        try:
            for result in self.parts.parallel.results(wait):
                if not math.isfinite(result.loss):
                    self.parts.parallel.finish_steps()  # knows more of it
                    now = result.step == self.net.step
                    what = "loss is" if now else f"loss of step {result.step} was"
                    raise self._diverged(f"the {what} {result.loss}")
                for tally in (self.epoch_tally, self.window_tally):
                    tally.add(result.loss * len(result.rank), result.rank)
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
        values = {f"val_{name}": value for name, value in result.items()}
        record = self._record("epoch", self.epoch_tally, self.epoch_clock)
        record |= {**values, "update_ratio": update_ratios(self.net)}
        best = self.best is None or self._badness(record) < self._badness(self.best)
        if best:
            self.best = record
        self._emit(record)
        if message := self.parts.schedule.observe(self._error(record)):
            self.reporter.line(message)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.epoch_tally, self.epoch_clock = Tally(), Clock()
        self.save(best)
        if self.ranks.any(bool(signals.received)):
            return "interrupted"
        if self.finished:
            return "done"
        return "stopped" if self.ranks.any(self.stop_asked) else None

    def _badness(self, record: Record) -> float:
        """What is least in the best epoch; see `train.best`."""
        if self.cfg.train.best == "val_loss":
            return float(record["val_loss"])
        return self._error(record)

    def _error(self, record: Record) -> float:
        """The validation error in per cent; the loss of a net that names no classes."""
        return float(record["val_loss"] if self.net.classes is None else 100.0 - record["val_top1"])

    def _log_step(self) -> None:
        record = self._record("step", self.window_tally, self.window_clock)
        self.window_tally, self.window_clock = Tally(), Clock()
        self._emit(record)

    def _record(self, kind: str, tally: Tally, clock: Clock) -> Record:
        """What lines of metrics.jsonl of both kinds hold."""
        place = {"kind": kind, "epoch": self.epoch + 1, "step": self.net.step}
        return {**place, **tally.means(), "lr": self.lr, **clock.rates()}

    def _emit(self, record: Record) -> None:
        """Writes a line of metrics.jsonl and tells the callbacks."""
        self.folder.record(record)
        self.history.append(record)
        for callback in self.callbacks:
            if callback(record) is True:
                self.stop_asked = True
