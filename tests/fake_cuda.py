"""A stand-in for CuPy's streams and graphs: while a stream is being captured, operations are noted
and not run, and nothing else may happen; launching the graph runs them."""

from __future__ import annotations

from typing import Any

import pytest

# Of the module's functions, those that give no work to a device.
PURE = ("_shape", "_workspace", "_count", "_output", "_description", "philox", "Recording")


class Event:
    pass


class Graph:
    """What was captured, as a list of calls."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.launches = 0

    def launch(self) -> None:
        self.launches += 1
        for function, args in self.calls:
            function(*args)


class Stream:
    """As far as convnet uses CuPy's; `Driver.log` notes the order of what streams do."""

    def __init__(self, driver: Driver, ptr: int) -> None:
        self.driver, self.ptr = driver, ptr

    def use(self) -> None:
        self.driver.current = self

    def record(self) -> Event:
        return Event()

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)

    def synchronize(self) -> None:
        assert self.driver.calls is None, "the host waits in a capture"

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert self.driver.current is self
        self.driver.calls = []

    def end_capture(self) -> Graph:
        calls, self.driver.calls = self.driver.calls, None
        if self.driver.broken:
            raise RuntimeError(self.driver.broken)
        assert calls is not None
        self.driver.graphs.append(Graph(calls))
        return self.driver.graphs[-1]


class Driver:
    """The state of the stand-in.

    Attributes:
        current: the stream; calls: of the capture that is going on, or None.
        graphs: made so far; broken: what captures fail with.
    """

    def __init__(self) -> None:
        self.default = self.current = Stream(self, 0)
        self.calls: list[Any] | None = None
        self.graphs: list[Graph] = []
        self.broken = ""
        self.streams = 0

    def stream(self, non_blocking: bool) -> Stream:
        assert non_blocking  # a stream that waits for the default one cannot be captured
        self.streams += 1
        return Stream(self, self.streams)


class CapturedModule:
    """Operations that run, or are noted for the graph; launches go to the current stream."""

    def __init__(self, module: Any, driver: Driver) -> None:
        self.module, self.driver = module, driver

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name.endswith(PURE):
            return function

        def call(*args: Any) -> Any:
            assert args[-1] == self.driver.current.ptr, f"{name} is not on the current stream"
            if self.driver.calls is None:
                return function(*args[:-1], 0)
            self.driver.calls.append((function, (*args[:-1], 0)))
            return None

        return call


def install(monkeypatch: pytest.MonkeyPatch, backend: Any, array: type) -> Driver:
    """Gives a backend, whose arrays are of a type of the tests, streams that can be captured."""
    driver = Driver()
    xp = backend.xp
    backend.module = CapturedModule(backend.module, driver)
    monkeypatch.setattr(xp.cuda, "get_current_stream", lambda index: driver.current)
    monkeypatch.setattr(xp.cuda, "Stream", driver.stream, raising=False)

    def refuse_in_captures(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def method(*args: Any, **options: Any) -> Any:
            assert driver.calls is None, f"{name} in a capture"
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, method)

    for name in ("fill", "get", "set", "__setitem__", "__float__", "__bool__", "copy", "astype"):
        refuse_in_captures(array, name)
    for name in ("empty", "zeros"):
        refuse_in_captures(xp, name)
    return driver
