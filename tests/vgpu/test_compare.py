"""Comparisons, selections and predicates: PTX ISA, "Comparison and Selection Instructions" and
"Predicated Execution"."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import INF, NAN, Form, evaluate, run_ptx

PAIRS = [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (NAN, 1.0), (1.0, NAN), (NAN, NAN), (-0.0, 0.0)]
# Of each comparison, whether it holds for less, greater, equal and unordered.
FLOAT = {
    "eq": "0010",
    "ne": "1100",
    "lt": "1000",
    "le": "1010",
    "gt": "0100",
    "ge": "0110",
    "equ": "0011",
    "neu": "1101",
    "ltu": "1001",
    "leu": "1011",
    "gtu": "0101",
    "geu": "0111",
    "num": "1110",
    "nan": "0001",
}


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("comparison", FLOAT)
def test_setp_of_floats(comparison: str, kind: str) -> None:
    less, greater, equal, unordered = (int(c) for c in FLOAT[comparison])
    expected = [less, greater, equal, unordered, unordered, unordered, equal]
    cases = [(*pair, e) for pair, e in zip(PAIRS, expected, strict=True)]
    cases += [(-INF, INF, less), (INF, INF, equal), (2.0**-126, 2.0**-127, greater)]
    assert evaluate(Form(f"setp.{comparison}.{kind}", f"pred {kind} {kind}", cases)) == []


INTEGER = [
    Form("setp.eq.s32", "pred s32 s32", [(1, 1, 1), (1, 2, 0)]),
    Form("setp.ne.b32", "pred b32 b32", [(1, 1, 0), (1, 2, 1)]),
    Form("setp.lt.s32", "pred s32 s32", [(-1, 1, 1), (1, -1, 0), (1, 1, 0)]),
    Form("setp.ne.s32", "pred s32 s32", [(1, 1, 0), (-1, 1, 1)]),
    Form("setp.lt.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 0), (1, 0xFFFFFFFF, 1)]),
    Form("setp.le.s32", "pred s32 s32", [(-1, 1, 1), (1, 1, 1), (1, -1, 0)]),
    Form("setp.le.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 0), (1, 1, 1)]),
    Form("setp.gt.s32", "pred s32 s32", [(-1, 1, 0), (1, -1, 1)]),
    Form("setp.gt.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 1), (1, 1, 0)]),
    Form("setp.ge.s32", "pred s32 s32", [(-1, 1, 0), (1, 1, 1)]),
    Form("setp.ge.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 1), (1, 2, 0)]),
    Form("setp.lo.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 0), (1, 0xFFFFFFFF, 1), (1, 1, 0)]),
    Form("setp.ls.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 0), (1, 1, 1)]),
    Form("setp.hi.u32", "pred u32 u32", [(0xFFFFFFFF, 1, 1), (1, 1, 0)]),
    Form("setp.hs.u32", "pred u32 u32", [(0, 1, 0), (1, 1, 1)]),
    Form("setp.eq.s16", "pred s16 s16", [(-1, 0xFFFF, 1), (1, 2, 0)]),
    Form("setp.lt.s16", "pred s16 s16", [(-1, 1, 1)]),
    Form("setp.lt.u16", "pred u16 u16", [(0xFFFF, 1, 0)]),
    Form("setp.ne.s16", "pred s16 s16", [(1, 2, 1), (2, 2, 0)]),
    Form("setp.eq.s64", "pred s64 s64", [(1 << 32, 0, 0), (1 << 40, 1 << 40, 1)]),
    Form("setp.ne.s64", "pred s64 s64", [(1 << 32, 0, 1)]),
    Form("setp.lt.s64", "pred s64 s64", [(-1, 1, 1)]),
    Form("setp.lt.u64", "pred u64 u64", [(2**64 - 1, 1, 0)]),
]

SELECT = [
    Form("selp.b32", "b32 b32 b32 pred", [(1, 2, 1, 1), (1, 2, 0, 2)]),
    Form("selp.b64", "b64 b64 b64 pred", [(1 << 40, 2, 1, 1 << 40), (1, 2 << 40, 0, 2 << 40)]),
    Form("selp.u16", "u16 u16 u16 pred", [(1, 2, 1, 1), (1, 2, 0, 2)]),
    Form("selp.f32", "f32 f32 f32 pred", [(1.5, 2.5, 1, 1.5), (1.5, NAN, 0, NAN)]),
]


@pytest.mark.parametrize("form", [*INTEGER, *SELECT], ids=str)
def test_form(form: Form) -> None:
    assert evaluate(form) == []


@pytest.mark.parametrize(
    ("combine", "expected", "complement"),
    [("and", "0001", "0100"), ("or", "0111", "1101"), ("xor", "0110", "1001")],
)
def test_setp_combines_with_a_predicate(combine: str, expected: str, complement: str) -> None:
    """setp.CMP.BOOL p|q, a, b, c: p is (a CMP b) BOOL c, q is !(a CMP b) BOOL c."""
    # lanes 0 to 3: (a < b, c) is (0, 0), (0, 1), (1, 0), (1, 1)
    body = f"""
    and.b32 %r0, %t, 1; setp.ne.u32 %p2, %r0, 0;
    shr.u32 %r1, %t, 1; and.b32 %r1, %r1, 1;
    setp.lt.{combine}.s32 %p0|%p1, 0, %r1, %p2;
    selp.u32 %r2, 1, 0, %p0; selp.u32 %r3, 1, 0, %p1;
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; add.s64 %l2, %l0, %out1;
    st.global.u32 [%l1], %r2; st.global.u32 [%l2], %r3;
    """
    zeros = np.zeros(4, np.uint32)
    p, q = run_ptx(body, [], [zeros, zeros], block=4)
    assert "".join(map(str, p)) == expected
    assert "".join(map(str, q)) == complement


def test_setp_combines_with_a_negated_predicate() -> None:
    body = """
    and.b32 %r0, %t, 1; setp.ne.u32 %p2, %r0, 0;
    setp.ge.and.u32 %p0, %t, 2, !%p2;
    selp.u32 %r2, 1, 0, %p0;
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; st.global.u32 [%l1], %r2;
    """
    [p] = run_ptx(body, [], [np.zeros(4, np.uint32)], block=4)
    assert p.tolist() == [0, 0, 1, 0]


def test_guards() -> None:
    """@p executes where p holds, @!p where it does not; the other lanes keep what they have."""
    body = """
    setp.lt.u32 %p0, %t, 3;
    mov.u32 %r0, 7;
    @%p0 mov.u32 %r0, 8;
    @!%p0 add.u32 %r0, %r0, 2;
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0;
    @%p0 st.global.u32 [%l1], %r0;
    @!%p0 st.global.u32 [%l1], %r0;
    """
    [got] = run_ptx(body, [], [np.zeros(6, np.uint32)], block=6)
    assert got.tolist() == [8, 8, 8, 9, 9, 9]


def test_lanes_that_part_meet_again() -> None:
    """Each lane loops as often as its number says."""
    body = """
    mov.u32 %r0, 0; mov.u32 %r1, 0;
    again: setp.ge.u32 %p0, %r0, %t; @%p0 bra done;
    add.u32 %r1, %r1, %r0; add.u32 %r0, %r0, 1; bra.uni again;
    done: mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %out0; st.global.u32 [%l1], %r1;
    """
    [got] = run_ptx(body, [], [np.zeros(32, np.uint32)])
    assert got.tolist() == [n * (n - 1) // 2 for n in range(32)]
