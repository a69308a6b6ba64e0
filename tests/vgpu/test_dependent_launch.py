"""Programmatic dependent launch: what a kernel may touch before griddepcontrol.wait."""

from __future__ import annotations

import pytest
from cuda_driver import (
    PROGRAMMATIC,
    PROGRAMMATIC_EVENT,
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
from ptx import PtxError, run_ptx

ORDERS = ["late", "shuffle:1", "shuffle:2", "shuffle:3"]
HEAD = ".version 8.7\n.target sm_90\n.address_size 64\n"
WAIT, LAUNCH = "griddepcontrol.wait;", "griddepcontrol.launch_dependents;"
PARAMETERS = "(.param .u64 y, .param .u64 x, .param .u32 value)"
LOADS = """.reg .b64 %y, %x; .reg .b32 %v, %w; .reg .pred %p;
ld.param.u64 %y, [y]; ld.param.u64 %x, [x]; ld.param.u32 %v, [value];"""
COPY = "ld.global.u32 %w, [%x]; st.global.u32 [%y], %w;"
# Each has two pointers and a number.
BODIES = {
    "set": f"{LAUNCH} st.global.u32 [%x], %v;",
    "read": f"{LAUNCH} ld.global.u32 %w, [%x]; add.u32 %w, %w, 1; st.global.u32 [%y], %w;",
    "copy": f"{WAIT} {COPY}",
    "copy_early": f"{COPY} {WAIT}",
    "copy_unwaited": COPY,
    "overwrite_early": f"st.global.u32 [%x], %v; {WAIT}",
    "prepare": f"st.global.u32 [%y], %v; {WAIT} {COPY}",
    "nothing": f"{LAUNCH}",
    "one_waits": f"""mov.u32 %w, %tid.x; setp.ne.u32 %p, %w, 0; @%p bra go; {WAIT}
      go: bar.sync 0; {COPY}""",
    "one_waits_unsynchronized": f"""mov.u32 %w, %tid.x; setp.ne.u32 %p, %w, 0; @%p bra go; {WAIT}
      go: {COPY}""",
}
TEXT = HEAD + "".join(
    f".visible .entry {name}{PARAMETERS} {{ {LOADS}\n{body}\nret; }}\n"
    for name, body in BODIES.items()
)
MAY_OVERLAP = {PROGRAMMATIC: [1]}


def two_kernels(
    first: str, second: str, between: str = "", attribute: int = 1, block: int = 1
) -> list[object]:
    """x is 7, the first kernel sets it to 1 or reads it, the second has it at its disposal. Returns
    y and the error."""
    use_device()
    kernels = Module(TEXT)
    x, y, z = Memory(7), Memory(8), Memory(9)
    queue = stream()
    launch(kernels.function(first), z, x, 1, stream=queue)
    if between:
        launch(kernels.function(between), z, z, 1, stream=queue, attributes=MAY_OVERLAP)
    launch(
        kernels.function(second),
        y,
        x,
        2,
        stream=queue,
        block=(block, 1, 1),
        attributes={PROGRAMMATIC: [attribute]},
    )
    error = error_of(synchronize, queue)
    return [0 if error else y.value, error]


@pytest.mark.parametrize("order", [*ORDERS, "eager"])
def test_a_kernel_that_waits(order: str) -> None:
    assert run_program(two_kernels, "set", "copy", streams=order).value == [1, ""]
    assert run_program(two_kernels, "set", "prepare", streams=order).value == [1, ""]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("set", "copy_early", "read of 4 bytes at"),
        ("set", "copy_unwaited", "read of 4 bytes at"),
        ("set", "overwrite_early", "write of 4 bytes at"),
        ("read", "overwrite_early", "write of 4 bytes at"),
    ],
)
def test_a_kernel_that_does_not(first: str, second: str, what: str) -> None:
    outcome = run_program(two_kernels, first, second)
    assert outcome.value == [0, "LAUNCH_FAILED"]
    assert what in outcome.messages
    assert f"before griddepcontrol.wait: the kernel {first}, which may still run" in (
        outcome.messages
    )
    assert f"kernel {second}" in outcome.messages


def test_what_the_first_kernel_only_reads_may_be_read() -> None:
    assert run_program(two_kernels, "read", "copy_early").value == [7, ""]


def test_without_the_attribute_nothing_overlaps() -> None:
    assert run_program(two_kernels, "set", "copy_unwaited", "", 0).value == [1, ""]


def test_a_wait_of_one_thread_and_a_barrier() -> None:
    assert run_program(two_kernels, "set", "one_waits", "", 1, 64).value == [1, ""]
    outcome = run_program(two_kernels, "set", "one_waits_unsynchronized", "", 1, 64)
    assert outcome.value == [0, "LAUNCH_FAILED"]
    assert "before griddepcontrol.wait" in outcome.messages


def test_a_kernel_between_that_does_not_wait() -> None:
    """Waiting for it is not waiting for the one before it."""
    outcome = run_program(two_kernels, "set", "copy_early", "nothing")
    assert outcome.value == [0, "LAUNCH_FAILED"]
    assert "the kernel set, which may still run" in outcome.messages


def captured(second: str) -> list[object]:
    """The same as a graph, launched twice: a programmatic edge."""
    use_device()
    kernels = Module(TEXT)
    x, y, z = Memory(7), Memory(8), Memory(9)
    queue = stream()
    begin_capture(queue)
    launch(kernels.function("set"), z, x, 1, stream=queue)
    launch(kernels.function(second), y, x, 2, stream=queue, attributes=MAY_OVERLAP)
    graph = end_capture(queue)
    errors = [error_of(call, "cuGraphLaunch", graph, queue) for _ in range(2)]
    errors.append(error_of(synchronize, queue))
    return [0 if any(errors) else y.value, max(errors)]


@pytest.mark.parametrize("order", [*ORDERS, "eager"])
def test_graphs(order: str) -> None:
    assert run_program(captured, "copy", streams=order).value == [1, ""]
    outcome = run_program(captured, "copy_early", streams=order)
    assert outcome.value == [0, "LAUNCH_FAILED"]
    assert "before griddepcontrol.wait: the kernel set" in outcome.messages


def after_a_copy() -> list[object]:
    """A copy between the kernels: the second waits for it, and it for the first."""
    use_device()
    kernels = Module(TEXT)
    x, y, z = Memory(7), Memory(8), Memory(9)
    queue = stream()
    launch(kernels.function("set"), z, x, 1, stream=queue)
    z.copy_from(x, queue)
    launch(kernels.function("copy_unwaited"), y, x, 2, stream=queue, attributes=MAY_OVERLAP)
    synchronize(queue)
    return [y.value]


def test_only_two_kernels_overlap() -> None:
    assert run_program(after_a_copy).value == [1]


def with_event() -> str:
    use_device()
    function = Module(TEXT).function("nothing")
    x = Memory(7)
    return error_of(lambda: launch(function, x, x, 1, attributes={PROGRAMMATIC_EVENT: [0]}))


def test_programmatic_events_are_refused() -> None:
    outcome = run_program(with_event)
    assert outcome.value == "NOT_SUPPORTED"
    assert "programmatic events are not implemented" in outcome.messages


def test_forms() -> None:
    assert run_ptx(f"{LAUNCH} {WAIT}", [], []) == []
    with pytest.raises(PtxError, match="not known in this form"):
        run_ptx("griddepcontrol.signal;", [], [])
