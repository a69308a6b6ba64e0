"""Registers: what a table of a build with machine code lets the virtual GPU check."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest
from cuda_driver import Module, call, error_of, launch, library, run_program, use_device

from convnet.counters.table import residency_line

HEAD = ".version 8.7\n.target sm_90a\n.address_size 64\n"
# Two warpgroups. One takes registers that the other gives back, or does not.
HANDED_OVER = """.reg .b32 %t; .reg .pred %p;
mov.u32 %t, %tid.x; setp.lt.u32 %p, %t, 128; @%p bra first;
setmaxnreg.inc.sync.aligned.u32 {inc}; bra end;
first: setmaxnreg.dec.sync.aligned.u32 {dec}; end: """
NAMED = "_ZN7convnet46_GLOBAL__N__{}_13_activation_cu_{}10map_kernelEv"
TEXT = (
    HEAD
    + ".visible .entry plain() { ret; }\n"
    + f".visible .entry {NAMED.format('b5ebd91b', 'bc7eacca')}() {{ ret; }}\n"
    + "".join(
        f".visible .entry {name}() {{ {HANDED_OVER.format(inc=inc, dec=dec)} ret; }}\n"
        for name, inc, dec in [("right", 232, 24), ("greedy", 240, 24), ("backwards", 232, 136)]
    )
)


def launches(name: str, threads: list[int]) -> list[str]:
    use_device()
    function = Module(TEXT).function(name)

    def run(count: int) -> None:
        launch(function, block=(count, 1, 1))
        call("cuCtxSynchronize")

    return [error_of(run, count) for count in threads]


def number_of_registers(name: str) -> int:
    use_device()
    value = ctypes.c_int()
    function = Module(TEXT).function(name)
    call("cuFuncGetAttribute", ctypes.byref(value), 4, function)
    return value.value


def residency(threads: int, shared: int) -> list[object]:
    """What is counted of a launch, and what cuOccupancy... says of such blocks."""
    use_device()
    function = Module(TEXT).function("plain")
    launch(function, block=(threads, 1, 1), shared=shared)
    call("cuCtxSynchronize")
    library().vgpu_test_counts.restype = ctypes.c_char_p
    [kernel] = json.loads(library().vgpu_test_counts())
    blocks = ctypes.c_int()
    occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
    call(occupancy, ctypes.byref(blocks), function, threads, ctypes.c_size_t(shared))
    return [kernel.get("registers"), kernel["block_shapes"], blocks.value]


def table(folder: Path, registers: int, name: str) -> dict[str, str]:
    path = folder / "registers"
    path.write_text(f"80 255 {name}\n90 {registers} {name}\n")
    return {"registers": str(path)}


@pytest.mark.parametrize(
    ("registers", "threads"),
    [(64, 1024), (72, 896), (128, 512), (136, 384), (168, 384), (255, 256)],
)
def test_threads_by_registers(tmp_path: Path, registers: int, threads: int) -> None:
    """65,536 are handed out in units of 8 to the threads of a warp, and to warps in fours."""
    outcome = run_program(
        launches, "plain", [threads, threads + 1], **table(tmp_path, registers, "plain")
    )
    beyond = "LAUNCH_OUT_OF_RESOURCES" if threads < 1024 else "INVALID_VALUE"
    assert outcome.value == ["", beyond]
    if threads < 1024:
        assert f"{threads + 1} threads with {registers} registers each, takes" in outcome.messages
        assert "a multiprocessor has 65536" in outcome.messages


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "blocks"),
    [
        (72, 256, 0, 3),  # 8 warps of 2,304 registers
        (65, 256, 0, 3),  # the same, as registers come in eights
        (64, 256, 0, 4),
        (32, 256, 0, 8),  # 2,048 threads
        (72, 96, 0, 7),  # warps in fours
        (32, 256, 40 << 10, 5),  # 228 KiB by 41
        (72, 256, 40 << 10, 3),
    ],
)
def test_blocks_on_a_multiprocessor(
    tmp_path: Path, registers: int, threads: int, shared: int, blocks: int
) -> None:
    given = table(tmp_path, registers, "plain")
    counted = run_program(residency, threads, shared, counters=1, **given).value
    shape = {"threads": threads, "shared_bytes": shared, "launches": 1, "blocks": 1}
    assert counted == [registers, [{**shape, "blocks_per_sm": blocks}], blocks]
    said = residency_line({"registers": registers, "block_shapes": counted[1]})
    assert said.startswith(f"  {registers} registers; on an SM {blocks} blocks of {threads} ")


def test_registers_are_not_counted_without_a_table() -> None:
    shape = {"threads": 256, "shared_bytes": 0, "launches": 1, "blocks": 1}
    assert run_program(residency, 256, 0, counters=1).value == [None, [shape], 8]


def test_without_a_table_nothing_is_checked() -> None:
    assert run_program(launches, "plain", [1024]).value == [""]
    assert run_program(launches, "greedy", [256]).value == [""]


def test_names_that_differ_from_build_to_build(tmp_path: Path) -> None:
    here, there = NAMED.format("b5ebd91b", "bc7eacca"), NAMED.format("0123abcd", "deadbeef")
    assert run_program(number_of_registers, here, **table(tmp_path, 72, there)).value == 72


def test_registers_that_are_handed_over(tmp_path: Path) -> None:
    """Of 128 a thread one warpgroup keeps 24, which leaves the other 104 more."""
    assert run_program(launches, "right", [256], **table(tmp_path, 128, "right")).value == [""]


def test_more_than_are_given_back(tmp_path: Path) -> None:
    outcome = run_program(launches, "greedy", [256], **table(tmp_path, 128, "greedy"))
    assert outcome.value == ["LAUNCH_FAILED"]
    assert "waiting in setmaxnreg for registers, of which 80 are spare for each lane" in (
        outcome.messages
    )


def test_giving_back_more_than_there_are(tmp_path: Path) -> None:
    outcome = run_program(launches, "backwards", [256], **table(tmp_path, 128, "backwards"))
    assert outcome.value == ["LAUNCH_FAILED"]
    assert "setmaxnreg.dec to 136: the warp has 128 registers a thread" in outcome.messages


def test_a_table_for_other_devices(tmp_path: Path) -> None:
    (tmp_path / "registers").write_text("80 32 plain\n")
    outcome = run_program(launches, "plain", [32], registers=tmp_path / "registers")
    assert outcome.code == 2
    assert "no kernels for compute capability 9.0 there" in outcome.messages
