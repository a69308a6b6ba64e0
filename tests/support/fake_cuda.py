"""A stand-in for CuPy's streams and graphs: while a stream is being captured, operations are noted
and not run, and nothing else may happen; launching the graph runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from convnet.backend import Backend

# Of the module's functions, those that give no work to a device.
PURE = ("_shape", "_workspace", "_count", "_output", "_description", "philox", "Recording")
PURE += ("_choice", "_choices", "tiles_of", "conv_kernel", "dense_kernel", "infer", "schema")


class Event:
    """What a stream had been given when it was recorded; on a driver that hangs never done.

    It belongs to the device that is current when it is made.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver, self.device = driver, driver.device

    def record(self, stream: Stream) -> None:
        assert stream.device == self.device, "cudaErrorInvalidResourceHandle: of another device"
        self.known, self.captured = set(stream.known), stream.capturing

    @property
    def done(self) -> bool:
        assert not self.captured, "the events of a graph cannot be asked"
        if not self.driver.hangs:
            self.driver.finish_copies(self.known)
        return not self.driver.hangs

    def synchronize(self) -> None:
        assert self.driver.calls is None, "the host waits in a capture"
        self.driver.waits += 1
        self.driver.finish_copies(self.known)


class Graph:
    """What was captured, as a list of calls; for streams of one device."""

    def __init__(self, driver: Driver, device: int, calls: list[Any]) -> None:
        self.driver, self.device, self.calls = driver, device, calls
        self.launches = 0

    def launch(self) -> None:
        assert self.driver.device == self.device, "launched on the stream of another device"
        self.launches += 1
        for function, args in self.calls:
            function(*args)


class Stream:
    """As far as convnet uses CuPy's. `known` is the work that what comes next may rely on."""

    def __init__(self, driver: Driver, device: int, ptr: int) -> None:
        self.driver, self.device, self.ptr = driver, device, ptr
        self.known: set[int] = set()
        self.capturing = False

    def __enter__(self) -> Stream:
        assert self.driver.device == self.device, "a stream of another device"
        self.driver.entered.append(self)
        self.driver.streams[self.device] = self
        return self

    def __exit__(self, *_: object) -> None:
        driver = self.driver
        driver.entered.pop()
        below = [stream for stream in driver.entered if stream.device == self.device]
        driver.streams[self.device] = below[-1] if below else driver.defaults[self.device]

    def work(self, arrays: Sequence[Any] = ()) -> int:
        """Takes an operation that works on these arrays; returns its number."""
        driver = self.driver
        if driver.calls is not None:
            assert self.capturing, "work beside the capture that goes on"
        driver.done += 1
        self.known.add(driver.done)
        for array in arrays:
            sent, used = driver.traffic.setdefault(id(driver.memory(array)), (set(), set()))
            assert sent <= self.known, "reads what may still be on its way"
            used.add(driver.done)
        return driver.done

    def copy_later(self, copy: Callable[[], None], to: Any = None) -> None:
        """Takes a copy that is done only when it must be; `to`: the array it is sent to."""
        driver, number = self.driver, self.work()
        if to is not None:
            sent, used = driver.traffic.setdefault(id(driver.memory(to)), (set(), set()))
            assert sent | used <= self.known, "writes over what may still be in use"
            sent.add(number)
        driver.copies[number] = copy

    def record(self) -> Event:
        event = Event(self.driver)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if self.driver.calls is not None:
            assert event.captured or not self.capturing, "an event from outside the capture"
            self.capturing = self.capturing or event.captured
        self.known |= event.known
        self.driver.finish_copies(event.known)

    def is_capturing(self) -> bool:
        return self.capturing

    def synchronize(self) -> None:
        assert self.driver.calls is None, "the host waits in a capture"
        self.driver.waits += 1
        self.driver.finish_copies(self.known)

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert self.driver.streams[self.device] is self
        self.driver.calls, self.capturing = [], True
        self.driver.before = self.driver.done

    def end_capture(self) -> Graph:
        driver = self.driver
        calls, driver.calls = driver.calls, None
        work = set(range(driver.before + 1, driver.done + 1))
        for stream in driver.made:
            stream.capturing = False
        if driver.broken:
            raise RuntimeError(driver.broken)
        if not work <= self.known:
            raise RuntimeError("cudaErrorStreamCaptureUnjoined")
        assert calls is not None
        driver.graphs.append(Graph(driver, self.device, calls))
        return driver.graphs[-1]


class Driver:
    """The state of the stand-in.

    Attributes:
        device: the current one; streams: of each device the current one; entered: by `with`.
        calls: of the capture that is going on, or None; graphs: made so far.
        broken: what captures fail with; hangs: whether what devices are given is never done.
        done: operations in all; owners: of arrays, by the id of their memory.
        copies: by number, those that have not been made yet; traffic: of memory, by its id, the
            numbers of the copies that were sent there and of the operations on it.
        waits: how often the host has waited for a device.
    """

    def __init__(self) -> None:
        self.device = 0
        self.defaults = {index: Stream(self, index, 0) for index in (0, 1)}
        self.streams = dict(self.defaults)
        self.made: list[Stream] = [*self.defaults.values()]
        self.entered: list[Stream] = []
        self.calls: list[Any] | None = None
        self.graphs: list[Graph] = []
        self.broken, self.hangs = "", False
        self.done = self.before = 0
        self.owners: dict[int, tuple[int, Any]] = {}
        self.copies: dict[int, Callable[[], None]] = {}
        self.traffic: dict[int, tuple[set[int], set[int]]] = {}
        self.waits = 0

    @property
    def idle(self) -> bool:
        """Whether the default streams are the current ones."""
        return self.streams == self.defaults and self.device == 0

    def stream(self, non_blocking: bool) -> Stream:
        assert non_blocking  # a stream that waits for the default one cannot be captured
        self.made.append(Stream(self, self.device, len(self.made)))
        return self.made[-1]

    def given(self, ptr: int, device: int) -> Stream:
        """The stream of an operation on a device, which must be a current one."""
        found = self.defaults[device] if ptr == 0 else self.made[ptr]
        assert self.streams[found.device] is found, "not on the current stream"
        return found

    @contextlib.contextmanager
    def at(self, index: int) -> Iterator[None]:
        """CuPy's Device(index), as a context."""
        before, self.device = self.device, index
        try:
            yield
        finally:
            self.device = before

    def own(self, array: Any) -> Any:
        """An array that was made on the current device."""
        self.owners[id(array.host)] = self.device, array.host
        return array

    def owner(self, array: Any) -> int:
        return self.owners.get(id(self.memory(array)), (0, None))[0]

    @staticmethod
    def memory(array: Any) -> np.ndarray:
        memory: np.ndarray = array.host
        while memory.base is not None:
            memory = memory.base
        return memory

    def finish_copies(self, known: set[int]) -> None:
        for number in sorted(known & self.copies.keys()):
            self.copies.pop(number)()

    def check_current(self, array: Any, what: str) -> None:
        """CuPy takes the stream of the current device, whichever the array is on."""
        assert self.owner(array) == self.device, f"{what}: the array is not on the current device"


class CapturedModule:
    """Operations that run, or are noted for the graph; launches go to the current stream."""

    def __init__(self, module: Any, driver: Driver, device: int) -> None:
        self.module, self.driver, self.device = module, driver, device

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name.endswith(PURE):
            return function

        def call(*args: Any) -> Any:
            *others, stream = args
            arrays = [arg for arg in args if hasattr(arg, "host")]
            self.driver.given(stream, self.device).work(arrays)
            if self.driver.calls is None:
                return function(*others, 0)
            self.driver.calls.append((function, (*others, 0)))
            return None

        return call


def patch_copies(monkeypatch: pytest.MonkeyPatch, driver: Driver, array: type) -> None:
    """Copies from and to pinned memory are done only when they must be."""
    get, set_now = array.get, array.set  # type: ignore[attr-defined]

    def pinned(self: Any, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        return np.full(shape, 77, dtype)

    def get_later(self: Any, out: Any = None, blocking: bool = True) -> np.ndarray:
        if blocking:
            return get(self, out)  # type: ignore[no-any-return]
        there = self.host.copy()
        driver.streams[driver.device].copy_later(lambda: np.copyto(out, there))
        return out  # type: ignore[no-any-return]

    def set_later(self: Any, host: np.ndarray, stream: Any = None) -> None:
        if stream is None:
            return set_now(self, host)  # type: ignore[no-any-return]
        return stream.copy_later(lambda: set_now(self, host), self)  # type: ignore[no-any-return]

    monkeypatch.setattr(Backend, "pinned", pinned)
    monkeypatch.setattr(array, "get", get_later)
    monkeypatch.setattr(array, "set", set_later)


def install(
    monkeypatch: pytest.MonkeyPatch, backends: Sequence[Any], xp: Any, array: type
) -> Driver:
    """Gives backends, whose arrays are of a type of the tests, streams that can be captured."""
    driver = Driver()
    for backend in backends:
        backend.module = CapturedModule(backend.module, driver, backend.index)
    monkeypatch.setattr(
        xp.cuda,
        "get_current_stream",
        lambda index=None: driver.streams[driver.device if index is None else index],
    )
    monkeypatch.setattr(xp.cuda, "Stream", driver.stream, raising=False)
    monkeypatch.setattr(xp.cuda, "Event", lambda **_: Event(driver), raising=False)
    monkeypatch.setattr(xp.cuda, "Device", driver.at)

    def guard(owner: Any, name: str, checks: Sequence[Any]) -> None:
        plain = getattr(owner, name)

        def method(*args: Any, **options: Any) -> Any:
            for check in checks:
                check(name, *args, **options) if check is waits else check(name, *args)
            result = plain(*args, **options)
            fresh = isinstance(result, array) and result.host.base is None
            return driver.own(result) if fresh else result

        monkeypatch.setattr(owner, name, method)

    def no_capture(name: str, *_: Any) -> None:
        assert driver.calls is None, f"{name} in a capture"

    def on_current(name: str, *args: Any) -> None:
        for one in args:
            if isinstance(one, array):
                driver.check_current(one, name)

    def uses(_: str, *args: Any) -> None:
        driver.streams[driver.device].work([one for one in args if isinstance(one, array)])

    def waits(_: str, one: Any, *args: Any, blocking: bool = True, **options: Any) -> None:
        if blocking:
            driver.waits += 1
            driver.finish_copies(driver.streams[driver.device].known)

    patch_copies(monkeypatch, driver, array)
    for name in ("fill", "__setitem__", "copy", "astype"):
        guard(array, name, [no_capture, on_current, uses])
    for name in ("get", "__float__", "__bool__"):
        guard(array, name, [no_capture, on_current, uses, waits])
    guard(array, "set", [no_capture, on_current])
    for name in ("__eq__", "__add__", "__int__", "sum", "all"):
        guard(array, name, [on_current])
    guard(array, "__getitem__", [])
    for name in ("isfinite", "square", "sum"):
        guard(xp, name, [on_current])
    for name in ("empty", "zeros"):
        guard(xp, name, [no_capture])
    for name in ("asarray", "ascontiguousarray"):
        guard(xp, name, [])
    return driver
