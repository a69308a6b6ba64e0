"""Validation: the loss and the errors of a net over a whole set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from convnet.data import Loader
from convnet.nn.net import Net
from convnet.training.setup import Preparer


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
        Means over the samples: {"loss", "top1", "top5"}, the last two in per cent; None if stopped.
    """
    loss, right, in_five, samples, stopped = 0.0, 0.0, 0.0, 0.0, 0.0
    for number, batch in enumerate(loader.epoch(0)):
        if stop():
            stopped = 1.0
            break
        losses, rank = net.evaluate(prepare(batch), batch.labels)
        loss += float(np.sum(losses, dtype=np.float64))
        right += int(np.count_nonzero(rank == 0))
        in_five += int(np.count_nonzero(rank < 5))
        samples += len(rank)
        progress(number + 1, loader.steps_per_epoch)
    loss, right, in_five, samples, stopped = total([loss, right, in_five, samples, stopped])
    if stopped:
        return None
    return {
        "loss": loss / samples,
        "top1": 100.0 * right / samples,
        "top5": 100.0 * in_five / samples,
    }
