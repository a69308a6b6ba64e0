"""The training step, captured once and then run again without Python's part in it.

A step of a net is always the same operations on the same arrays; what changes is the batch, which
is written into the array that the first layer reads, and a few numbers, which the operations read
in memory (`convnet.stepstate`). So after a first step with a batch of some shape, which makes all
arrays, the second one is captured, and those that follow run what was captured:

    on CUDA      a CUDA graph, taken from the streams of the step by CuPy: one launch a step
    on the host  the list of the operations with their pointers, run without going through the
                 layers (`Recording` in bindings/recording.h)

Both compute, to the bit, what a plain step computes. Where a step cannot be captured, steps are
plain, and `StepGraph.problem` says why. On CUDA this has not run yet: it is tested with a stand-in
for CuPy.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnet import changes
from convnet.backend import Array, Backend
from convnet.exit_codes import FAILED
from convnet.fusedupdate import is_usual
from convnet.sgd import SGD

if TYPE_CHECKING:
    from convnet.net import Net

MODES = ("auto", "off", "force")
_MOST = 4  # shapes of batches whose steps are kept


class StepGraphError(RuntimeError):
    """A step that must be captured cannot be; the message says why."""

    exit_code = FAILED


class StepGraphWarning(UserWarning):
    """Steps could not be captured and are plain; the message says why."""


@dataclass
class Feed:
    """An array that a captured step reads, x or labels: the caller's own, or one to copy it to."""

    array: Array
    own: bool

    @classmethod
    def of(cls, given: Array, before: Array, device: Backend) -> Feed:
        """The given array itself if it came in the step before too, and so will again."""
        if given is before:
            return cls(given, True)
        feed = cls(device.empty(given.shape, given.dtype), False)
        feed.take(given)
        return feed

    def fits(self, given: Array) -> bool:
        return not self.own or self.array is given

    def take(self, given: Array) -> None:
        """Copies what is given, where it is another array."""
        if self.array is not given:
            self.array[...] = given


@dataclass
class Captured:
    """A step that can run again.

    Attributes:
        changes: of `convnet.changes` when it was captured.
        sgd, params: which update it makes, of which parameters.
        feeds: the arrays that it reads the batch from.
        recording: of the operations, which also keeps their arrays; graph: on CUDA, CuPy's.
        passed: what the passes of the net leave behind (`Passes.left`).
    """

    changes: int
    sgd: SGD
    params: list[Any]
    feeds: tuple[Feed, Feed]
    recording: Any
    graph: Any
    passed: tuple[Any, ...]


class StepGraph:
    """Runs the training steps of a net, and captures them where it can.

    Args:
        net: whose steps.
        mode: "auto"; "off", all steps are plain; "force", a step that cannot be captured is an
            error.

    Attributes:
        warn: told, once, why steps are plain after all; it gives a `StepGraphWarning`.

    Raises: ValueError for another mode.
    """

    def __init__(self, net: Net, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f"step.graph: expected one of {', '.join(MODES)}; got {mode!r}")
        self.net, self.mode = net, mode
        self.warn: Callable[[str], None] = _warn
        self._failed = ""  # why a capture failed
        self._captured: dict[Any, Captured] = {}
        self._seen: dict[Any, tuple[int, Array, Array]] = {}  # when a plain step ended; its batch
        self._streams: list[Any] | None = None

    @property
    def problem(self) -> str | None:
        """Why steps are plain, or None where they are captured."""
        if self.mode == "off":
            return "step.graph is off"
        if self._failed:
            return self._failed
        if self.net.gradient_ready is not None:
            return "gradients are summed over processes while a step runs"
        partition = self.net.partition
        if partition is not None and not partition.links.checked:
            return "the host has a part in transfers between the devices"
        for param in self.net.params:
            if param.rates.lr is not None or param.rates.momentum is not None:
                return f"{param.name} has a learning rate or a momentum of its own"
        for node in self.net.nodes:
            if node.layer.works_on_arrays:
                return f"node {node.name!r} works on arrays itself, beside the operations"
        if self.net.backend.name == "cuda":
            return None
        for node in self.net.nodes:
            if type(node.layer).__module__.partition(".")[0] != "convnet":
                return f"node {node.name!r} is a layer of your own, which may do more than call ops"
        return None

    @staticmethod
    def _problem_of(sgd: SGD) -> str | None:
        if is_usual(sgd):
            return None
        return "the optimiser has an update rule of its own, which may do more than call ops"

    def describe(self) -> str:
        """One line: how steps run."""
        if self.problem is not None:
            return f"plain launches: {self.problem}"
        cuda = self.net.backend.name == "cuda"
        return f"captured, {'one CUDA graph' if cuda else 'a list of calls'} for each batch size"

    def run(self, x: Array, labels: Array, sgd: SGD) -> None:
        """One step: forward, backward, update; the state of the step has been written.

        Args:
            x, labels: checked, on the net's device, which is the current one.

        Raises: StepGraphError where the mode is "force" and the step cannot be captured; LinkError
            where a link between devices has failed: then nothing has been updated.
        """
        if self.net.partition is not None:
            self.net.partition.links.check()
        problem = self.problem or self._problem_of(sgd)
        if problem is not None:
            if self.mode == "force":
                raise StepGraphError(f"step.graph=force: {problem}")
            return self._plain(x, labels, sgd)
        key = (x.shape, self.net.first_case, self.net.backend.threads)
        held = self._captured.get(key)
        batch = x, labels
        if held is not None and self._fits(held, batch, sgd):
            return self._again(held, batch)
        self._captured.pop(key, None)
        count, *before = self._seen.get(key, (-1, None, None))
        with self._on_streams():
            if count == changes.count():
                self._capture(key, batch, before, sgd)
            else:
                self._plain(x, labels, sgd)
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[key] = changes.count(), x, labels
        return None

    def _plain(self, x: Array, labels: Array, sgd: SGD) -> None:
        self.net.plain_step(x, labels, sgd)

    def _fits(self, held: Captured, batch: Sequence[Array], sgd: SGD) -> bool:
        """Whether a captured step is still this one."""
        return (
            held.changes == changes.count()
            and held.sgd is sgd
            and held.params == sgd.params
            and all(feed.fits(given) for feed, given in zip(held.feeds, batch, strict=True))
        )

    def _again(self, held: Captured, batch: Sequence[Array]) -> None:
        """Runs a captured step with another batch."""
        for feed, given in zip(held.feeds, batch, strict=True):
            feed.take(given)
        self.net.left = held.passed
        if held.graph is None:
            held.recording.run()
            return
        first, *others = self.net.backends
        for device in others:
            first.wait_for(device)
        held.graph.launch()
        for device in others:
            device.wait_for(first)

    # ---- capturing ------------------------------------------------------------------------------

    def _capture(self, key: Any, batch: Sequence[Array], before: Sequence[Array], sgd: SGD) -> None:
        """One step, captured. `before`: the arrays in which the batch of the last step came."""
        device = self.net.backend
        x, labels = (
            Feed.of(given, last, device) for given, last in zip(batch, before, strict=True)
        )
        recording = device.module.Recording()
        graph, problem = None, ""
        if device.name == "cuda":
            graph, problem = self._capture_cuda(recording, x.array, labels.array, sgd)
        else:
            with _noted(recording):
                self._plain(x.array, labels.array, sgd)
            if recording.missing:
                problem = f"{recording.missing} cannot be recorded"
        if problem:
            return self._give_up(problem)
        if len(self._captured) >= _MOST:
            self._captured.clear()
        self._captured[key] = Captured(
            changes=changes.count(),
            sgd=sgd,
            params=list(sgd.params),
            feeds=(x, labels),
            recording=recording,
            graph=graph,
            passed=self.net.left,
        )
        return None

    def _give_up(self, problem: str) -> None:
        self._failed = problem
        self._captured.clear()
        if self.mode == "force":
            raise StepGraphError(f"step.graph=force: {problem}")
        self.warn(f"steps are plain launches: {problem}")

    def _capture_cuda(self, recording: Any, x: Array, labels: Array, sgd: SGD) -> tuple[Any, str]:
        """The step as a CUDA graph, which has run once; or why there is none, and then the step
        has been a plain one."""
        assert self._streams is not None
        first, *rest = self.net.backends
        origin, *others = self._streams
        graph, problem = None, ""
        try:
            origin.begin_capture()
            try:
                begun = first.record(origin)
                for stream in others:
                    stream.wait_event(begun)
                with _noted(recording):
                    self._plain(x, labels, sgd)
                for device, stream in zip(rest, others, strict=True):
                    origin.wait_event(device.record(stream))
            finally:
                graph = origin.end_capture()
            graph.launch()
        except RuntimeError as error:  # CuPy's errors of the driver are such
            problem = str(error).strip().partition("\n")[0] or type(error).__name__
        if problem:
            self._plain(x, labels, sgd)
            return None, f"the step could not be captured: {problem}"
        return graph, ""

    @contextlib.contextmanager
    def _on_streams(self) -> Iterator[None]:
        """On CUDA, a step that is captured, and the plain one before it, run on streams of their
        own, since the default ones cannot be captured; in the order of what comes before and after
        on those. Nothing on the host."""
        devices: list[Backend] = self.net.backends
        if devices[0].name != "cuda":
            yield
            return
        if self._streams is None:
            self._streams = [device.new_stream() for device in devices]
        with contextlib.ExitStack() as stack:
            for device, stream in zip(devices, self._streams, strict=True):
                stream.wait_event(device.record())
                with device.active():
                    stack.enter_context(stream)  # not use(): a `with` inside would end that
            yield
        for device, stream in zip(devices, self._streams, strict=True):
            device.current_stream().wait_event(device.record(stream))


def _warn(text: str) -> None:
    warnings.warn(text, StepGraphWarning, stacklevel=7)


@contextlib.contextmanager
def _noted(recording: Any) -> Iterator[None]:
    recording.begin()
    try:
        yield
    finally:
        recording.end()
