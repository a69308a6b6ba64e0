"""CUDA graphs: segments of a program, captured from the streams of its devices, launched at once.

What is captured runs on streams of its own, since the default ones cannot be captured, in the order
of what comes before and after on those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from convnet.backend import Backend
from convnet.common.exit_codes import FAILED


class GraphError(RuntimeError):
    """A program that must be captured cannot be; the message says why."""

    exit_code = FAILED


class Streams:
    """A stream on each device of a net, for its graphs.

    Args:
        devices: the first is where graphs are launched.
    """

    def __init__(self, devices: Sequence[Backend]) -> None:
        self.devices = list(devices)
        self._streams = [device.new_stream() for device in devices]

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Within the block these are the devices' current streams."""
        with contextlib.ExitStack() as stack:
            for device, stream in zip(self.devices, self._streams, strict=True):
                stream.wait_event(device.record())
                with device.active():
                    stack.enter_context(stream)  # not use(): a `with` inside would end that
            yield
        for device, stream in zip(self.devices, self._streams, strict=True):
            device.wait_event(device.record(stream))

    def capture(self, make: Callable[[], None]) -> Callable[[], None]:
        """Captures what `make` enqueues on these streams, which does not run then, as a graph.

        Raises: GraphError with the driver's reason.
        """
        first, *rest = self.devices
        origin, *others = self._streams
        try:
            origin.begin_capture()
            try:
                begun = first.record(origin)
                for stream in others:
                    stream.wait_event(begun)
                make()
                for device, stream in zip(rest, others, strict=True):
                    origin.wait_event(device.record(stream))
            finally:
                graph = origin.end_capture()
        except RuntimeError as error:  # CuPy's errors of the driver are such
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise GraphError(f"a program could not be captured: {reason}") from error
        return lambda: self._launch(graph)

    def _launch(self, graph: Any) -> None:
        first, *rest = self.devices
        for device in rest:
            first.wait_for(device)
        with first.active():
            graph.launch()
        for device in rest:
            device.wait_for(first)
