"""Stream capture and graphs."""

from __future__ import annotations

from typing import Any

import pytest
from cuda_driver import (
    GLOBAL,
    RELAXED,
    THREAD_LOCAL,
    Event,
    Memory,
    Module,
    begin_capture,
    call,
    end_capture,
    error_of,
    launch,
    run_program,
    stream,
    synchronize,
    use_device,
)

ORDERS = ["late", "eager", "shuffle:1", "shuffle:2", "shuffle:3"]


def replayed() -> list[int]:
    use_device()
    kernels = Module()
    x, y = Memory(1), Memory(0)
    queue = stream()
    begin_capture(queue)
    launch(kernels.function("add"), x, 1, stream=queue)
    launch(kernels.function("move"), y, x, stream=queue)
    graph = end_capture(queue)
    values = [x.value]
    for _ in range(3):
        call("cuGraphLaunch", graph, queue)
        synchronize(queue)
        values.append(y.value)
    return values


@pytest.mark.parametrize("order", ORDERS)
def test_a_graph_runs_what_was_captured(order: str) -> None:
    assert run_program(replayed, streams=order).value == [1, 2, 3, 4]


def forked(joins: bool, waits: bool) -> list[Any]:
    """A second stream sets x while the first copies it, after it where it waits."""
    use_device()
    kernels = Module()
    x, y = Memory(7), Memory(8)
    first, second = stream(), stream()
    begin_capture(first)
    Event().record(first).hold(second)
    launch(kernels.function("set"), x, 1, stream=second)
    done = Event().record(second)
    if waits:
        done.hold(first)
    launch(kernels.function("move"), y, x, stream=first)
    if joins:
        done.hold(first)
    try:
        graph = end_capture(first)
    except Exception as error:
        return [str(error), error_of(synchronize, second)]
    call("cuGraphLaunch", graph, first)
    synchronize(first)
    return [x.value, y.value, error_of(synchronize, second)]


@pytest.mark.parametrize("order", ORDERS)
def test_a_graph_keeps_its_dependencies(order: str) -> None:
    assert run_program(forked, True, True, streams=order).value == [1, 1, ""]


def test_a_dependency_that_a_graph_lacks_is_seen() -> None:
    seen = {
        tuple(run_program(forked, True, False, streams=order).value)
        for order in ("late", "shuffle:1", "shuffle:2", "shuffle:3", "shuffle:4")
    }
    assert seen == {(1, 1, ""), (1, 7, "")}


def test_an_unjoined_stream_ends_the_capture() -> None:
    outcome = run_program(forked, False, False)
    assert outcome.value == ["STREAM_CAPTURE_UNJOINED", ""]
    assert "was not waited for before its end" in outcome.messages


def forbidden(mode: int) -> list[str]:
    """What waits for the device or changes its memory, during a capture."""
    use_device()
    queue = stream()
    x = Memory(0)
    begin_capture(queue, mode)
    errors = [
        error_of(Memory, 0, "pinned"),
        error_of(call, "cuCtxSynchronize"),
        error_of(x.free),
    ]
    end_capture(queue)
    return errors


def test_calls_that_a_capture_forbids() -> None:
    unsupported = "STREAM_CAPTURE_UNSUPPORTED"
    for mode in (GLOBAL, THREAD_LOCAL):
        outcome = run_program(forbidden, mode)
        assert outcome.value == ["", unsupported, unsupported]
        assert "freeing memory is not permitted while a stream is" in outcome.messages
    assert run_program(forbidden, RELAXED).value == ["", "", ""]


def invalidated() -> list[str]:
    use_device()
    kernels = Module()
    x = Memory(0)
    queue = stream()
    begin_capture(queue)
    return [
        error_of(synchronize, queue),
        error_of(lambda: launch(kernels.function("set"), x, 1, stream=queue)),
        error_of(end_capture, queue),
        error_of(end_capture, queue),
    ]


def test_waiting_for_a_captured_stream_invalidates_the_capture() -> None:
    assert run_program(invalidated).value == [
        "STREAM_CAPTURE_UNSUPPORTED",
        "STREAM_CAPTURE_INVALIDATED",
        "STREAM_CAPTURE_INVALIDATED",
        "401",
    ]


def legacy_stream(flags: int) -> list[str]:
    use_device()
    kernels = Module()
    x = Memory(0)
    queue = stream(flags)
    begin_capture(queue, RELAXED)
    errors = [
        error_of(lambda: launch(kernels.function("set"), x, 1)),
        error_of(synchronize),
        error_of(begin_capture, None),
    ]
    end_capture(queue)
    return errors


def test_the_legacy_stream_during_a_capture() -> None:
    implicit, unsupported = "STREAM_CAPTURE_IMPLICIT", "STREAM_CAPTURE_UNSUPPORTED"
    assert run_program(legacy_stream, 0).value == [implicit, implicit, unsupported]
    assert run_program(legacy_stream, 1).value == ["", "", unsupported]


def strange_events() -> dict[str, str]:
    use_device()
    queue, other = stream(), stream()
    outside = Event().record(other)
    begin_capture(queue)
    isolation = error_of(outside.hold, queue)
    invalid = error_of(end_capture, queue)
    begin_capture(queue)
    captured = Event().record(queue)
    query = error_of(captured.query)
    begin_capture(other)
    merge = error_of(captured.hold, other)
    ends = [error_of(end_capture, queue), error_of(end_capture, other)]
    return {
        "isolation": isolation,
        "invalid": invalid,
        "query": query,
        "merge": merge,
        "ends": " ".join(ends),
        "ended": error_of(captured.hold, other),
    }


def test_events_that_do_not_belong_to_the_capture() -> None:
    assert run_program(strange_events).value == {
        "isolation": "STREAM_CAPTURE_ISOLATION",
        "invalid": "STREAM_CAPTURE_INVALIDATED",
        "query": "CAPTURED_EVENT",
        "merge": "STREAM_CAPTURE_MERGE",
        "ends": "STREAM_CAPTURE_INVALIDATED STREAM_CAPTURE_INVALIDATED",
        "ended": "CAPTURED_EVENT",
    }


def two_launches() -> list[int]:
    """One executable graph in two streams: its launches do not run at once."""
    use_device()
    kernels = Module()
    x, y = Memory(0), Memory(0)
    first, second = stream(), stream()
    begin_capture(first)
    launch(kernels.function("add"), x, 1, stream=first)
    launch(kernels.function("move"), y, x, stream=first)
    graph = end_capture(first)
    call("cuGraphLaunch", graph, first)
    call("cuGraphLaunch", graph, second)
    synchronize(second)
    value = y.value
    call("cuGraphExecDestroy", graph)
    call("cuCtxSynchronize")
    return [value, x.value]


@pytest.mark.parametrize("order", ORDERS)
def test_launches_of_one_graph_run_one_after_another(order: str) -> None:
    assert run_program(two_launches, streams=order).value == [2, 2]
