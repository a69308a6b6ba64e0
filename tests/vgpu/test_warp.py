"""What the lanes of a warp do together: PTX ISA, "shfl.sync", "vote.sync", "activemask", "bar"."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import PtxError, run_ptx

STORE = "mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; st.global.u32 [%l1], %r0;"
ALL = 0xFFFFFFFF
LANES = np.arange(32)


def lanes(body: str, block: int = 32) -> list[int]:
    """%r0 of every lane."""
    [out] = run_ptx(body + STORE, [], [np.zeros(block, np.uint32)], block=block)
    return [int(v) for v in out]


def width(n: int) -> int:
    """The segment mask that makes groups of n lanes, in bits 8 to 12 of shfl's c."""
    return (32 - n) << 8


@pytest.mark.parametrize(
    ("mode", "b", "c", "expected"),
    [
        # up takes the smallest lane of the group as its clamp, 0; the others the largest, 31
        ("up", 1, 0, [0, *range(31)]),
        ("up", 3, width(8), [8 * (n // 8) + (n % 8 - 3 if n % 8 >= 3 else n % 8) for n in LANES]),
        ("down", 1, 31, [*range(1, 32), 31]),
        ("down", 5, width(16) | 31, [n + 5 if n % 16 < 11 else n for n in LANES]),
        ("bfly", 1, 31, [n ^ 1 for n in LANES]),
        ("bfly", 16, 31, [n ^ 16 for n in LANES]),
        ("bfly", 4, width(4) | 31, [n - 4 if n & 4 else n for n in LANES]),
        ("idx", 5, 31, [5] * 32),
        ("idx", 2, width(8) | 31, [8 * (n // 8) + 2 for n in LANES]),
        ("idx", 11, width(8) | 31, [8 * (n // 8) + 3 for n in LANES]),
        # a clamp below: lanes beyond it keep their own
        ("down", 1, 15, [n + 1 if n + 1 <= 15 else n for n in LANES]),
        ("idx", 20, 15, list(LANES)),
        ("up", 33, 0, [0, *range(31)]),
    ],
)
def test_shfl(mode: str, b: int, c: int, expected: list[int]) -> None:
    assert lanes(f"shfl.sync.{mode}.b32 %r0, %t, {b}, {c}, -1;") == [int(v) for v in expected]


@pytest.mark.parametrize(
    ("mode", "b", "c", "inside"),
    [
        ("up", 4, 0, [n >= 4 for n in LANES]),
        ("down", 4, 31, [n < 28 for n in LANES]),
        ("bfly", 4, width(4) | 31, [bool(n & 4) for n in LANES]),
        ("idx", 20, 15, [False] * 32),
        ("idx", 3, width(8) | 31, [True] * 32),
    ],
)
def test_shfl_says_whether_the_lane_was_in_range(
    mode: str, b: int, c: int, inside: list[bool]
) -> None:
    got = lanes(f"shfl.sync.{mode}.b32 %r1|%p1, %t, {b}, {c}, -1; selp.u32 %r0, 1, 0, %p1;")
    assert got == [int(v) for v in inside]


def test_shfl_from_a_register_of_each_lane() -> None:
    got = lanes("sub.u32 %r1, 31, %t; shfl.sync.idx.b32 %r0, %t, %r1, 31, -1;")
    assert got == list(range(31, -1, -1))


def test_shfl_from_a_lane_that_does_not_take_part() -> None:
    body = "setp.lt.u32 %p0, %t, 16; @%p0 shfl.sync.idx.b32 %r0, %t, 20, 31, 0xFFFF;"
    with pytest.raises(PtxError, match=r"shfl\.sync from lane 20, which does not take part"):
        lanes(body)


def test_lanes_that_have_parted_meet_for_shfl() -> None:
    """Both halves get there by ways of their own."""
    body = """
    setp.lt.u32 %p0, %t, 16; mov.u32 %r1, %t; @%p0 bra there; add.u32 %r1, %r1, 100;
    there: shfl.sync.bfly.b32 %r0, %r1, 16, 31, -1;
    """
    assert lanes(body) == [*range(116, 132), *range(16)]


@pytest.mark.parametrize(
    ("mode", "test", "expected"),
    [
        ("ballot.b32", "lt.u32 %p1, %t, 5", 0x1F),
        ("any.pred", "eq.u32 %p1, %t, 5", 1),
        ("any.pred", "gt.u32 %p1, %t, 40", 0),
        ("all.pred", "lt.u32 %p1, %t, 32", 1),
        ("all.pred", "lt.u32 %p1, %t, 31", 0),
        ("uni.pred", "lt.u32 %p1, %t, 31", 0),
        ("uni.pred", "lt.u32 %p1, %t, 32", 1),
        ("uni.pred", "gt.u32 %p1, %t, 32", 1),
    ],
)
def test_vote(mode: str, test: str, expected: int) -> None:
    if mode == "ballot.b32":
        body = f"setp.{test}; vote.sync.{mode} %r0, %p1, -1;"
    else:
        body = f"setp.{test}; vote.sync.{mode} %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"
    assert lanes(body) == [expected] * 32


def test_vote_of_some_lanes() -> None:
    """Each half votes for itself, though the other goes the same way."""
    body = """
    setp.lt.u32 %p0, %t, 16; selp.b32 %r1, 0xFFFF, 0xFFFF0000, %p0;
    and.b32 %r2, %t, 1; setp.ne.u32 %p1, %r2, 0; vote.sync.ballot.b32 %r0, %p1, %r1;
    """
    assert lanes(body) == [0xAAAA] * 16 + [0xAAAA0000] * 16


def test_lanes_that_have_parted_meet_for_vote() -> None:
    body = """
    setp.lt.u32 %p0, %t, 16; mov.pred %p1, -1; @%p0 bra there; setp.eq.u32 %p1, %t, 20;
    there: vote.sync.ballot.b32 %r0, %p1, -1;
    """
    assert lanes(body) == [0x0010FFFF] * 32


def test_activemask() -> None:
    body = "mov.u32 %r0, 0; setp.lt.u32 %p0, %t, 8; @%p0 activemask.b32 %r0;"
    assert lanes(body) == [0xFF] * 8 + [0] * 24


def test_lane_masks() -> None:
    """lt, le, eq, ge and gt: bits below, up to, at, from and above the lane."""
    for name, expected in {
        "lt": [(1 << n) - 1 for n in range(32)],
        "le": [(2 << n) - 1 for n in range(32)],
        "eq": [1 << n for n in range(32)],
        "ge": [ALL & ~((1 << n) - 1) for n in range(32)],
        "gt": [ALL & ~((2 << n) - 1) for n in range(32)],
    }.items():
        assert lanes(f"mov.u32 %r0, %lanemask_{name};") == expected, name


def test_special_registers() -> None:
    """Of a block of 2 x 3 x 4 threads in a grid, by their number."""
    body = """
    mov.u32 %r0, %laneid; mov.u32 %r1, %warpid; mad.lo.u32 %r0, %r1, 100, %r0;
    mov.u32 %r2, %ntid.x; mad.lo.u32 %r0, %r2, 10000, %r0;
    """
    assert lanes(body, block=40) == [400000 + n for n in range(32)] + [400100 + n for n in range(8)]


def test_barriers_by_number() -> None:
    """The first warp writes what the second reads; the third is at a barrier of its own."""
    body = """
    .shared .align 4 .b8 word[4];
    mov.u32 %r0, 0; setp.ge.u32 %p0, %t, 64; @%p0 bra third;
    setp.ne.u32 %p1, %t, 0; @%p1 bra wait; st.shared.u32 [word], 77;
    wait: bar.sync 1, 64; ld.shared.u32 %r0, [word]; bra.uni done;
    third: bar.sync 2, 32;
    done:
    """
    assert lanes(body, block=96) == [77] * 64 + [0] * 32


def test_bar_warp_sync() -> None:
    """Lanes of a warp that have parted see what the others wrote before it."""
    body = """
    .shared .align 4 .b8 words[128];
    shl.b32 %r1, %t, 2; mov.u32 %r2, words; add.u32 %r1, %r1, %r2; setp.lt.u32 %p0, %t, 16;
    @%p0 bra low; add.u32 %r3, %t, 100; st.shared.u32 [%r1], %r3; bra.uni meet;
    low: st.shared.u32 [%r1], %t;
    meet: bar.warp.sync -1; xor.b32 %r4, %t, 31; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r2;
    ld.shared.u32 %r0, [%r4];
    """
    assert lanes(body) == [*range(131, 115, -1), *range(15, -1, -1)]


def test_setmaxnreg_moves_registers() -> None:
    """Nothing to see of it; an impossible number of registers is refused."""
    assert lanes("setmaxnreg.dec.sync.aligned.u32 24; mov.u32 %r0, 1;", block=128)[:2] == [1, 1]
    assert lanes("setmaxnreg.inc.sync.aligned.u32 240; mov.u32 %r0, 1;", block=128)[:2] == [1, 1]
    with pytest.raises(PtxError, match="no multiple of 8 from 24 to 256"):
        lanes("setmaxnreg.inc.sync.aligned.u32 20;")


def test_bar_arrive_does_not_wait() -> None:
    """The first warp arrives and goes on; the second waits for it."""
    body = """
    .shared .align 4 .b8 word[4];
    mov.u32 %r0, 0; setp.ge.u32 %p0, %t, 32; @%p0 bra second;
    st.shared.u32 [word], 5; bar.arrive 1, 64; bra.uni done;
    second: bar.sync 1, 64; ld.shared.u32 %r0, [word];
    done:
    """
    assert lanes(body, block=64) == [0] * 32 + [5] * 32


def test_a_barrier_that_not_all_reach() -> None:
    with pytest.raises(PtxError, match="deadlock"):
        lanes("setp.lt.u32 %p0, %t, 32; @%p0 bar.sync 1, 64; mov.u32 %r0, 0;", block=64)
