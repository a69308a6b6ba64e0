"""Streams, events and host functions: what runs before what, and what nobody may count on.

Each program makes an order that CUDA promises, or forgets to. Where it is promised, every order of
the scheduler gives the same; where not, the default order shows it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from cuda_driver import (
    Event,
    Memory,
    Module,
    call,
    error_of,
    handle,
    launch,
    run_program,
    stream,
    synchronize,
    use_device,
)

ORDERS = ["late", "eager", "shuffle:1", "shuffle:2", "shuffle:3"]
BLOCKING = 0
HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def two_streams(waits: bool, flags: int = 1, legacy: bool = False) -> list[int]:
    """One stream sets x to 1, the other copies it to y. Returns y."""
    use_device()
    kernels = Module()
    x, y = Memory(7), Memory(8)
    writer, reader = stream(flags), None if legacy else stream(flags)
    launch(kernels.function("set"), x, 1, stream=writer)
    if waits:
        Event().record(writer).hold(reader)
    launch(kernels.function("move"), y, x, stream=reader)
    synchronize(reader)
    synchronize(writer)
    return [y.value]


@pytest.mark.parametrize("order", ORDERS)
def test_an_event_orders_two_streams(order: str) -> None:
    assert run_program(two_streams, True, streams=order).value == [1]


def test_a_missing_event_is_seen() -> None:
    assert run_program(two_streams, False, streams="late").value == [7]
    seen = {run_program(two_streams, False, streams=f"shuffle:{n}").value[0] for n in range(6)}
    assert seen == {1, 7}


def test_the_default_order_is_late() -> None:
    assert run_program(two_streams, False).value == [7]


def test_eager_runs_work_when_it_is_queued() -> None:
    assert run_program(two_streams, False, streams="eager").value == [1]


@pytest.mark.parametrize("order", ORDERS)
def test_the_legacy_stream_waits_for_blocking_streams(order: str) -> None:
    assert run_program(two_streams, False, BLOCKING, True, streams=order).value == [1]


def test_the_legacy_stream_does_not_wait_for_others() -> None:
    assert run_program(two_streams, False, 1, True, streams="late").value == [7]


def legacy_first(flags: int) -> list[int]:
    """The legacy stream sets x, a stream copies it."""
    use_device()
    kernels = Module()
    x, y = Memory(7), Memory(8)
    reader = stream(flags)
    launch(kernels.function("set"), x, 1)
    launch(kernels.function("move"), y, x, stream=reader)
    synchronize(reader)
    return [y.value]


@pytest.mark.parametrize("order", ORDERS)
def test_blocking_streams_wait_for_the_legacy_stream(order: str) -> None:
    assert run_program(legacy_first, BLOCKING, streams=order).value == [1]


def test_other_streams_do_not_wait_for_the_legacy_stream() -> None:
    assert run_program(legacy_first, 1, streams="late").value == [7]


def overwritten() -> list[int]:
    """One stream reads x, another overwrites it without waiting for the reader."""
    use_device()
    kernels = Module()
    x, y = Memory(7), Memory(8)
    reader, writer = stream(), stream()
    launch(kernels.function("move"), y, x, stream=reader)
    launch(kernels.function("set"), x, 1, stream=writer)
    call("cuCtxSynchronize")
    return [y.value]


def test_overwriting_what_is_still_read_is_seen() -> None:
    assert run_program(overwritten, streams="late").value == [1]


def pinned_copies() -> dict[str, int]:
    """Copies from and to pinned memory, which the host touches before it has waited."""
    use_device()
    x, y = Memory(1), Memory(2)
    from_host, to_host = Memory(3, "pinned"), Memory(4, "pinned")
    queue = stream()
    x.copy_from(from_host, queue)
    to_host.copy_from(y, queue)
    from_host.value = 5
    early = to_host.value
    synchronize(queue)
    return {"early": early, "late": to_host.value, "copied": x.value}


def test_pinned_memory_is_touched_late() -> None:
    assert run_program(pinned_copies).value == {"early": 4, "late": 2, "copied": 5}


def pageable_copies() -> dict[str, int]:
    use_device()
    kernels = Module()
    x, y = Memory(1), Memory(2)
    from_host, to_host = Memory(3, "pageable"), Memory(4, "pageable")
    queue = stream()
    x.copy_from(from_host, queue)
    from_host.value = 5
    launch(kernels.function("add"), y, 40, stream=queue)
    to_host.copy_from(y, queue)
    early = to_host.value
    synchronize(queue)
    return {"early": early, "copied": x.value}


@pytest.mark.parametrize("order", ORDERS)
def test_pageable_memory_is_read_at_once_and_written_on_return(order: str) -> None:
    assert run_program(pageable_copies, streams=order).value == {"early": 42, "copied": 3}


def polled() -> dict[str, Any]:
    use_device()
    kernels = Module()
    x = Memory(0)
    queue = stream()
    for _ in range(3):
        launch(kernels.function("add"), x, 1, stream=queue)
    event = Event().record(queue)
    answers = []
    while error := error_of(event.query):
        answers.append(error)
    return {"answers": answers, "value": x.value, "stream": error_of(call, "cuStreamQuery", queue)}


def test_polling_an_event_comes_to_an_end() -> None:
    outcome = run_program(polled, streams="late").value
    assert outcome == {"answers": ["NOT_READY"] * 3, "value": 3, "stream": ""}


def host_functions() -> list[Any]:
    use_device()
    kernels = Module()
    x, seen = Memory(0, "pinned"), []
    device = Memory(0)
    queue = stream()
    function = HostFunction(lambda _: seen.append(x.value))
    for value in (1, 2):
        launch(kernels.function("set"), device, value, stream=queue)
        x.copy_from(device, queue)
        call("cuLaunchHostFunc", queue, function, None)
    before = len(seen)
    synchronize(queue)
    return [before, seen]


def test_host_functions_run_in_their_stream() -> None:
    assert run_program(host_functions, streams="late").value == [0, [1, 2]]
    assert run_program(host_functions, streams="eager").value == [2, [1, 2]]


def waiting_host_function() -> list[str]:
    use_device()
    errors: list[str] = []
    queue = stream()
    event = Event()
    function = HostFunction(lambda _: errors.append(error_of(synchronize, queue)))
    call("cuLaunchHostFunc", queue, function, None)
    event.record(queue)
    synchronize(queue)
    return errors


def test_a_host_function_may_not_wait_for_its_stream() -> None:
    outcome = run_program(waiting_host_function)
    assert outcome.value == ["800"]
    assert "a host function waits for the device that waits for it" in outcome.messages


def destroyed() -> list[int]:
    use_device()
    kernels = Module()
    x = Memory(0)
    queue, event = stream(), Event()
    launch(kernels.function("set"), x, 5, stream=queue)
    event.record(queue)
    call("cuStreamDestroy_v2", queue)
    call("cuEventDestroy_v2", event.event)
    call("cuCtxSynchronize")
    return [x.value]


@pytest.mark.parametrize("order", ORDERS)
def test_work_of_a_destroyed_stream_is_done(order: str) -> None:
    assert run_program(destroyed, streams=order).value == [5]


def freed() -> list[int]:
    """Frees what a queued kernel reads; freeing waits for it."""
    use_device()
    kernels = Module()
    x, y = Memory(3), Memory(0)
    queue = stream()
    launch(kernels.function("move"), y, x, stream=queue)
    x.free()
    synchronize(queue)
    return [y.value]


@pytest.mark.parametrize("order", ORDERS)
def test_freeing_waits_for_the_device(order: str) -> None:
    assert run_program(freed, streams=order).value == [3]


def failing() -> list[str]:
    """A kernel that writes to freed memory, and what the calls after it say."""
    use_device()
    kernels = Module()
    x, y = Memory(0), Memory(0)
    x.free()
    queue, other = stream(), stream()
    at_launch = error_of(lambda: launch(kernels.function("set"), x, 1, stream=queue))
    return [
        at_launch,
        error_of(synchronize, queue),
        error_of(synchronize, other),
        error_of(lambda: launch(kernels.function("set"), y, 1, stream=other)),
        error_of(lambda: y.value),
    ]


def test_an_error_appears_when_the_work_runs_and_stays() -> None:
    outcome = run_program(failing, streams="late")
    assert outcome.value == ["", *["ILLEGAL_ADDRESS"] * 4]
    assert "write of 4 bytes" in outcome.messages
    assert "in no allocation" in outcome.messages
    assert run_program(failing, streams="late", sticky=0).value == [
        "",
        "ILLEGAL_ADDRESS",
        "",
        "",
        "",
    ]


def elapsed() -> list[Any]:
    use_device()
    queue = stream()
    first, second, never = Event().record(queue), Event().record(queue), Event()
    ms = ctypes.c_float()

    def between(a: Event, b: Event) -> None:
        call("cuEventElapsedTime_v2", ctypes.byref(ms), a.event, b.event)

    before = error_of(between, first, second)
    synchronize(queue)
    return [
        before,
        error_of(between, first, second),
        ms.value >= 0,
        error_of(between, first, never),
    ]


def test_times_of_events() -> None:
    assert run_program(elapsed, streams="late").value == ["NOT_READY", "", True, "INVALID_HANDLE"]


def other_device(peers: bool) -> list[str]:
    """Device 0 copies what lies on device 1, by a kernel and by a copy."""
    first = use_device(1)
    x = Memory(3)
    use_device(0)
    kernels = Module()
    y = Memory(0)
    if peers:
        call("cuCtxEnablePeerAccess", first, 0)
    y.copy_from(x)
    copied = y.value
    launch(kernels.function("move"), y, x)
    return [str(copied), error_of(call, "cuCtxSynchronize")]


def test_peer_access() -> None:
    assert run_program(other_device, True, devices=2).value == ["3", ""]
    outcome = run_program(other_device, False, devices=2)
    assert outcome.value == ["3", "ILLEGAL_ADDRESS"]
    assert "of memory of device 1 by device 0 without peer access" in outcome.messages


def other_devices_stream() -> list[str]:
    use_device(1)
    queue = stream()
    use_device(0)
    kernels = Module()
    x = Memory(0)
    return [
        error_of(lambda: launch(kernels.function("set"), x, 1, stream=queue)),
        error_of(lambda: Event().record(queue)),
        error_of(handle, "cuDevicePrimaryCtxRetain", 2),
    ]


def test_streams_belong_to_their_device() -> None:
    outcome = run_program(other_devices_stream, devices=2)
    assert outcome.value == ["INVALID_HANDLE", "INVALID_HANDLE", "INVALID_DEVICE"]
    assert "launch of set refused: the stream is of device 1; current is 0" in outcome.messages


def across_devices(waits: bool) -> list[int]:
    """Device 1 sets x, device 0 copies it."""
    use_device(1)
    x, writer = Memory(7), stream()
    launch(Module().function("set"), x, 1, stream=writer)
    event = Event().record(writer)
    call("cuCtxEnablePeerAccess", use_device(0), 0)
    y, reader = Memory(0), stream()
    if waits:
        event.hold(reader)
    y.copy_from(x, reader)
    synchronize(reader)
    return [y.value]


@pytest.mark.parametrize("order", ORDERS)
def test_an_event_orders_two_devices(order: str) -> None:
    assert run_program(across_devices, True, devices=2, streams=order).value == [1]


def test_a_missing_event_between_devices_is_seen() -> None:
    assert run_program(across_devices, False, devices=2, streams="late").value == [7]


def test_an_unknown_order_is_refused() -> None:
    outcome = run_program(destroyed, streams="sometimes")
    assert outcome.code == 2
    assert "VGPU_STREAMS=sometimes: expected late, eager or shuffle:SEED" in outcome.messages
