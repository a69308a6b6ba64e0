"""Validation: the loss and the errors of a net over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from convnet.data import Loader
from convnet.nn.net import Net
from convnet.training.inputs import Preparer
from convnet.training.tally import Tally


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
        total: adds up numbers over the processes that measure together (`Ranks.total`).

    Returns:
        Means over the images: {"loss", "top1", "top5"}, the last two in per cent; None if stopped.
    """
    tally, stopped = Tally(), False
    for number, batch in enumerate(loader.epoch(0)):
        if stopped := stop():
            break
        losses, rank = net.evaluate(prepare(batch), batch.labels)
        tally.add(float(np.sum(losses, dtype=np.float64)), rank)
        progress(number + 1, loader.steps_per_epoch)
    *sums, anyone_stopped = total([*tally.sums(), float(stopped)])
    return None if anyone_stopped else Tally(*sums).means(five=True)
