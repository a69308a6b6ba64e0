"""Losses and ranks of training steps, copied to the host without waiting for the GPU.

To read the loss of a step is to wait until the device has made it, and a device that is waited for
in each step has nothing to do while the host prepares the next one. So on a GPU the losses and
ranks of a step, few bytes a sample, are copied to pinned memory in the order of what the GPU does,
and are read a few steps later. On the host they are read at once. The figures are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet.nn.eager import mean_loss
from convnet.nn.net import Net

AHEAD = 3  # steps that a GPU may have been given and not have done


@dataclass(frozen=True)
class StepResult:
    """The loss and the ranks of a step.

    Attributes:
        step: its number, from 1.
        loss: the mean over the batch, before the update.
        rank: of each label, int32 [N]; see `Net.last_rank`.
    """

    step: int
    loss: float
    rank: np.ndarray


@dataclass(frozen=True)
class _Pending:
    """A step whose results are being copied; `event` is done when they have arrived."""

    step: int
    losses: list[tuple[float, np.ndarray]]
    rank: np.ndarray
    event: Any


class StepResults:
    """The results of a net's steps.

    Args:
        net: whose steps.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._pending: deque[_Pending] = deque()

    def note(self) -> None:
        """Begins to copy the results of the step that was begun last."""
        net, device = self.net, self.net.backend
        losses, rank = net.last.losses, net.ranks
        with device.active():
            fetched = [(coeff, device.fetch(loss)) for coeff, loss in losses]
            self._pending.append(_Pending(net.step, fetched, device.fetch(rank), device.record()))

    def read(self, wait: bool) -> Iterator[StepResult]:
        """Those that were not read yet, oldest first: of all steps where `wait`, else of all but
        the last `AHEAD`, which a GPU has long done."""
        while len(self._pending) > (0 if wait else AHEAD):
            pending = self._pending.popleft()
            self.net.wait_for(pending.event)
            yield StepResult(pending.step, mean_loss(pending.losses), pending.rank)
