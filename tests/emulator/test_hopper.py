"""The emulator on Hopper's operations: barriers in shared memory, bulk and tensor copies, wgmma.

``emulator/hopper.cu`` has right kernels and broken ones, compiled as those of test_emulator.py.
"""

from __future__ import annotations

import re
import shutil

import pytest
from emulator_programs import BUILDS, COMPILER, ORDERS, Programs, marked_line

RIGHT = ["pipeline", "wgmma_tf32", "wgmma_bf16", "wgmma_wide_rows"]
RIGHT += ["pixel_rows", "pixel_rows_swizzled"]

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C++ compiler")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("case", RIGHT)
def test_right_kernel_gives_equal_bits_in_every_order(
    programs: Programs, build: str, case: str
) -> None:
    results = {programs.run(build, "hopper", case, order) for order in ORDERS}
    assert len(results) == 1
    assert re.fullmatch(r"returned [0-9a-f]{16}, 0 NaN", results.pop())


@pytest.mark.parametrize(
    ("case", "line", "message"),
    [
        ("never_arrives", "never_arrives", r"deadlock: thread \(128, .* nobody completes"),
        ("too_many_bytes", "copy", "a copy of 512 bytes, but its barrier expects only 256"),
        ("too_often", "too_often", "mbarrier_arrive: more threads than the barrier counts"),
        ("not_waited", "copy", "ends with a copy to shared memory that nobody has waited for"),
        ("no_init", "wait", "mbarrier_wait: the barrier was not initialized"),
        ("no_fence", "wgmma", "wgmma without a wgmma_fence since the last wait"),
        ("no_wait", "wgmma", "ends with a wgmma that was not waited for"),
    ],
)
def test_fault_is_named(programs: Programs, case: str, line: str, message: str) -> None:
    result = programs.run("plain", "hopper", case)
    assert re.match(rf"threw broken_op: .*{message}", result)
    assert marked_line(line, "hopper.cu") in result


def test_reading_before_the_copy_has_arrived(programs: Programs) -> None:
    for order in ORDERS:
        assert "threw" in programs.run("plain", "hopper", "no_full", order)


def test_a_stage_that_is_filled_too_early(programs: Programs) -> None:
    right = programs.run("plain", "hopper", "pipeline")
    assert all(programs.run("plain", "hopper", "no_empty", order) != right for order in ORDERS)


def test_operands_of_a_wgmma_under_way(programs: Programs) -> None:
    """B that is overwritten counts as NaN, and registers of A as what they are at the wait."""
    assert not programs.run("plain", "hopper", "overwritten").endswith(", 0 NaN")
    right = programs.run("plain", "hopper", "reused")
    assert right.endswith(", 0 NaN")


def test_tensor_that_no_map_can_describe(programs: Programs) -> None:
    assert "no tensor map for 16 channels" in programs.run("plain", "hopper", "impossible_map")
