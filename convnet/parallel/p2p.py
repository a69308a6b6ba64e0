"""Checked point-to-point transfers between devices.

A pair of devices is linked by a kernel that stores into the other's memory ("peer"; "loopback"
between two logical devices of the host) or, where a test pattern does not arrive that way, through
the memory of the host ("host-staged"). A transfer is an operation like any other: it can be traced,
and devices wait for each other on their streams.

With CONVNET_P2P_CHECK=1 every transfer carries a checksum, which the target compares; it aborts the
step, and no update is made, where a write was lost. That costs two passes over what travels.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Array, Backend
from convnet.common import environment
from convnet.common.checks import check_choice
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
        checksums: of its transfers; None: they are not made.
    """

    def __init__(
        self, source: Backend, target: Backend, transport: Transport, checksums: Checksums | None
    ) -> None:
        self.source, self.target, self.transport = source, target, transport
        self.checksums = checksums

    @property
    def pair(self) -> str:
        return f"{self.source.device} -> {self.target.device}"

    def copy(
        self, what: str, dst: Array, dst_col: int, src: Array, src_col: int, cols: int
    ) -> None:
        """Copies columns of src [rows, S] to some of dst [rows, D]; `what` is named in errors."""
        if self.checksums is None:
            self.transport.copy(dst, dst_col, src, src_col, cols)
            return
        check = self.checksums.of(self, what, dst_col)
        ops.peer_checksum(src, check.sent, check.sums, self.target, src_col=src_col, cols=cols)
        self.transport.copy(dst, dst_col, src, src_col, cols)
        abort = self.checksums.state.aborted_on(self.target)
        ops.peer_check(dst, check.got, check.sums, abort, check.code, src_col=dst_col, cols=cols)


@dataclass
class Checksum:
    """The checksum of one transfer of a step.

    Attributes:
        sent, got: how many there have been, counted at both ends.
        sums: what both ends have computed, at the target.
        code: the word by which a device notes that they differed.
        text: which transfer.
    """

    sent: Array
    got: Array
    sums: Array
    code: int
    text: str


class Checksums:
    """The checksums of all transfers, and where devices note that one was wrong: the abort words of
    the state of a step.

    Attributes:
        state: of the step.
        held: by link, what travels, and where it goes.
    """

    def __init__(self, state: StepState) -> None:
        self.state = state
        self.held: dict[tuple[str, str, int], Checksum] = {}

    def of(self, link: Link, what: str, dst_col: int) -> Checksum:
        """The checksum of a transfer over a link to some column."""
        key = link.pair, what, dst_col
        if key not in self.held:
            self.held[key] = Checksum(
                link.source.zeros((1,), np.uint32),
                link.target.zeros((1,), np.uint32),
                link.target.zeros((2,), np.uint32),
                len(self.held) + 1,
                f"{link.pair}: a transfer ({what}) failed: what arrived is not what was sent "
                f"({link.transport.name})",
            )
        return self.held[key]

    def verify(self) -> None:
        """Raises LinkError, naming the devices and the array, where a checksum was wrong."""
        code = self.state.aborted
        if code:
            raise LinkError(list(self.held.values())[code - 1].text)


class Links:
    """The links between all devices of a net, each tested with a pattern when it is opened.

    Args:
        devices: two or more of a kind.
        state: of the net's steps, which the devices abort.

    The environment variable CONVNET_P2P says how: "auto" (directly; where the pattern does not
    arrive, through the host, with a `LinkWarning`), "off" (through the host), "force" (as "auto",
    but fails where that would go through the host). CONVNET_P2P_CHECK=1 switches checksums on.
    CONVNET_P2P_TIMEOUT is how many seconds a GPU may take for a step, 60 by default.

    Raises: LinkError for a pair of devices that cannot reach each other; ValueError for a variable
        that makes no sense.
    """

    def __init__(self, devices: Sequence[Backend], state: StepState | None = None) -> None:
        mode = check_choice("CONVNET_P2P", os.environ.get("CONVNET_P2P") or "auto", MODES)
        checked = os.environ.get("CONVNET_P2P_CHECK") or "0"
        check_choice("CONVNET_P2P_CHECK", checked, ("0", "1"))
        self.devices = tuple(devices)
        self.timeout = environment.seconds("CONVNET_P2P_TIMEOUT", 60)
        self.notes: list[str] = []
        self.checksums = Checksums(state or StepState(devices)) if checked == "1" else None
        self._links = {
            (source.index, target.index): Link(
                source, target, self._transport(source, target, mode), self.checksums
            )
            for source, target in itertools.permutations(devices, 2)
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

    def share_aborts(
        self, held: Callable[[Array, Backend], Array] = lambda array, _: array
    ) -> None:
        """Before an update: one device that has aborted aborts the others; runs on the devices.

        Args:
            held: gives what operations are called with for an array on a device; in a trace, its
                tensor.
        """
        if self.checksums is None:
            return
        state = self.checksums.state
        for device, other in itertools.permutations(self.devices, 2):
            device.wait_for(other)
            mine = held(state.aborted_on(device), device)
            ops.peer_abort(mine, held(state.aborted_on(other), other))

    def verify(self) -> None:
        """Waits until all devices are done, up to the timeout, and checks the checksums.

        Raises: LinkError naming the devices and what was on its way.
        """
        for device in self.devices:
            self.wait_for(device.record(), device)
        if self.checksums is not None:
            self.checksums.verify()

    def wait_for(self, event: Any, device: Backend) -> None:
        """Waits for an event of a device, up to the timeout. Raises: LinkError."""
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
        checked = ", with checksums" if self.checksums else ""
        return ", ".join(f"{link.pair} {link.transport.name}" for link in self) + checked
