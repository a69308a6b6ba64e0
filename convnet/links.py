"""Links: how numbers get from one device to another, and how it is noticed when they do not.

A link goes one way between two devices. What it carries it carries by a transport:

    peer          the kernel of `ops.peer_copy`, run on the source, stores into the target's memory
    host-staged   to a slot in the memory of the host (pinned for GPUs), and from there; two slots
                  in turn
    loopback      a plain copy, between logical devices in one memory

A transfer is begun with `start` and waited for with `finish`; in between, both devices compute. On
GPUs it runs on a stream of its own, ordered with the others by events, so that nothing waits on the
host and a step can be captured in a graph; between logical CPU devices it runs in a thread.

With every block goes a stamp: its number and the sum of its words (modulo 2^32) as the source had
them. The target counts too and adds up what it got. By the peer transport the devices do this
themselves (`ops.peer_stamp`, `ops.peer_check`): a block that did not arrive halts the step, which
then changes no weight (`convnet.stepstate`), and the host finds out when the step is over. By the
others the host compares, and waits for each block at most `timeout` seconds. A write that was lost,
a signal that does not come in time and a source that fails all end in a `LinkError` that names the
two devices; a link that failed once carries nothing more, so that a late write cannot be taken for
a good one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from convnet import ops
from convnet.backend import Array, Backend
from convnet.changes import changed
from convnet.exit_codes import FAILED
from convnet.stamps import Flags, Lane, Transfer, word_sum
from convnet.stepstate import StepState
from convnet.transports import HostStaged, Loopback, Peer, Transport, transport_works

MODES = ("auto", "off", "force")  # of CONVNET_P2P


class LinkError(RuntimeError):
    """A transfer between two devices failed; the message names them."""

    exit_code = FAILED


class LinkWarning(UserWarning):
    """Two devices cannot reach each other as they should; what is done instead."""


# ---- links --------------------------------------------------------------------------------------


# A test's fault: called with each transfer before it is sent, it may raise, or return "drop" (the
# data are not written) or "mute" (they are, but no signal follows).
Fault = Callable[[Transfer], str | None]


class Link:
    """One way between two devices.

    Args:
        source, target: the devices.
        transport: by which it goes.
        timeout: seconds to wait for a signal.
        flags: shared by the links of a net.

    Attributes:
        checked: whether the devices check what arrives, and not the host.
        bytes_sent: so far.
        fault: for tests, see `Fault`.
    """

    def __init__(
        self,
        source: Backend,
        target: Backend,
        transport: Transport,
        timeout: float,
        flags: Flags | None = None,
    ) -> None:
        self.source, self.target, self.transport = source, target, transport
        self.timeout = timeout
        self.flags = flags or Flags(StepState([source, target]))
        self.checked = transport.name == "peer" and source.name != "cpu"
        self.bytes_sent = 0
        self.fault: Fault | None = None
        self._number = 0
        self._broken = ""
        self._lanes: list[Lane] = []  # that no transfer uses
        self._unverified: list[tuple[Transfer, Any]] = []  # with the sum of what arrived, on CUDA
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._side: Any = None

    @property
    def pair(self) -> str:
        return f"{self.source.device} -> {self.target.device}"

    def start(
        self, what: str, dst: Array, dst_col: int, src: Array, src_col: int, cols: int
    ) -> Transfer:
        """Begins to copy columns of src [rows, S] to columns of dst [rows, D].

        Neither may be written before `finish`. `what` is named in errors.
        """
        self.check()
        self._number += 1
        self.bytes_sent += 4 * src.shape[0] * cols
        transfer = Transfer(self._number, what, dst, dst_col, cols)
        if self.checked:
            transfer.lane = self._lanes.pop() if self._lanes else self._lane()

        def send() -> None:
            self._send(transfer, dst, dst_col, src, src_col, cols)

        if self.source.name == "cuda":
            self._start_cuda(transfer, send)
        elif self.transport.threaded:
            self._worker().put(send)
        else:
            send()
        if transfer.error is not None and not self.transport.threaded:
            self._fail(transfer, f"the source failed: {transfer.error}", transfer.error)
        return transfer

    def _lane(self) -> Lane:
        changed()
        return Lane(self.source, self.target)

    def check(self) -> None:
        """Raises: LinkError where the link has failed before."""
        if self._broken:
            raise LinkError(self._broken)

    def _send(
        self, transfer: Transfer, dst: Array, dst_col: int, src: Array, src_col: int, cols: int
    ) -> None:
        try:
            fault = self.fault(transfer) if self.fault is not None else None
            if transfer.lane is None:
                stamp = transfer.number, word_sum(self.source, src[:, src_col : src_col + cols])
            elif fault != "mute":
                ends = transfer.lane.sent, transfer.lane.stamp, self.target
                ops.peer_stamp(src, *ends, src_col=src_col, cols=cols)
            if fault != "drop":
                self.transport.copy(dst, dst_col, src, src_col, cols)
            if transfer.lane is None:
                transfer.stamp = stamp
        except BaseException as error:
            transfer.error = error
        else:
            if fault == "mute":
                return
        transfer.signal.set()

    def finish(self, transfer: Transfer) -> None:
        """Waits until the block is there, and checks it.

        Where the devices check, only the target's stream waits, and `verify` tells.

        Raises: LinkError naming the devices.
        """
        if self.source.name == "cuda":
            return self._finish_cuda(transfer)
        if transfer.lane is not None:
            return self._check_on_device(transfer, transfer.lane)
        if not transfer.signal.wait(self.timeout):
            self._fail(transfer, f"no signal within {self.timeout:g} s")
        if transfer.error is not None:
            self._fail(transfer, f"the source failed: {transfer.error}", transfer.error)
        self._compare(transfer, word_sum(self.target, transfer.block))
        return None

    def _compare(self, transfer: Transfer, found: Any) -> None:
        with self.source.active():
            expected = (transfer.number, int(transfer.stamp[1])) if transfer.stamp else None
        with self.target.active():
            sum_found = int(found)
        if expected != (transfer.number, sum_found):
            self._fail(transfer, "what arrived is not what was sent")

    def _check_on_device(self, transfer: Transfer, lane: Lane) -> None:
        """Lets the target compare what arrived with its stamp."""
        first, cols = transfer.columns
        halt = self.flags.state.halt_on(self.target)
        code = self.flags.code(self, transfer.what)
        with self.target.active():
            ops.peer_check(transfer.dst, lane.got, lane.stamp, halt, code, src_col=first, cols=cols)
        self._lanes.append(lane)

    def _fail(self, transfer: Transfer, what: str, cause: BaseException | None = None) -> NoReturn:
        self.fail(f"transfer {transfer.number} ({transfer.what})", what, cause)

    def fail(self, transfer: str, what: str, cause: BaseException | None = None) -> NoReturn:
        """Gives the link up. Raises: LinkError."""
        self._broken = f"{self.pair}: {transfer} failed: {what} ({self.transport.name})"
        raise LinkError(self._broken) from cause

    def verify(self) -> None:
        """Checks what has arrived since the last call. The host waits for it here where devices
        check, and on CUDA; else `finish` has done it.

        Raises: LinkError naming the devices.
        """
        self.wait_for_signals(self.timeout)
        self.flags.verify()

    def wait_for_signals(self, timeout: float) -> None:
        """On CUDA: what `verify` waits for. Raises: LinkError."""
        waiting, self._unverified = self._unverified, []
        end = time.monotonic() + timeout
        for transfer, found in waiting:
            while not transfer.event.done:
                if time.monotonic() > end:
                    self._fail(transfer, f"no signal within {self.timeout:g} s")
                time.sleep(1e-5)
            if transfer.lane is None:
                self._compare(transfer, found)

    def _worker(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        """The queue of the thread that sends; the thread ends with this object."""
        if self._jobs is None:
            jobs = self._jobs = queue.SimpleQueue()
            thread = threading.Thread(
                target=_work, args=(jobs,), name=f"convnet {self.pair}", daemon=True
            )
            thread.start()
            weakref.finalize(self, jobs.put, None)
        return self._jobs

    # ---- CUDA: not yet run on two GPUs ----------------------------------------------------------

    def _start_cuda(self, transfer: Transfer, send: Callable[[], None]) -> None:
        """Sends on a stream of the source, after what both devices have been given so far: the
        source then has computed the block, and the target has read what was there before."""
        if self._side is None:
            self._side = self.source.new_stream()
        self._side.wait_event(self.source.record())
        self._side.wait_event(self.target.record())
        with self.source.active(), self._side:
            send()
            transfer.event = self.source.record()

    def _finish_cuda(self, transfer: Transfer) -> None:
        with self.target.active():
            stream = self.target.current_stream()
            stream.wait_event(transfer.event)
            if transfer.lane is not None:
                self._check_on_device(transfer, transfer.lane)
            if not stream.is_capturing():  # the events of a graph cannot be asked
                found = word_sum(self.target, transfer.block) if transfer.lane is None else None
                self._unverified.append((transfer, found))


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it holds arrays


class Links:
    """The links between all devices of a net, each tested with a pattern when they are opened.

    Args:
        devices: two or more of a kind.
        state: of the net's steps, which the devices halt; one of their own by default.

    The environment variable CONVNET_P2P says how: "auto" (peer access, or a plain copy between
    logical devices; where the pattern does not arrive, through the host, with a `LinkWarning`),
    "off" (through the host), "force" (as "auto", but fails where that would go through the host).
    CONVNET_P2P_TIMEOUT is how many seconds to wait for a signal, 60 by default.

    Raises: LinkError for a pair of devices that cannot reach each other; ValueError for a variable
        that makes no sense.
    """

    def __init__(self, devices: Sequence[Backend], state: StepState | None = None) -> None:
        mode = os.environ.get("CONVNET_P2P") or "auto"
        if mode not in MODES:
            raise ValueError(f"CONVNET_P2P: expected one of {', '.join(MODES)}; got {mode!r}")
        timeout = _timeout()
        self.devices = tuple(devices)
        self.timeout = timeout
        self.notes: list[str] = []
        self.flags = Flags(state or StepState(devices))
        self._links = {
            (source.index, target.index): Link(
                source, target, self._transport(source, target, mode), timeout, self.flags
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
            direct = Loopback(source, target) if source.name == "cpu" else Peer(source, target)
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

    @property
    def checked(self) -> bool:
        """Whether the devices check all that arrives, so that the host has no part in a step."""
        return all(link.checked for link in self)

    def check(self) -> None:
        """Raises: LinkError where a link has failed before."""
        for link in self:
            link.check()

    def before_update(self) -> None:
        """What one device has found stops the others too, on the devices; where the host checks
        what arrives, it does so here. Raises: LinkError."""
        if not self.checked:
            return self.verify()
        state = self.flags.state
        for device in self.devices:
            for other in self.devices:
                if other is not device:
                    device.wait_for(other)
                    with device.active():
                        ops.peer_halt(state.halt_on(device), state.halt_on(other))
        return None

    def verify(self) -> None:
        """Checks all that arrived; see `Link.verify`."""
        if self.devices[0].name == "cuda":
            self._wait()
        for link in self:
            link.verify()

    def _wait(self) -> None:
        """Waits until all devices are done, but not for ever."""
        for device in self.devices:
            self.wait_for(device.record(), device)

    def wait_for(self, event: Any, device: Backend) -> None:
        """Waits for an event of a device, but not for ever. Raises: LinkError."""
        end = time.monotonic() + self.timeout
        while not event.done:
            if time.monotonic() > end:
                for link in self:  # names the transfer, where that is known
                    link.wait_for_signals(0.0)
                pair = next(iter(self))
                pair.fail("a step", f"{device.device} did not end it in {self.timeout:g} s")
            time.sleep(1e-5)

    def describe(self) -> str:
        """One line: each pair and how it is linked."""
        return ", ".join(f"{link.pair} {link.transport.name}" for link in self)


def _timeout() -> float:
    text = os.environ.get("CONVNET_P2P_TIMEOUT") or "60"
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < 1e6:
            return float(text)
    raise ValueError(f"CONVNET_P2P_TIMEOUT: expected a number of seconds, got {text!r}")
