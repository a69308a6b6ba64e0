"""Conversions: PTX ISA, "Data Movement and Conversion Instructions: cvt"."""

from __future__ import annotations

import pytest
from ptx import INF, NAN, Form, evaluate

EPS = 2.0**-23
MAX = (2 - EPS) * 2.0**127
MIN32, MAX32 = -(2**31), 2**31 - 1

INTEGERS = [
    # narrower: the lower bits; wider: extended with zeros or with the sign of the source's type
    Form("cvt.s64.s32", "s64 s32", [(-1, -1), (MAX32, MAX32)]),
    Form("cvt.u64.s32", "u64 s32", [(-1, 2**64 - 1)]),
    Form("cvt.u64.u32", "u64 u32", [(0xFFFFFFFF, 0xFFFFFFFF)]),
    Form("cvt.s64.u32", "s64 u32", [(0xFFFFFFFF, 0xFFFFFFFF)]),
    Form("cvt.u32.u64", "u32 u64", [(0x123456789ABCDEF0, 0x9ABCDEF0)]),
    Form("cvt.s32.s64", "s32 s64", [(-1, -1), (1 << 40, 0)]),
    Form("cvt.u32.u16", "u32 u16", [(0xFFFF, 0xFFFF)]),
    Form("cvt.s32.s16", "s32 s16", [(0x8000, -0x8000), (0x7FFF, 0x7FFF)]),
    Form("cvt.u32.s16", "u32 s16", [(0xFFFF, 0xFFFFFFFF)]),
    Form("cvt.u16.u32", "u16 u32", [(0x12345678, 0x5678)]),
    Form("cvt.s16.s32", "s16 s32", [(0x18000, -0x8000)]),
    Form("cvt.u64.u16", "u64 u16", [(0xFFFF, 0xFFFF)]),
    Form("cvt.s32.s8", "s32 b16", [(0x80, -128), (0x17F, 127), (0xFF, -1)]),
    Form("cvt.u32.u8", "u32 b16", [(0x1FF, 0xFF)]),
    # a result that is narrower than its register is extended to it
    Form("cvt.s8.s32", "s32 s32", [(200, -56), (0x17F, 127)]),
    Form("cvt.u8.u32", "u32 u32", [(0x1FF, 0xFF)]),
    Form("cvt.s16.s32", "s32 s32", [(0x18000, -0x8000)]),
    Form("cvt.u16.s32", "u32 s32", [(-1, 0xFFFF)]),
    # .sat: to the limits of the destination
    Form("cvt.sat.u8.s32", "u32 s32", [(-5, 0), (300, 255), (7, 7)]),
    Form("cvt.sat.s8.s32", "s32 s32", [(-500, -128), (200, 127), (-7, -7)]),
    Form("cvt.sat.s32.u32", "s32 u32", [(0xFFFFFFFF, MAX32), (5, 5)]),
    Form("cvt.sat.u32.s32", "u32 s32", [(-1, 0), (5, 5)]),
    Form("cvt.sat.s16.s64", "s16 s64", [(2**40, 0x7FFF), (-(2**40), -0x8000)]),
]

TO_INTEGER = [
    Form("cvt.rni.s32.f32", "s32 f32", [(0.5, 0), (1.5, 2), (2.5, 2), (-1.5, -2), (-0.5, 0)]),
    Form(
        "cvt.rzi.s32.f32",
        "s32 f32",
        [(1.75, 1), (-1.75, -1), (2.0**31, MAX32), (-(2.0**40), MIN32), (INF, MAX32), (NAN, 0)],
    ),
    Form("cvt.rmi.s32.f32", "s32 f32", [(1.75, 1), (-1.25, -2), (-INF, MIN32)]),
    Form("cvt.rpi.s32.f32", "s32 f32", [(1.25, 2), (-1.75, -1)]),
    Form("cvt.rzi.u32.f32", "u32 f32", [(-1.0, 0), (1.75, 1), (2.0**32, 2**32 - 1), (NAN, 0)]),
    Form("cvt.rni.u32.f32", "u32 f32", [(3e9, 3000000000), (1.5, 2)]),
    Form("cvt.rzi.s64.f32", "s64 f32", [(2.0**60, 2**60), (2.0**63, 2**63 - 1), (-1.5, -1)]),
    Form("cvt.rzi.u64.f32", "u64 f32", [(2.0**63, 2**63), (2.0**64, 2**64 - 1), (-1.0, 0)]),
    Form("cvt.rzi.s32.f64", "s32 f64", [(-1.75, -1), (2.0**31 - 0.5, MAX32), (2.0**40, MAX32)]),
    Form("cvt.rni.s64.f64", "s64 f64", [(2.5, 2), (2.0**52 + 1, 2**52 + 1)]),
    Form("cvt.rzi.u16.f32", "u16 f32", [(70000.0, 0xFFFF), (-1.0, 0), (3.9 * 0 + 3.5, 3)]),
    Form("cvt.rzi.s16.f32", "s16 f32", [(40000.0, 0x7FFF), (-40000.0, -0x8000)]),
    Form("cvt.rzi.u8.f32", "u32 f32", [(300.0, 255), (-1.0, 0), (7.5, 7)]),
    Form("cvt.rzi.s8.f32", "s32 f32", [(300.0, 127), (-300.0, -128)]),
    # float to float of the same type: to a number without a fraction
    Form(
        "cvt.rni.f32.f32", "f32 f32", [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, -0.0), (INF, INF)]
    ),
    Form("cvt.rzi.f32.f32", "f32 f32", [(1.75, 1.0), (-1.75, -1.0), (-0.5, -0.0), (NAN, NAN)]),
    Form("cvt.rmi.f32.f32", "f32 f32", [(-0.5, -1.0), (1.75, 1.0)]),
    Form("cvt.rpi.f32.f32", "f32 f32", [(-0.5, -0.0), (1.25, 2.0)]),
    Form(
        "cvt.sat.f32.f32", "f32 f32", [(-1.0, 0.0), (0.5, 0.5), (2.0, 1.0), (NAN, 0.0), (INF, 1.0)]
    ),
    Form("cvt.ftz.f32.f32", "f32 f32", [(2.0**-149, 0.0), (-(2.0**-149), -0.0), (1.0, 1.0)]),
]

# 2^24 + 1 lies between two floats, half way; so does 2^24 + 3.
FROM_INTEGER = [
    Form("cvt.rn.f32.s32", "f32 s32", [(2**24 + 1, 2.0**24), (2**24 + 3, 2.0**24 + 4), (-1, -1.0)]),
    Form("cvt.rz.f32.s32", "f32 s32", [(2**24 + 3, 2.0**24 + 2), (-(2**24) - 3, -(2.0**24) - 2)]),
    Form("cvt.rm.f32.s32", "f32 s32", [(2**24 + 1, 2.0**24), (-(2**24) - 1, -(2.0**24) - 2)]),
    Form("cvt.rp.f32.s32", "f32 s32", [(2**24 + 1, 2.0**24 + 2), (-(2**24) - 1, -(2.0**24))]),
    Form("cvt.rn.f32.u32", "f32 u32", [(0xFFFFFFFF, 2.0**32), (7, 7.0)]),
    Form("cvt.rn.f32.u16", "f32 u16", [(0xFFFF, 65535.0)]),
    Form("cvt.rn.f32.s16", "f32 s16", [(-5, -5.0)]),
    Form("cvt.rn.f32.u8", "f32 b16", [(0x1FF, 255.0)]),
    # just above half way, by less than double precision has room for
    Form("cvt.rn.f32.s64", "f32 s64", [(2**60 + 2**36 + 1, 2.0**60 + 2.0**37), (-1, -1.0)]),
    Form("cvt.rn.f32.u64", "f32 u64", [(2**64 - 1, 2.0**64), (2**60 + 2**36, 2.0**60)]),
    Form("cvt.rn.f64.s32", "f64 s32", [(MIN32, -(2.0**31))]),
    Form("cvt.rn.f64.u64", "f64 u64", [(2**53 + 1, 2.0**53), (2**64 - 1, 2.0**64)]),
    Form("cvt.rz.f64.u64", "f64 u64", [(2**53 + 3, 2.0**53 + 2)]),
]

FLOATS = [
    Form("cvt.f64.f32", "f64 f32", [(1 + EPS, 1 + EPS), (-INF, -INF), (2.0**-149, 2.0**-149)]),
    Form("cvt.rn.f32.f64", "f32 f64", [(1 + EPS / 2, 1.0), (1 + EPS / 2 + 2.0**-50, 1 + EPS)]),
    Form("cvt.rn.f32.f64", "f32 f64", [(2.0**128, INF), (2.0**-150, 0.0), (NAN, NAN)]),
    Form("cvt.rz.f32.f64", "f32 f64", [(1 + EPS / 2 + 2.0**-50, 1.0), (2.0**128, MAX)]),
    Form("cvt.rm.f32.f64", "f32 f64", [(-1 - 2.0**-50, -1 - EPS), (1 + 2.0**-50, 1.0)]),
    Form("cvt.rp.f32.f64", "f32 f64", [(1 + 2.0**-50, 1 + EPS), (2.0**-1000, 2.0**-149)]),
    Form(
        "cvt.rn.f16.f32",
        "f16 f32",
        [(1.0, 0x3C00), (65520.0, 0x7C00), (2.0**-24, 1), (-0.0, 0x8000)],
    ),
    Form("cvt.rn.f16.f32", "f16 f32", [(1 + 2.0**-11, 0x3C00), (1 + 3 * 2.0**-11, 0x3C02)]),
    Form("cvt.rz.f16.f32", "f16 f32", [(1 + 3 * 2.0**-11, 0x3C01), (1e6, 0x7BFF)]),
    Form("cvt.f32.f16", "f32 f16", [(0x3C00, 1.0), (1, 2.0**-24), (0xFC00, -INF), (0x7E00, NAN)]),
    # bfloat16: half way between neighbours to the even one
    Form("cvt.rn.bf16.f32", "bf16 f32", [(1 + 2.0**-8, 0x3F80), (1 + 3 * 2.0**-8, 0x3F82)]),
    Form(
        "cvt.rn.bf16.f32", "bf16 f32", [(MAX, 0x7F80), (-INF, 0xFF80), (NAN, NAN), (2.0**-149, 0)]
    ),
    Form("cvt.rz.bf16.f32", "bf16 f32", [(1 + 3 * 2.0**-8, 0x3F81), (MAX, 0x7F7F)]),
    Form(
        "cvt.f32.bf16", "f32 bf16", [(0x3F80, 1.0), (0xFF80, -INF), (1, 2.0**-133), (0x7FC0, NAN)]
    ),
    # the first operand becomes the upper half
    Form(
        "cvt.rn.bf16x2.f32",
        "b32 f32 f32",
        [
            (1.0, 2.0, 0x3F804000),
            (1 + 2.0**-8, 1 + 3 * 2.0**-8, 0x3F803F82),
            (INF, -0.0, 0x7F808000),
            (NAN, 1.0, 0x7FFF3F80),
            (MAX, 2.0**-133, 0x7F800001),
        ],
    ),
    Form("cvt.rz.bf16x2.f32", "b32 f32 f32", [(1 + 3 * 2.0**-8, MAX, 0x3F817F7F)]),
    Form("cvt.rn.relu.bf16x2.f32", "b32 f32 f32", [(-1.0, 2.0, 0x00004000)]),
    # tf32 keeps 10 bits of the fraction; half way away from zero
    Form("cvt.rna.tf32.f32", "b32 f32", [(1 + 2.0**-11, 0x3F802000), (1.0, 0x3F800000)]),
    Form(
        "cvt.rna.tf32.f32", "b32 f32", [(-(1 + 2.0**-11), 0xBF802000), (1 + 2.0**-12, 0x3F800000)]
    ),
]


@pytest.mark.parametrize("form", [*INTEGERS, *TO_INTEGER, *FROM_INTEGER, *FLOATS], ids=str)
def test_form(form: Form) -> None:
    assert evaluate(form) == []
