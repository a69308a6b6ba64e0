"""The emulator runs right kernels right, and finds the fault in broken ones.

``emulator/right.cu`` and ``emulator/broken.cu`` are programs of named cases. They are compiled
twice against ``src/emulator``: as they are ("plain") and with AddressSanitizer ("address").
"""

from __future__ import annotations

import re
import shutil

import pytest
from emulator_programs import BUILDS, COMPILER, ORDERS, Programs, marked_line

RIGHT_CASES = [
    "async_copy",
    "conversions",
    "gemm",
    "histogram",
    "indices",
    "ldmatrix",
    "mma_bf16",
    "mma_tf32",
    "much_shared",
    "peers",
    "warp",
]

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C++ compiler")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("case", RIGHT_CASES)
def test_right_kernel_gives_equal_bits_in_every_order(
    programs: Programs, build: str, case: str
) -> None:
    results = {programs.run(build, "right", case, order) for order in ORDERS}
    assert len(results) == 1
    assert re.fullmatch(r"returned [0-9a-f]{16}, 0 NaN", results.pop())


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blocks_may_run_on_any_number_of_os_threads(programs: Programs, threads: str) -> None:
    expected = programs.run("plain", "right", "gemm")
    assert programs.run("plain", "right", "gemm", CONVNET_EMULATOR_THREADS=threads) == expected


@pytest.mark.parametrize(
    "case",
    ["missing_barrier", "missing_second_barrier", "missing_syncwarp", "async_without_barrier"],
)
def test_missing_barrier(programs: Programs, case: str) -> None:
    """Orders differ in their bits."""
    assert len({programs.run("plain", "broken", case, order) for order in ORDERS}) > 1


@pytest.mark.parametrize(
    ("case", "nans"),
    [("unwritten_shared", 1), ("async_without_wait", 64), ("async_wait_too_few", 64)],
)
def test_read_of_what_is_not_there(programs: Programs, case: str, nans: int) -> None:
    assert programs.run("plain", "broken", case).endswith(f", {nans} NaN")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("exit_before_barrier", r"divergent barriers: .* waits in __syncthreads, .* has ended"),
        ("two_barriers", "divergent barriers: this thread waits in __syncthreads here, thread"),
        ("uneven_loop", r"divergent barriers: thread .* waits in __syncthreads, .* has ended"),
        ("shuffle_in_branch", r"deadlocked warp operation: .* waits in __shfl_xor_sync, but"),
        ("different_operations", "divergent warp: this thread is in __.* other lanes in __"),
        ("mask_without_self", "the mask 0x0000fffe does not name the calling lane"),
        ("mma_in_part", "mma.m16n8k8.tf32"),
    ],
)
def test_threads_that_do_not_meet(programs: Programs, case: str, message: str, order: str) -> None:
    result = programs.run("plain", "broken", case, order)
    assert re.match(rf"threw broken_op: .*{message}", result)
    assert marked_line(case) in result
    assert re.search(r"thread \(\d+, 0, 0\) of block \(\d, 0, 0\)", result)


def test_shared_memory_overrun(programs: Programs) -> None:
    for case in ("shared_write_overrun", "shared_read_overrun"):
        address = programs.run("address", "broken", case)
        assert "ERROR: AddressSanitizer: heap-buffer-overflow" in address
        assert marked_line(case) in address
    # Without AddressSanitizer, a write is noticed at the end of the block.
    plain = programs.run("plain", "broken", "shared_write_overrun")
    assert marked_line("shared_write_overrun declaration") in plain
    assert "block (0, 0, 0) wrote outside tile (256 bytes)" in plain


def test_global_memory_overrun(programs: Programs) -> None:
    for case in ("global_overrun", "device_overrun"):
        address = programs.run("address", "broken", case)
        assert "ERROR: AddressSanitizer" in address
        assert marked_line("global_overrun") in address
    far = programs.run("plain", "broken", "far_overrun")
    assert marked_line("far_overrun") in far
    assert re.search(r"global-memory overrun: offset \d+ of an allocation of 256 bytes", far)


@pytest.mark.parametrize("build", BUILDS)
def test_memory_of_another_device(programs: Programs, build: str) -> None:
    argument = programs.run(build, "broken", "other_device")
    assert marked_line("other_device") in argument
    assert "argument 1 points to memory of device 1; device 0 has no peer mapping" in argument
    table = programs.run(build, "broken", "other_device_in_table")
    assert marked_line("other_device_in_table") in table
    assert "access to memory of device 1 from device 0 without a peer mapping" in table


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("case", "message", "thread"),
    [
        ("null_pointer", "invalid memory access at address", "thread (3, 0, 0)"),
        ("misaligned", "misaligned 128-bit access", "thread (1, 0, 0)"),
        ("misaligned_async", "cp_async: misaligned address", "thread (1, 0, 0)"),
        ("stack_overflow", "stack overflow", "thread (0, 0, 0)"),
        ("trap", "__trap", "thread (5, 0, 0) of block (2, 0, 0)"),
        ("divide", "integer division by zero", "thread (0, 0, 0)"),
        ("large_static", "49168 bytes of static shared memory, the limit is 49152", "thread (0"),
    ],
)
def test_fault(programs: Programs, build: str, case: str, message: str, thread: str) -> None:
    result = programs.run(build, "broken", case)
    assert result.startswith("threw broken_op: ")
    assert message in result
    assert thread in result
    if case != "stack_overflow":  # which line overflows is the compiler's choice
        assert marked_line(case) in result


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("too_many_threads", "invalid block (2000, 1, 1): expected 1 to 1024 threads"),
        ("empty_grid", "invalid grid (0, 1, 1)"),
        ("no_dynamic_shared", "the launch gave no dynamic shared memory for tile"),
        (
            "large_shared",
            "128 static and 232448 dynamic bytes of shared memory, the limit is 232448",
        ),
        (
            "larger_dynamic",
            "takes 0 static and 232464 dynamic bytes of shared memory; "
            "a block on this device has at most 232448 bytes in all",
        ),
        (
            "shared_unasked",
            "128 static and 49152 dynamic bytes of shared memory, "
            "the limit without cudaFuncSetAttribute is 49152",
        ),
        (
            "dynamic_unasked",
            "49168 bytes of dynamic shared memory, without cudaFuncSetAttribute the limit is 49152",
        ),
    ],
)
def test_impossible_launch(programs: Programs, case: str, message: str) -> None:
    """Refused as a GPU does; what static arrays there are is known when a block comes to them."""
    result = programs.run("plain", "broken", case)
    assert result.startswith("threw broken_op: ")
    assert message in result


def test_launch_after_an_error(programs: Programs) -> None:
    assert programs.run("plain", "broken", "after_an_error").startswith("returned")


def test_unknown_order(programs: Programs) -> None:
    message = programs.run("plain", "right", "gemm", order="sideways")
    assert 'expected forward, reverse or shuffle:SEED, got "sideways"' in message
