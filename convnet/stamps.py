"""What of a transfer between two devices is written down: its stamp, its signal, what went wrong.

See `convnet.links`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from convnet.backend import Array, Backend, HostArray
from convnet.stepstate import StepState

if TYPE_CHECKING:
    from convnet.links import Link


class Flags:
    """Where devices put what they find wrong: the halt words of the state of a step.

    Attributes:
        state: of the step.
        texts: what each code stands for, from 1: (link, what was on its way).
    """

    def __init__(self, state: StepState) -> None:
        self.state = state
        self.texts: list[tuple[Link, str]] = []
        self._codes: dict[tuple[int, str], int] = {}

    def code(self, link: Link, what: str) -> int:
        """The word that means: this did not arrive."""
        key = id(link), what
        if key not in self._codes:
            self.texts.append((link, what))
            self._codes[key] = len(self.texts)
        return self._codes[key]

    def verify(self) -> None:
        """Looks whether a device has halted; the host waits for them here. Raises: LinkError."""
        code = self.state.halted if self.texts else 0
        if code:
            link, what = self.texts[code - 1]
            link.fail(f"a transfer ({what})", "what arrived is not what was sent")


class Lane:
    """Memory for the stamps of one transfer at a time, and the counts at both ends."""

    def __init__(self, source: Backend, target: Backend) -> None:
        self.sent, self.got = source.zeros((1,), np.uint32), target.zeros((1,), np.uint32)
        self.stamp = target.zeros((2,), np.uint32)


class Transfer:
    """A block on its way from one device to the other."""

    def __init__(self, number: int, what: str, dst: Array, dst_col: int, cols: int) -> None:
        self.number = number
        self.what = what
        self.dst, self.columns = dst, (dst_col, cols)
        self.lane: Lane | None = None  # where devices check
        self.stamp: tuple[int, Any] | None = None  # number and sum, where the host does
        self.signal = threading.Event()
        self.event: Any = None  # on CUDA
        self.error: BaseException | None = None

    @property
    def block(self) -> Array:
        """Where it goes."""
        first, cols = self.columns
        return self.dst[:, first : first + cols]


def word_sum(device: Backend, block: Array) -> Any:
    """The sum of the words of a block, modulo 2^32; on CUDA an array of one on the device."""
    xp = device.xp
    block = block.view(np.ndarray) if isinstance(block, HostArray) else block
    return xp.sum(block.view(np.uint32), dtype=np.uint32)
