"""The page of a run, written when its training is over."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from convnet.report.write import write_report
from convnet.training import train as training
from convnet.training.callbacks import Callback
from convnet.training.trainer import Trainer

P = ParamSpec("P")
R = TypeVar("R")


class ReportWriter(Callback):
    """Writes report.html into the folder of a run that has come to its end, or that a callback has
    ended, unless `train.report` is false. A page that cannot be written is a warning, and the run
    is what it was."""

    def begin(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def end(self) -> None:
        run = self.trainer
        over = run.finished or run.stop_asked
        if not (run.cfg.train.report and over and run.history):
            return
        folder, warn = run.folder.path, run.reporter.warn
        try:
            sets = run.parts.train, run.parts.validation
            path, _ = write_report(folder, data=sets, device=run.net.device, warn=warn, over=True)
        except Exception as error:
            warn(f"report: not written: {str(error) or type(error).__name__}")
        else:
            run.reporter.block("report", str(path))


def with_report(train: Callable[P, R]) -> Callable[P, R]:
    """`convnet.training.train.train`, followed by a `ReportWriter`."""
    signature = inspect.signature(train)

    @functools.wraps(train)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        callbacks = given.arguments.get("callbacks", ())
        given.arguments["callbacks"] = (*callbacks, ReportWriter())
        return train(*given.args, **given.kwargs)

    return run


train = with_report(training.train)
