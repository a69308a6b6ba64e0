"""Links: how numbers get from one device to another, tested when they are opened.

A pair of devices is linked by a kernel that stores into the other's memory ("peer"; "loopback"
between two logical devices of the host) or, where a test pattern does not arrive that way, through
the memory of the host ("host-staged"). A transfer is an operation like any other: it can be traced,
and devices wait for each other on their streams.

With CONVNET_P2P_CHECK=1 every transfer carries a checksum, which the target compares; it halts the
step, and no update is made, where a write was lost. That costs two passes over what travels.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Array, Backend
from convnet.common.exit_codes import FAILED
from convnet.ops.step_state import StepState
from convnet.parallel.transports import Direct, HostStaged, Transport, transport_works

MODES = ("auto", "off", "force")


class LinkError(RuntimeError):
    """A transfer between two devices failed; the message names them."""

    exit_code = FAILED


class LinkWarning(UserWarning):
    """A pair of devices does not reach each other directly; the message says what is done."""


class Link:
    """One way between two devices.

    Args:
        source, target: the devices.
        transport: by which it goes.
        checks: where checksums are compared; None: they are not made.
    """

    def __init__(
        self, source: Backend, target: Backend, transport: Transport, checks: Checks | None
    ) -> None:
        self.source, self.target, self.transport, self.checks = source, target, transport, checks
        self._sums: dict[tuple[str, int], Sums] = {}

    @property
    def pair(self) -> str:
        return f"{self.source.device} -> {self.target.device}"

    def copy(
        self, what: str, dst: Array, dst_col: int, src: Array, src_col: int, cols: int
    ) -> None:
        """Copies columns of src [rows, S] to some of dst [rows, D]; `what` is named in errors."""
        if self.checks is None:
            self.transport.copy(dst, dst_col, src, src_col, cols)
            return
        key = what, dst_col
        if key not in self._sums:
            self._sums[key] = Sums(self.source, self.target)
        sums = self._sums[key]
        ops.peer_stamp(src, sums.sent, sums.sum, self.target, src_col=src_col, cols=cols)
        self.transport.copy(dst, dst_col, src, src_col, cols)
        halt = self.checks.state.halt_on(self.target)
        code = self.checks.code(self, what)
        ops.peer_check(dst, sums.got, sums.sum, halt, code, src_col=dst_col, cols=cols)


class Sums:
    """The checksum of a transfer, and how many there have been, counted at both ends."""

    def __init__(self, source: Backend, target: Backend) -> None:
        self.sent, self.got = source.zeros((1,), np.uint32), target.zeros((1,), np.uint32)
        self.sum = target.zeros((2,), np.uint32)


class Checks:
    """Where devices note that a checksum was wrong: the halt words of the state of a step.

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


class Links:
    """The links between all devices of a net, each tested with a pattern when it is opened.

    Args:
        devices: two or more of a kind.
        state: of the net's steps, which the devices halt.

    The environment variable CONVNET_P2P says how: "auto" (directly; where the pattern does not
    arrive, through the host, with a `LinkWarning`), "off" (through the host), "force" (as "auto",
    but fails where that would go through the host). CONVNET_P2P_CHECK=1 switches checksums on.
    CONVNET_P2P_TIMEOUT is how many seconds a GPU may take for a step, 60 by default.

    Raises: LinkError for a pair of devices that cannot reach each other; ValueError for a variable
        that makes no sense.
    """

    def __init__(self, devices: Sequence[Backend], state: StepState | None = None) -> None:
        mode = os.environ.get("CONVNET_P2P") or "auto"
        if mode not in MODES:
            raise ValueError(f"CONVNET_P2P: expected one of {', '.join(MODES)}; got {mode!r}")
        self.devices = tuple(devices)
        self.timeout = _timeout()
        self.notes: list[str] = []
        self.checks = Checks(state or StepState(devices)) if _checking() else None
        self._links = {
            (source.index, target.index): Link(
                source, target, self._transport(source, target, mode), self.checks
            )
            for source in devices
            for target in devices
            if source is not target
        }

    def between(self, source: Backend, target: Backend) -> Link:
        return self._links[source.index, target.index]

    def __iter__(self) -> Any:
        return iter(self._links.values())

    def _transport(self, source: Backend, target: Backend, mode: str) -> Transport:
        pair = f"{source.device} -> {target.device}"
        if mode != "off":
            direct = Direct(source)
            if transport_works(direct, source, target):
                return direct
            problem = f"{pair}: a pattern did not arrive by {direct.name}"
            if mode == "force":
                raise LinkError(f"{problem} (CONVNET_P2P=force)")
            self.notes.append(f"{problem}; staged through the memory of the host")
            warnings.warn(self.notes[-1], LinkWarning, stacklevel=5)
        staged = HostStaged(source, target)
        if not transport_works(staged, source, target):
            raise LinkError(f"{pair}: a pattern did not arrive through the memory of the host")
        return staged

    def share_halts(self, held: Callable[[Array, Backend], Array] = lambda array, _: array) -> None:
        """Before an update: what one device has found stops the others too. On the devices.

        Args:
            held: gives what operations are called with for an array on a device; in a trace, its
                tensor.
        """
        if self.checks is None:
            return
        state = self.checks.state
        for device in self.devices:
            for other in self.devices:
                if other is not device:
                    device.wait_for(other)
                    mine = held(state.halt_on(device), device)
                    ops.peer_halt(mine, held(state.halt_on(other), other))

    def verify(self) -> None:
        """Waits until all devices are done, but not for ever, and looks whether one has found a
        wrong checksum.

        Raises: LinkError naming the devices and what was on its way.
        """
        for device in self.devices:
            self.wait_for(device.record(), device)
        if self.checks is None:
            return
        code = self.checks.state.halted
        if code:
            link, what = self.checks.texts[code - 1]
            raise LinkError(
                f"{link.pair}: a transfer ({what}) failed: what arrived is not what was sent "
                f"({link.transport.name})"
            )

    def wait_for(self, event: Any, device: Backend) -> None:
        """Waits for an event of a device, but not for ever; hosts have none. Raises: LinkError."""
        end = time.monotonic() + self.timeout
        while event is not None and not event.done:
            if time.monotonic() > end:
                raise LinkError(
                    f"{device.device} did not end a step in {self.timeout:g} s "
                    f"({self.describe()}; CONVNET_P2P_TIMEOUT)"
                )
            time.sleep(1e-5)

    def describe(self) -> str:
        """One line: each pair and how it is linked."""
        checked = ", with checksums" if self.checks is not None else ""
        return ", ".join(f"{link.pair} {link.transport.name}" for link in self) + checked


def _timeout() -> float:
    text = os.environ.get("CONVNET_P2P_TIMEOUT") or "60"
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < math.inf:
            return float(text)
    raise ValueError(f"CONVNET_P2P_TIMEOUT: expected a number of seconds, got {text!r}")


def _checking() -> bool:
    text = os.environ.get("CONVNET_P2P_CHECK") or "0"
    if text not in ("0", "1"):
        raise ValueError(f"CONVNET_P2P_CHECK: expected 0 or 1; got {text!r}")
    return text == "1"
