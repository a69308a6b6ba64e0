"""Integer arithmetic, logic and shifts. Expected values are worked out from the PTX ISA, chapter
"Instructions": sections "Integer Arithmetic Instructions" and "Logic and Shift Instructions"."""

from __future__ import annotations

import pytest
from ptx import Form, evaluate

MIN32, MAX32 = -(2**31), 2**31 - 1
MIN64, MAX64 = -(2**63), 2**63 - 1

ARITHMETIC = [
    # add, sub: modulo 2^n, no saturation unless .sat, which is for s32 alone
    Form("add.s32", "s32 s32 s32", [(1, 2, 3), (MAX32, 1, MIN32), (-1, -1, -2)]),
    Form("add.sat.s32", "s32 s32 s32", [(MAX32, 1, MAX32), (MIN32, -1, MIN32), (5, -7, -2)]),
    Form("add.u32", "u32 u32 u32", [(0xFFFFFFFF, 2, 1)]),
    Form("add.s16", "s16 s16 s16", [(0x7FFF, 1, -0x8000), (-3, 5, 2)]),
    Form("add.s64", "s64 s64 s64", [(MAX64, 1, MIN64), (0xFFFFFFFF, 1, 0x100000000)]),
    Form("sub.s32", "s32 s32 s32", [(1, 2, -1), (MIN32, 1, MAX32)]),
    Form("sub.sat.s32", "s32 s32 s32", [(MIN32, 1, MIN32), (MAX32, -1, MAX32), (3, 5, -2)]),
    Form("sub.s16", "s16 s16 s16", [(-0x8000, 1, 0x7FFF)]),
    Form("sub.u64", "u64 u64 u64", [(0, 1, 2**64 - 1)]),
    # mul: .lo the lower half of the product, .hi the upper, .wide all of it
    Form("mul.lo.s32", "s32 s32 s32", [(0x10000, 0x10000, 0), (-3, 7, -21), (MIN32, -1, MIN32)]),
    Form("mul.lo.s16", "s16 s16 s16", [(300, 300, 90000 - 65536), (-2, 5, -10)]),
    Form("mul.lo.s64", "s64 s64 s64", [(2**32, 2**32, 0), (-3, 2**40, -3 * 2**40)]),
    Form("mul.hi.u32", "u32 u32 u32", [(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE), (3, 5, 0)]),
    Form("mul.hi.s32", "s32 s32 s32", [(-1, 1, -1), (-1, -1, 0), (MIN32, MIN32, 0x40000000)]),
    Form("mul.hi.s16", "s16 s16 s16", [(-0x8000, 0x7FFF, -0x4000), (-1, 1, -1)]),
    Form("mul.hi.u16", "u16 u16 u16", [(0xFFFF, 0xFFFF, 0xFFFE)]),
    Form("mul.hi.u64", "u64 u64 u64", [(2**64 - 1, 2**64 - 1, 2**64 - 2), (2**33, 2**33, 4)]),
    Form("mul.hi.s64", "s64 s64 s64", [(-1, 1, -1), (MIN64, 2, -1), (MIN64, MIN64, 2**62)]),
    Form("mul.wide.s32", "s64 s32 s32", [(-1, 1, -1), (MIN32, MIN32, 2**62), (-2, 3, -6)]),
    Form("mul.wide.u32", "u64 u32 u32", [(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE00000001)]),
    Form("mul.wide.s16", "s32 s16 s16", [(-0x8000, -0x8000, 0x40000000), (-1, 2, -2)]),
    Form("mul.wide.u16", "u32 u16 u16", [(0xFFFF, 0xFFFF, 0xFFFE0001)]),
    # mad: the same, plus c, which is as wide as the result
    Form("mad.lo.s32", "s32 s32 s32 s32", [(3, 5, -20, -5), (0x10000, 0x10000, 7, 7)]),
    Form("mad.lo.u64", "u64 u64 u64 u64", [(2**32, 2**32, 9, 9), (3, 4, 5, 17)]),
    Form("mad.lo.s16", "s16 s16 s16 s16", [(300, 300, 1, 90001 - 65536)]),
    Form("mad.hi.u32", "u32 u32 u32 u32", [(0xFFFFFFFF, 0xFFFFFFFF, 3, 1), (2, 3, 7, 7)]),
    Form("mad.hi.s32", "s32 s32 s32 s32", [(-1, 1, 10, 9), (MIN32, MIN32, 1, 0x40000001)]),
    Form(
        "mad.hi.sat.s32",
        "s32 s32 s32 s32",
        [(MIN32, MIN32, MAX32, MAX32), (MIN32, MAX32, MIN32, MIN32), (-1, 1, 10, 9)],
    ),
    Form("mad.wide.s32", "s64 s32 s32 s64", [(-2, 3, 10, 4), (MIN32, MIN32, -1, 2**62 - 1)]),
    Form("mad.wide.u32", "u64 u32 u32 u64", [(0xFFFFFFFF, 2, 2, 2**33)]),
    Form("mad.wide.u16", "u32 u16 u16 u32", [(0xFFFF, 0xFFFF, 1, 0xFFFE0002)]),
    # div rounds toward zero; rem has the sign of the dividend
    Form("div.s32", "s32 s32 s32", [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3)]),
    Form("div.u32", "u32 u32 u32", [(0xFFFFFFFF, 2, 0x7FFFFFFF), (1, 2, 0)]),
    Form("div.s64", "s64 s64 s64", [(-(2**40), 3, -366503875925)]),
    Form("div.u16", "u16 u16 u16", [(0xFFFF, 0x100, 0xFF)]),
    Form("rem.s32", "s32 s32 s32", [(7, 2, 1), (-7, 2, -1), (7, -2, 1), (-7, -2, -1)]),
    Form("rem.u32", "u32 u32 u32", [(0xFFFFFFFF, 10, 5)]),
    Form("rem.u64", "u64 u64 u64", [(2**64 - 1, 10, 5)]),
    # min, max: signed and unsigned order differ
    Form("min.s32", "s32 s32 s32", [(-1, 1, -1), (MIN32, MAX32, MIN32)]),
    Form("min.u32", "u32 u32 u32", [(0xFFFFFFFF, 1, 1)]),
    Form("max.s32", "s32 s32 s32", [(-1, 1, 1)]),
    Form("max.u32", "u32 u32 u32", [(0xFFFFFFFF, 1, 0xFFFFFFFF)]),
    Form("min.s16", "s16 s16 s16", [(-1, 1, -1)]),
    Form("max.u16", "u16 u16 u16", [(0xFFFF, 1, 0xFFFF)]),
    Form("max.s64", "s64 s64 s64", [(-1, 1, 1), (2**40, 2**33, 2**40)]),
    Form("min.u64", "u64 u64 u64", [(2**64 - 1, 1, 1)]),
    # neg, abs: the most negative number has no counterpart
    Form("neg.s32", "s32 s32", [(5, -5), (-5, 5), (MIN32, MIN32), (0, 0)]),
    Form("neg.s16", "s16 s16", [(-0x8000, -0x8000), (3, -3)]),
    Form("neg.s64", "s64 s64", [(2**40, -(2**40))]),
    Form("abs.s32", "s32 s32", [(-5, 5), (5, 5), (MIN32, MIN32)]),
    Form("abs.s64", "s64 s64", [(-(2**40), 2**40)]),
]

LOGIC = [
    Form("and.b32", "b32 b32 b32", [(0xF0F0F0F0, 0xFF00FF00, 0xF000F000)]),
    Form("and.b16", "b16 b16 b16", [(0xF0F0, 0xFF00, 0xF000)]),
    Form("and.b64", "b64 b64 b64", [(2**64 - 1, 1 << 40, 1 << 40)]),
    Form("or.b32", "b32 b32 b32", [(0xF0F0F0F0, 0x0F000000, 0xFFF0F0F0)]),
    Form("or.b64", "b64 b64 b64", [(1 << 63, 1, (1 << 63) + 1)]),
    Form("xor.b32", "b32 b32 b32", [(0xFFFFFFFF, 0x12345678, 0xEDCBA987)]),
    Form("xor.b64", "b64 b64 b64", [(2**64 - 1, 1, 2**64 - 2)]),
    Form("not.b32", "b32 b32", [(0, 0xFFFFFFFF), (0x12345678, 0xEDCBA987)]),
    Form("not.b64", "b64 b64", [(1, 2**64 - 2)]),
    Form("not.b16", "b16 b16", [(0x00FF, 0xFF00)]),
    Form("and.pred", "pred pred pred", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 0)]),
    Form("or.pred", "pred pred pred", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 0)]),
    Form("xor.pred", "pred pred pred", [(1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 0)]),
    Form("not.pred", "pred pred", [(1, 0), (0, 1)]),
    Form("mov.pred", "pred pred", [(1, 1), (0, 0)]),
    # shl, shr: amounts beyond the width are clamped to it; shr of a signed type fills with the sign
    Form(
        "shl.b32",
        "b32 b32 u32",
        [(1, 0, 1), (1, 31, 0x80000000), (1, 32, 0), (1, 33, 0), (1, 0xFFFFFFFF, 0)],
    ),
    Form("shl.b16", "b16 b16 u32", [(1, 15, 0x8000), (3, 15, 0x8000), (1, 16, 0), (1, 256, 0)]),
    Form("shl.b64", "b64 b64 u32", [(1, 63, 1 << 63), (1, 32, 1 << 32), (1, 64, 0)]),
    Form("shr.u32", "u32 u32 u32", [(0x80000000, 31, 1), (0x80000000, 32, 0), (0x80000000, 99, 0)]),
    Form(
        "shr.s32",
        "s32 s32 u32",
        [(MIN32, 31, -1), (MIN32, 32, -1), (MIN32, 1000, -1), (MAX32, 32, 0), (-5, 1, -3)],
    ),
    Form("shr.b32", "b32 b32 u32", [(0x80000000, 31, 1)]),
    Form("shr.u16", "u16 u16 u32", [(0x8000, 15, 1), (0x8000, 16, 0)]),
    Form("shr.s16", "s16 s16 u32", [(-0x8000, 15, -1), (-0x8000, 300, -1)]),
    Form("shr.u64", "u64 u64 u32", [(1 << 63, 63, 1), (1 << 63, 64, 0)]),
    Form("shr.s64", "s64 s64 u32", [(MIN64, 63, -1), (MIN64, 64, -1), (2**40, 38, 4)]),
    # popc, clz: their result is 32 bits whatever the operand
    Form("popc.b32", "u32 b32", [(0, 0), (0xFFFFFFFF, 32), (0x80000001, 2)]),
    Form("popc.b64", "u32 b64", [(2**64 - 1, 64), (1 << 63, 1)]),
    Form("clz.b32", "u32 b32", [(0, 32), (1, 31), (0x80000000, 0)]),
    Form("clz.b64", "u32 b64", [(0, 64), (1, 63), (1 << 62, 1)]),
    Form("brev.b32", "b32 b32", [(1, 0x80000000), (0x12345678, 0x1E6A2C48)]),
    Form("brev.b64", "b64 b64", [(1, 1 << 63), (0x12345678, 0x1E6A2C48 << 32)]),
    # bfe: position and length are the lowest bytes; a signed field is extended with its top bit, or
    # with that of the operand where the field reaches over it
    Form(
        "bfe.u32",
        "u32 u32 u32 u32",
        [
            (0xABCD1234, 8, 8, 0x12),
            (0xABCD1234, 28, 8, 0xA),
            (0xABCD1234, 0, 32, 0xABCD1234),
            (0xABCD1234, 4, 0, 0),
            (0xABCD1234, 40, 4, 0),
            (0xABCD1234, 256 + 8, 256 + 8, 0x12),
            (0xFFFFFFFF, 0, 255, 0xFFFFFFFF),
        ],
    ),
    Form(
        "bfe.s32",
        "s32 s32 u32 u32",
        [
            (0x00000F00, 8, 4, -1),
            (0x00000700, 8, 4, 7),
            (0xABCD1234, 28, 8, -6),
            (0x7BCD1234, 28, 8, 7),
            (MIN32, 4, 0, 0),
            (MIN32, 40, 4, -1),
            (MAX32, 40, 4, 0),
        ],
    ),
    Form("bfe.u64", "u64 u64 u32 u32", [(0xAB << 40, 40, 8, 0xAB), (2**64 - 1, 60, 10, 15)]),
    Form("bfe.s64", "s64 s64 u32 u32", [(0xF << 40, 40, 4, -1), (MIN64, 70, 3, -1)]),
    # bfi a into b: what does not fit is dropped; a position outside changes nothing
    Form(
        "bfi.b32",
        "b32 b32 b32 u32 u32",
        [
            (0xFF, 0, 8, 4, 0xF00),
            (0x0, 0xFFFFFFFF, 8, 8, 0xFFFF00FF),
            (0xFF, 0x1, 28, 8, 0xF0000001),
            (0xFF, 0x12345678, 32, 8, 0x12345678),
            (0xFF, 0x12345678, 4, 0, 0x12345678),
            (0xCAFEBABE, 0x12345678, 0, 32, 0xCAFEBABE),
            (0xFF, 0, 256 + 8, 256 + 4, 0xF00),
        ],
    ),
    Form(
        "bfi.b64",
        "b64 b64 b64 u32 u32",
        [(0xABCD, 0x1234, 32, 32, 0xABCD00001234), (0xFF, 0, 60, 8, 0xF << 60)],
    ),
    # prmt: a nibble chooses one of the eight bytes of b:a; its top bit repeats the byte's sign
    Form(
        "prmt.b32",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, 0x3210, 0x33221100),
            (0x33221100, 0x77665544, 0x7654, 0x77665544),
            (0x33221100, 0x77665544, 0x0246, 0x00224466),
            (0x33221180, 0xFF665544, 0x8F80, 0xFFFFFF80),
            (0x33221180, 0x77665544, 0x0009, 0x80808000),
        ],
    ),
    # The modes count from the byte that c names: PTX ISA, prmt, table of modes.
    Form(
        "prmt.b32.f4e",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x33221100), (1, 0x44332211), (2, 0x55443322), (3, 0x66554433)]
        ],
    ),
    Form(
        "prmt.b32.b4e",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x55667700), (1, 0x66770011), (2, 0x77001122), (3, 0x00112233)]
        ],
    ),
    Form(
        "prmt.b32.rc8",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x00000000), (1, 0x11111111), (2, 0x22222222), (3, 0x33333333)]
        ],
    ),
    Form(
        "prmt.b32.ecl",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x33221100), (1, 0x33221111), (2, 0x33222222), (3, 0x33333333)]
        ],
    ),
    Form(
        "prmt.b32.ecr",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x00000000), (1, 0x11111100), (2, 0x22221100), (3, 0x33221100)]
        ],
    ),
    Form(
        "prmt.b32.rc16",
        "b32 b32 b32 b32",
        [
            (0x33221100, 0x77665544, k, v)
            for k, v in [(0, 0x11001100), (1, 0x33223322), (2, 0x11001100), (3, 0x33223322)]
        ],
    ),
    # shf: the funnel of b:a; .clamp takes amounts up to 32, .wrap modulo 32
    Form("shf.l.wrap.b32", "b32 b32 b32 u32", [(0x80000000, 1, 1, 3), (5, 7, 32, 7)]),
    Form("shf.l.clamp.b32", "b32 b32 b32 u32", [(5, 7, 32, 5), (5, 7, 99, 5), (1 << 31, 1, 1, 3)]),
    Form("shf.r.wrap.b32", "b32 b32 b32 u32", [(5, 1, 1, 0x80000002), (5, 7, 32, 5)]),
    Form("shf.r.clamp.b32", "b32 b32 b32 u32", [(5, 7, 32, 7), (5, 1, 1, 0x80000002)]),
]


@pytest.mark.parametrize("form", [*ARITHMETIC, *LOGIC], ids=str)
def test_form(form: Form) -> None:
    assert evaluate(form) == []


# lop3: bit i of the result is bit (a_i b_i c_i) of the table; 0xF0, 0xCC, 0xAA are a, b and c.
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (0xF0, 0x0F0F0F0F),
        (0xCC, 0x33333333),
        (0xAA, 0x55555555),
        (0x80, 0x01010101),
        (0xFE, 0x7F7F7F7F),
        (0x96, 0x69696969),
    ],
)
def test_lop3(table: int, expected: int) -> None:
    form = Form(
        "lop3.b32",
        "b32 b32 b32 b32 u32",
        [(0x0F0F0F0F, 0x33333333, 0x55555555, table, expected)],
        immediate=3,
    )
    assert evaluate(form) == []
