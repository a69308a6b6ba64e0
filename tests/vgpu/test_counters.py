"""Counts of what kernels do, against numbers worked out by hand from the rules in
src/vgpu/counters/access.h."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ptx import library, run_ptx

ZEROS = np.zeros(4096, np.uint32)


def count(body: str, inputs: int = 1, **options: Any) -> dict[str, Any]:
    """What the kernel of this body is counted to do; its arrays have 16 KB."""
    library().vgpu_test_count()
    run_ptx(body, [ZEROS] * inputs, [ZEROS], **options)
    [kernel] = json.loads(library().vgpu_test_counts())
    return dict(kernel)


def lanes_at(stride: int, offset: int = 0) -> str:
    """%r0 = lane * stride + offset"""
    return f"mad.lo.u32 %r0, %t, {stride}, {offset};"


SHARED = [
    # one word for each bank, in any order
    ("u32", "%r9", 4, 0, 1, 1),
    ("u32", "%r9", 132, 0, 1, 1),
    # every second bank twice; one bank 32 times; the same word for all
    ("u32", "%r9", 8, 0, 2, 1),
    ("u32", "%r9", 128, 0, 32, 1),
    ("u32", "%r9", 0, 64, 1, 1),
    # four lanes in a word, and two
    ("u8", "%r9", 1, 0, 1, 1),
    ("u16", "%r9", 2, 0, 1, 1),
    # 8 bytes, by halves: 16 lanes fill the banks; at twice the distance, lanes i and i + 8 meet
    ("v2.u32", "{%r8, %r9}", 8, 0, 2, 2),
    ("v2.u32", "{%r8, %r9}", 16, 0, 4, 2),
    ("u64", "%l9", 8, 0, 2, 2),
    # 16 bytes, by quarters: 8 lanes fill the banks; at twice the distance, lanes i and i + 4 meet
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 16, 0, 4, 4),
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 32, 0, 8, 4),
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 128, 0, 32, 4),
]


# Stores only where each lane has a word of its own: who wins else is not defined.
SHARED_ACCESSES = [
    (*case, store) for case in SHARED for store in (False, True)[: 1 + (case[2] > 3)]
]


@pytest.mark.parametrize(
    ("kind", "value", "stride", "offset", "taken", "ideal", "store"), SHARED_ACCESSES
)
def test_wavefronts(
    kind: str, value: str, stride: int, offset: int, taken: int, ideal: int, store: bool
) -> None:
    zero = "mov.u32 %r6, 0; mov.u32 %r7, 0; mov.u32 %r8, 0; mov.u32 %r9, 0; mov.u64 %l9, 0;"
    fill = """
    mov.u32 %r1, %t;
    fill: shl.b32 %r2, %r1, 2; mov.u32 %r3, words; add.u32 %r2, %r2, %r3; st.shared.u32 [%r2], %r1;
    add.u32 %r1, %r1, 32; setp.lt.u32 %p1, %r1, 1100; @%p1 bra fill; bar.sync 0;
    """
    body = ".shared .align 16 .b8 words[8192];" + zero + lanes_at(stride, offset)
    body += "mov.u32 %r3, words; add.u32 %r0, %r0, %r3;"
    if store:
        counts = count(body + f"st.shared.{kind} [%r0], {value};")
        before = (0, 0, 0)
    else:
        # what the loop that fills shared memory costs is taken off
        loop = count(body + fill)
        before = (
            loop["shared_wavefronts"],
            loop["shared_wavefronts_ideal"],
            loop["shared_bytes"],
        )
        counts = count(body + fill + f"ld.shared.{kind} {value}, [%r0];")
    size = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "v2.u32": 8, "v4.u32": 16}[kind]
    assert counts["shared_wavefronts"] - before[0] == taken
    assert counts["shared_wavefronts_ideal"] - before[1] == ideal
    assert counts["shared_bytes"] - before[2] == 32 * size
    assert counts["global_sectors"] == 0


GLOBAL = [
    # 32 floats fill four sectors; from the middle of one on, they touch five
    ("u32", "%r9", 4, 0, 4, 4),
    ("u32", "%r9", 4, 16, 5, 4),
    # every second word; a sector for each lane; one word for all
    ("u32", "%r9", 8, 0, 8, 4),
    ("u32", "%r9", 32, 0, 32, 4),
    ("u32", "%r9", 0, 8, 1, 1),
    ("u8", "%r9", 1, 0, 1, 1),
    ("u8", "%r9", 1, 16, 2, 1),
    ("v2.u32", "{%r8, %r9}", 8, 0, 8, 8),
    ("v2.u32", "{%r8, %r9}", 16, 0, 16, 8),
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 16, 0, 16, 16),
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 16, 16, 20, 16),
    ("v4.u32", "{%r6, %r7, %r8, %r9}", 64, 0, 32, 16),
]


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(("kind", "value", "stride", "offset", "taken", "ideal"), GLOBAL)
def test_sectors(
    kind: str, value: str, stride: int, offset: int, taken: int, ideal: int, store: bool
) -> None:
    zero = "mov.u32 %r6, 0; mov.u32 %r7, 0; mov.u32 %r8, 0; mov.u32 %r9, 0;"
    body = zero + lanes_at(stride, offset) + "cvt.u64.u32 %l0, %r0; add.s64 %l0, %l0, "
    if store:
        body += f"%out0; st.global.{kind} [%l0], {value};"
    else:
        body += f"%in0; ld.global.{kind} {value}, [%l0];"
    counts = count(body)
    size = {"u8": 1, "u32": 4, "v2.u32": 8, "v4.u32": 16}[kind]
    assert (counts["global_sectors"], counts["global_sectors_ideal"]) == (taken, ideal)
    assert counts["global_bytes"] == 32 * size
    assert counts["shared_wavefronts"] == 0
    # quarters of a warp that touch the same sector move it twice; DRAM gives it once
    last = offset + 31 * stride + size - 1
    touched = len({(offset + lane * stride) // 32 for lane in range(32)} | {last // 32})
    assert counts["dram_write_bytes" if store else "dram_read_bytes"] == 32 * touched


def test_lanes_that_do_not_take_part() -> None:
    body = lanes_at(32) + "cvt.u64.u32 %l0, %r0; add.s64 %l0, %l0, %in0;"
    body += "setp.lt.u32 %p1, %t, 5; @%p1 ld.global.u32 %r1, [%l0];"
    counts = count(body)
    assert (counts["global_sectors"], counts["global_sectors_ideal"]) == (5, 1)
    assert counts["global_bytes"] == 20


def test_atomics_read_and_write() -> None:
    counts = count("red.global.add.u32 [%in0], 1;")
    assert (counts["global_sectors"], counts["instructions"]["atomic"]) == (1, 1)
    assert (counts["dram_read_bytes"], counts["dram_write_bytes"]) == (32, 32)


def test_cp_async_is_counted_on_both_sides() -> None:
    body = ".shared .align 16 .b8 to[512];" + lanes_at(16)
    body += """
    cvt.u64.u32 %l0, %r0; add.s64 %l0, %l0, %in0; mov.u32 %r1, to; add.u32 %r1, %r1, %r0;
    cp.async.cg.shared.global [%r1], [%l0], 16; cp.async.wait_all;
    """
    counts = count(body)
    assert (counts["global_sectors"], counts["shared_wavefronts"]) == (16, 4)
    assert (counts["global_bytes"], counts["shared_bytes"]) == (512, 512)


@pytest.mark.parametrize(("pitch", "taken"), [(16, 4), (144, 4), (128, 32), (32, 8)])
def test_ldmatrix(pitch: int, taken: int) -> None:
    """Eight rows of 16 bytes fill the banks, unless their distance makes them meet."""
    body = ".shared .align 16 .b8 rows[8192]; mov.u32 %r1, %t;" + lanes_at(pitch)
    body += """
    fill: shl.b32 %r2, %r1, 2; mov.u32 %r3, rows; add.u32 %r2, %r2, %r3; st.shared.u32 [%r2], %r1;
    add.u32 %r1, %r1, 32; setp.lt.u32 %p1, %r1, 1200; @%p1 bra fill; bar.sync 0;
    add.u32 %r0, %r0, %r3;
    """
    matrix = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r0];"
    before, after = count(body), count(body + matrix)
    assert after["shared_wavefronts"] - before["shared_wavefronts"] == taken
    assert after["shared_wavefronts_ideal"] - before["shared_wavefronts_ideal"] == 4


def test_instructions_by_kind() -> None:
    """A loop of ten rounds in a block of three warps, of which one is half full."""
    body = """
    mov.u32 %r0, 0; mov.f32 %f0, 0f00000000; cvt.rn.f32.u32 %f1, %t;
    again: fma.rn.f32 %f0, %f0, %f1, %f1; add.rn.f32 %f0, %f0, %f1;
    add.u32 %r0, %r0, 1; setp.lt.u32 %p0, %r0, 10; @%p0 bra again;
    bar.sync 0;
    """
    counts = count(body, block=80)
    kinds = counts["instructions"]
    # run_ptx adds a mov of %tid.x, a ld.param for each array, ret
    assert kinds["float"] == 3 * 10 * 2
    assert kinds["integer"] == 3 * 10 * 2
    assert kinds["move"] == 3 * 3
    assert kinds["convert"] == 3
    assert kinds["parameter"] == 3 * 2
    assert kinds["barrier"] == 3
    assert kinds["control"] == 3 * (10 + 1)
    assert counts["warp_instructions"] == sum(kinds.values())
    assert counts["thread_instructions"] * 96 == counts["warp_instructions"] * 80 // 3 * 3 * 32 * 1
    assert counts["float_flops"] == 80 * 10 * 3
    assert (counts["warps"], counts["blocks"], counts["launches"]) == (3, 1, 1)


def test_lanes_that_part_are_counted_apart() -> None:
    body = """
    setp.lt.u32 %p0, %t, 8; @%p0 bra there;
    add.u32 %r0, %t, 1; add.u32 %r0, %r0, 1;
    there: add.u32 %r0, %t, 1;
    """
    counts = count(body)
    # setp, two adds of 24 lanes, one of 32
    assert counts["instructions"]["integer"] == 4
    integer_lanes = 32 + 24 + 24 + 32
    # and mov, two ld.param, bra and ret
    assert counts["thread_instructions"] == integer_lanes + 5 * 32


def test_flops_of_tensor_instructions() -> None:
    registers = "{%r0, %r1, %r2, %r3}, {%r4, %r5}"
    body = "".join(f"mov.b32 %r{k}, 0;" for k in range(6))
    body += "".join(f"mov.f32 %f{k}, 0f00000000;" for k in range(4))
    accumulators = "{%f0, %f1, %f2, %f3}"
    for shape, kind in (("m16n8k8", "tf32"), ("m16n8k16", "bf16")):
        body += f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 {accumulators},"
        body += f"{registers}, {accumulators};"
    counts = count(body)
    assert counts["instructions"]["tensor"] == 2
    assert counts["tf32_flops"] == 2 * 16 * 8 * 8
    assert counts["bf16_flops"] == 2 * 16 * 8 * 16
    assert counts["float_flops"] == 0


MANY_BLOCKS = (
    """
    mov.u32 %r0, %ctaid.x; mad.lo.u32 %r1, %r0, 64, %t; and.b32 %r1, %r1, 4095;
    mul.wide.u32 %l0, %r1, 4; add.s64 %l1, %l0, %in0; add.s64 %l2, %l0, %out0;
    ld.global.u32 %r2, [%l1]; mov.u32 %r3, 0;
    again: add.u32 %r3, %r3, 1; setp.le.u32 %p0, %r3, %r0; @%p0 bra again;
    st.global.u32 [%l2], %r3;
    """,
    {"grid": 50, "block": 64},
)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_counts_are_the_same_from_run_to_run(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, options = MANY_BLOCKS
    first = count(body, **options)
    monkeypatch.setenv("VGPU_THREADS", threads)
    assert count(body, **options) == first
    # rounds of the loops: 1 + 2 + ... + 50 of two warps each, of add and setp
    loop = 2 * 2 * 50 * 51 // 2
    outside = 2 * 50 * 5  # mad, and, mul.wide, and the two additions of addresses
    assert first["instructions"]["integer"] == loop + outside
    assert first["dram_read_bytes"] == first["dram_write_bytes"] == 50 * 64 * 4


def test_lines_of_the_source() -> None:
    """By line, with the calls that inlined code came by."""
    module = """
    .file 1 "kernel.cu"
    .file 2 "helper.h"
    .section .debug_str
    {
    $L__info_string0:
    .b8 95,90,51,97,100,100,105,0
    }
    """
    body = """
    .loc 1 10 3
    add.u32 %r0, %t, 1;
    .loc 1 11 5
    .loc 2 7 3, function_name $L__info_string0, inlined_at 1 11 5
    add.u32 %r0, %r0, 1;
    add.u32 %r0, %r0, 2;
    .loc 1 12 3
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; st.global.u32 [%l1], %r0;
    """
    counts = count(body, module=module)
    lines = {line["source"]: line for line in counts["lines"]}
    assert lines["kernel.cu:10"]["instructions"] == {"integer": 1}
    inlined = lines["helper.h:7 (add), inlined at kernel.cu:11"]
    assert inlined["instructions"] == {"integer": 2}
    assert lines["kernel.cu:12"]["global_sectors"] == 4
    assert sum(line["warp_instructions"] for line in lines.values()) == counts["warp_instructions"]


def test_nothing_is_counted_unless_asked_for() -> None:
    library().vgpu_test_count()
    library().vgpu_test_counts()
    run_ptx("", [], [])
    assert json.loads(library().vgpu_test_counts()) == []


def test_bulk_copies() -> None:
    """Bytes from global to shared memory: 32 of one sector, and 16 in the middle of two."""
    copy = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
    body = f"""
    .shared .align 8 .b8 bar[8]; .shared .align 16 .b8 to[64];
    mbarrier.init.shared::cta.b64 [bar], 1; fence.proxy.async.shared::cta;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 64;
    mov.u32 %r0, to; mov.u32 %r1, bar;
    {copy} [%r0], [%in0], 32, [%r1]; {copy} [%r0+32], [%in0+48], 32, [%r1];
    wait: mbarrier.try_wait.parity.shared::cta.b64 %p0, [bar], 0; @!%p0 bra wait;
    """
    counts = count(body, block=1)
    assert counts["instructions"]["async_copy"] == 2
    assert (counts["global_bytes"], counts["shared_bytes"]) == (64, 64)
    assert (counts["global_sectors"], counts["global_sectors_ideal"]) == (3, 2)
    assert counts["dram_read_bytes"] == 3 * 32
