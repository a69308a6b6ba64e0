"""Callbacks: what follows a run, such as its display, TensorBoard, or a user's own code.

A function that takes a record of metrics.jsonl is a callback too. A `Callback` also gets calls at
the run's beginning, after steps, and at its end. Either ends the run by returning True.
"""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]


class Callback:
    """Does nothing; a subclass overrides what it needs."""

    def begin(self, trainer: Any) -> None:
        """The run begins, or goes on from a checkpoint.

        Args:
            trainer: a `convnet.training.trainer.Trainer`: the net, the data, and where it stands.
        """

    def step(self) -> None:
        """A training step was begun; on a GPU it may not be done."""

    def __call__(self, record: Record) -> Any:
        """A line of metrics.jsonl was written; True ends the run."""

    def end(self) -> None:
        """The run is over, however it ended."""
