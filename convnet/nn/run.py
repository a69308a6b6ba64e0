"""Running a program: its tensors get memory, its calls get pointers.

The first run checks every call. On a host it is noted with its pointers as it is made
(bindings/recording.h), and later runs make the same calls from C++. On CUDA the second run captures
graphs, which later runs launch. Calls that are Python functions stand between such segments.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from convnet import backend as backends
from convnet.backend import Array
from convnet.nn.cuda_graph import Streams
from convnet.nn.plan import Placement, plan
from convnet.nn.program import Program
from convnet.nn.trace import WAIT, Call, PythonOp, Tensor, Trace

Segment = Callable[[], None]


class Runnable:
    """A program with memory to run in.

    Args:
        program, trace: planned here, for the devices of the trace.
        blocks: for each device, memory for temporaries (uint8), at least `sizes` bytes when the
            program runs. The list is shared: who makes larger blocks puts them into it, and calls
            `unbind`.

    Attributes:
        placements: of the temporaries, for each device.
    """

    def __init__(self, program: Program, trace: Trace, blocks: Sequence[Array]) -> None:
        self.program, self.trace, self.blocks = program, trace, blocks
        self.placements: list[Placement] = [plan(program, i) for i in range(len(trace.devices))]
        self._arrays: dict[Tensor, Array] = {}  # of inputs and outputs
        self._given: dict[Tensor, Array] = {}  # inputs that are the caller's own arrays
        self._segments: list[Segment] = []
        self._checked = False  # every call has been made with these pointers

    @property
    def sizes(self) -> list[int]:
        """Bytes of each device's block."""
        return [place.size for place in self.placements]

    def array(self, tensor: Tensor) -> Array:
        """The memory of a tensor."""
        root = tensor.root
        if root.kind in ("state", "constant"):
            found = root.array
        elif root in self._given:
            found = self._given[root]
        elif root.kind == "input" or root in self.program.outputs:
            if root not in self._arrays:
                self._arrays[root] = root.traced_on.real.empty(root.shape, root.dtype)
            found = self._arrays[root]
        else:
            number = self.trace.devices.index(root.traced_on)
            start = self.placements[number].offset[root]
            found = self.blocks[number][start : start + root.nbytes].view(root.dtype)
        return found if found.shape == tensor.shape else found.reshape(tensor.shape)

    def unbind(self) -> None:
        """Forgets the pointers, because memory has moved."""
        self._segments, self._checked = [], False

    def fill(self, inputs: Mapping[Tensor, Array]) -> None:
        """Takes the inputs of the next run. They are only read: one that comes in the same array
        each time where it lies, others are copied."""
        for tensor, values in inputs.items():
            if self._given.get(tensor) is values:
                continue
            if tensor not in self._given and tensor not in self._arrays:
                self._given[tensor] = values
                continue
            if self._given.pop(tensor, None) is not None:
                self.unbind()
            self.array(tensor)[...] = values

    def run(self, streams: Streams | None = None) -> None:
        """One run.

        Args:
            streams: on CUDA, those to capture graphs from; without them every call is made anew.

        Raises: GraphError where a capture fails; nothing has run then.
        """
        if self._segments:
            self._repeat(streams)
        elif self._on_host:
            self._record()
        elif streams is None or not self._checked:
            for number, call in self._calls():
                _named(number, call, self._bound(call))
            self._checked = True
        else:
            self._capture(streams)

    def timed(self) -> list[tuple[Call, float]]:
        """Runs once more, call by call; how long each took, in seconds."""
        times = []
        for _, call in self._calls():
            make, device = self._bound(call), call.device.real
            device.synchronize()
            start = time.perf_counter()
            make()
            device.synchronize()
            times.append((call, time.perf_counter() - start))
        return times

    # ---- segments -------------------------------------------------------------------------------

    def _repeat(self, streams: Streams | None) -> None:
        if streams is None:
            for segment in self._segments:
                segment()
            return
        with streams.current():
            for segment in self._segments:
                segment()

    def _record(self) -> None:
        """Makes the calls, and records them for later runs."""
        segments: list[Segment] = []
        for python, calls in _by_kind(self._calls()):
            if python:
                for number, call in calls:
                    segments.append(self._bound(call))
                    _named(number, call, segments[-1])
                continue
            recording = self.trace.devices[0].real.module.Recording()
            recording.begin()
            try:
                for number, call in calls:
                    _named(number, call, self._bound(call))
            finally:
                recording.end()
            segments.append(recording.run)
        self._segments = segments

    def _capture(self, streams: Streams) -> None:
        """Captures what lies between calls of Python, and runs all of it."""
        segments: list[Segment] = []
        with streams.current():
            for python, calls in _by_kind(self._calls()):
                bound = [self._bound(call) for _, call in calls]
                new = bound if python else [streams.capture(functools.partial(_all, bound))]
                _all(new)
                segments += new
        self._segments = segments

    # ---- calls ----------------------------------------------------------------------------------

    def _calls(self) -> list[tuple[int, Call]]:
        """The calls to make, with their numbers; without waits on a host, which has one stream."""
        calls = enumerate(self.program.calls)
        return [pair for pair in calls if not (self._on_host and pair[1].op is WAIT)]

    @property
    def _on_host(self) -> bool:
        return self.trace.devices[0].real.name != "cuda"

    def _bound(self, call: Call) -> Segment:
        """A call with its arrays, on the streams that are current now."""
        device = call.device.real
        if call.op is WAIT:
            return lambda: device.wait_for(call["other"].real)
        args = {name: self._value(value) for name, value in call.args.items()}
        if isinstance(call.op, PythonOp):
            run = call.op.run
            return lambda: run(**args)
        args["stream"] = device.stream()
        function = getattr(device.module, call.op.name)

        def make() -> None:
            with device.active(), backends.use(device):
                function(*args.values())

        return make

    def _value(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.array(value)
        if isinstance(value, list):
            return [self._value(each) for each in value]
        return value


def _by_kind(calls: Sequence[tuple[int, Call]]) -> Any:
    """The calls in runs of Python functions and runs of operations."""
    return groupby(calls, lambda pair: isinstance(pair[1].op, PythonOp))


def _all(segments: Sequence[Segment]) -> None:
    for segment in segments:
        segment()


def _named(number: int, call: Call, run: Segment) -> None:
    """Makes a call; an error gets the number and the nodes of the call."""
    try:
        run()
    except ValueError as error:
        where = f" of {', '.join(call.nodes)}" if call.nodes else ""
        raise ValueError(f"call {number}, {call.op.name}{where}: {error}") from None
