"""What a run shows: its metrics, and a hint where the loss is stuck."""

from __future__ import annotations

import math
from collections.abc import Callable

from convnet.training.callbacks import Callback, Record
from convnet.training.progress import Reporter, duration
from convnet.training.trainer import Trainer


class Display(Callback):
    """Shows the metrics: in the bar on a terminal, else as lines; and in the log."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def begin(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.reporter.start_bar()

    def step(self) -> None:
        run = self.trainer
        if self.reporter.has_bar and run.window_tally.images:
            record = {"lr": run.lr, **run.window_tally.means(), **run.window_clock.rates()}
            steps = run.parts.loader.steps_per_epoch
            self.reporter.bar(self._place(), run.step_in_epoch, steps, self._metrics(record))

    def __call__(self, record: Record) -> None:
        if record["kind"] == "step":
            self.reporter.step(f"{self._place()}  {self._metrics(record)}")
            return
        run = self.trainer
        seconds = run.epoch_clock.seconds + run.validation_seconds
        few = (run.net.classes or 0) <= 5  # among so few the right one is always found
        five = "" if few else f", top-5 {record['val_top5']:.2f} %"
        self.reporter.line(
            f"epoch {record['epoch']}/{run.cfg.train.epochs} done: loss {record['loss']:.4f}, "
            f"top-1 {record['top1']:.2f} %; validation loss {record['val_loss']:.4f}, "
            f"top-1 {record['val_top1']:.2f} %{five}"
            f"{' (best so far)' if record is run.best else ''}; "
            f"{record['images_per_s']:.0f} images/s, "
            f"{record['wait']:.0f} % waiting for data, {duration(seconds)}"
        )
        ratios = (f"{name} {value:.1e}" for name, value in record["update_ratio"].items())
        self.reporter.note(f"last update / weights: {', '.join(ratios)}")

    def _place(self) -> str:
        run, steps = self.trainer, self.trainer.parts.loader.steps_per_epoch
        place = f"step {run.step_in_epoch:{len(str(steps))}d}/{steps}"
        return f"epoch {run.epoch + 1}/{run.cfg.train.epochs}  {place}"

    def _metrics(self, record: Record) -> str:
        run = self.trainer
        per_step = run.run_clock.seconds / max(1, run.run_clock.images) * run.cfg.train.batch
        validations = run.cfg.train.epochs - run.epoch
        left = per_step * (run.total_steps - run.net.step) + validations * run.validation_seconds
        return (
            f"loss {record['loss']:.4f}  top-1 {record['top1']:5.2f} %  "
            f"{record['images_per_s']:.0f} images/s  lr {record['lr']:.3g}  ETA {duration(left)}"
        )


class StuckHint(Callback):
    """Gives a hint once when the loss stays at ln(classes), that of a net that has not learned.

    Args:
        classes: of the data.
        tell: is given the hint.
    """

    BAND = 0.01  # of ln(classes)

    def __init__(self, classes: int, tell: Callable[[str], None]) -> None:
        self.chance = math.log(classes) if classes > 1 else 0.0
        self.patience = max(200, 2 * classes)  # steps; large nets begin slowly
        self.tell = tell
        self.steps = self.last = 0
        self.given = self.chance == 0.0

    def begin(self, trainer: Trainer) -> None:
        self.last = trainer.net.step

    def __call__(self, record: Record) -> None:
        if record["kind"] != "step":
            return
        near = abs(record["loss"] - self.chance) <= self.BAND * self.chance
        self.steps = self.steps + record["step"] - self.last if near else 0
        self.last = record["step"]
        if not self.given and self.steps >= self.patience:
            self.given = True
            self.tell(
                f"hint: the loss has stayed at {self.chance:.3f} = ln(classes) for {self.steps} "
                "steps: nothing is learned yet. Try a larger or smaller sgd.lr, a larger std of "
                "the initial weights, or check data.scale and the labels"
            )
