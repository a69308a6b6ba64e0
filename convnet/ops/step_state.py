"""The state of a training step: the few numbers that change from one step to the next.

They lie in the memory of each device, 48 bytes of it and, where parameters have rates of their own,
a table of these. The operations read them there when they run (`StepState` and `SgdRule` in
src/ops.h). A step that was captured, as a CUDA graph or as a list of calls, can therefore run again
with another learning rate and other dropout masks: only these words and the batch are written anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convnet.backend import Array, Backend

WORDS = 12
_ABORTED = 6  # the word that a device sets if a step went wrong; the words before it are the host's
_DIVERGED = slice(7, 9)  # what it notes of an update that was not finite: a number, and step + 1


class StepState:
    """Seed, step, learning rate, momentum and weight decay, the same on all devices.

    Args:
        devices: that have a copy each, made when it is first needed.

    A device that finds that something did not arrive aborts: it says so in a word, and no update is
    made from then on. Nor is any in the steps after one whose update was not finite.
    """

    def __init__(self, devices: Sequence[Backend]) -> None:
        self.devices = tuple(devices)
        self._words = np.zeros(_ABORTED, np.uint32)
        self._on: dict[Backend, Array] = {}

    @property
    def step(self) -> int:
        """The step that was written last, from 0."""
        return int(self._words[2])

    def on(self, device: Backend) -> Array:
        """The state in the memory of a device, uint32 [12]."""
        device = device.real
        if device not in self._on:
            held = self._on[device] = device.zeros((WORDS,), np.uint32)
            device.put(held[:_ABORTED], self._words)
        return self._on[device]

    def aborted_on(self, device: Backend) -> Array:
        """The word in the memory of a device that stops the update, uint32 [1]."""
        return self.on(device)[_ABORTED : _ABORTED + 1]

    def write(self, seed: int, step: int, rates: tuple[float, float, float] | None = None) -> None:
        """Gives all devices these numbers, in the order of what they are doing.

        Args:
            seed, step: of dropout.
            rates: learning rate, momentum and weight decay; those of before if left out.
        """
        words = self._words.copy()
        words[:3] = seed & 0xFFFFFFFF, seed >> 32, step
        if rates is not None:
            words[3:6].view(np.float32)[:] = rates
        if words.tobytes() != self._words.tobytes():
            self._words = words
            for device, held in self._on.items():
                device.put(held[:_ABORTED], words)

    @property
    def aborted(self) -> int:
        """What a device has found to be wrong, or 0; waits for all that devices were given."""
        words = [int(device.to_host(held)[_ABORTED]) for device, held in self._on.items()]
        return next((word for word in words if word), 0)

    @property
    def diverged(self) -> int:
        """The greatest number of a tensor whose update was not finite, or 0; waits likewise."""
        words = [int(device.to_host(held)[_DIVERGED][0]) for device, held in self._on.items()]
        return max(words, default=0)

    @property
    def diverged_step(self) -> int:
        """The number of the step, from 1, that an update was not finite in, or 0."""
        words = [int(device.to_host(held)[_DIVERGED][1]) for device, held in self._on.items()]
        return min((word for word in words if word), default=0)

    def note_diverged(self, device: Backend, number: int) -> None:
        """Notes on a device, as an update would, that one was not finite."""
        noted = np.array([number, self._words[2] + 1], np.uint32)
        device.put(self.on(device)[_DIVERGED], noted)

    def clear_diverged(self) -> None:
        """Forgets that an update was not finite."""
        for device, held in self._on.items():
            device.put(held[_DIVERGED], np.zeros(2, np.uint32))


class ParameterRates:
    """Learning rate and momentum of each parameter, the same on all devices.

    For steps in which a parameter has others than the state of the step says.
    """

    def __init__(self) -> None:
        self._rows = np.zeros((0, 2), np.float32)
        self._on: dict[tuple[Backend, int], Array] = {}

    def on(self, device: Backend) -> Array:
        """The table in the memory of a device, float32 [parameters, 2]."""
        key = device.real, len(self._rows)
        if key not in self._on:
            self._on[key] = device.real.asarray(self._rows.copy())
        return self._on[key]

    def write(self, rows: Sequence[tuple[float, float]]) -> None:
        """Gives all devices these numbers, in the order of what they are doing.

        Args:
            rows: learning rate and momentum of each parameter.
        """
        new = np.array(rows, np.float32)
        if new.tobytes() != self._rows.tobytes():
            self._rows = new
            for (device, count), held in self._on.items():
                if count == len(new):
                    device.put(held, new)
