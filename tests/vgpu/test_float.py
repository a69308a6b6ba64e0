"""Floating-point arithmetic: PTX ISA, "Floating Point Instructions".

The results are those of IEEE 754 with the rounding that is named; .ftz replaces subnormal operands
and results by zeros of their sign; .sat clamps to [0, 1], a NaN to 0.
"""

from __future__ import annotations

import numpy as np
import pytest
from ptx import INF, NAN, Form, PtxError, evaluate, run_ptx

EPS = 2.0**-23
UP = 1 + EPS  # the neighbours of 1
DOWN = 1 - EPS / 2
MAX = (2 - EPS) * 2.0**127
TINY = 2.0**-149  # the least subnormal
NORMAL = 2.0**-126  # the least normal number
THIRD = 0x3EAAAAAB  # 1/3, rounded to the nearest, which is above it
DUP = 1 + 2.0**-52
DMAX = (2 - 2.0**-52) * 2.0**1023


def f32(operation: str, *cases: tuple[float | int, ...]) -> Form:
    return Form(f"{operation}.f32", "f32 " * len(cases[0]), list(cases))


def f64(operation: str, *cases: tuple[float | int, ...]) -> Form:
    return Form(f"{operation}.f64", "f64 " * len(cases[0]), list(cases))


HALF = EPS / 2
ADD = [
    # a tie goes to the even neighbour
    f32(
        "add.rn", (1.0, HALF, 1.0), (UP, HALF, 1 + 2 * EPS), (1.0, HALF / 2, 1.0), (1.0, -1.0, 0.0)
    ),
    f32("add", (1.0, HALF, 1.0), (INF, -INF, NAN), (NAN, 1.0, NAN), (-0.0, -0.0, -0.0)),
    f32("add.rz", (1.0, HALF, 1.0), (-1.0, -HALF, -1.0), (1.0, -TINY, DOWN), (MAX, MAX, MAX)),
    f32("add.rm", (1.0, HALF, 1.0), (-1.0, -HALF, -UP), (1.0, -TINY, DOWN), (1.0, -1.0, -0.0)),
    f32("add.rp", (1.0, HALF / 2, UP), (-1.0, -HALF, -1.0), (1.0, TINY, UP), (1.0, -1.0, 0.0)),
    f32("add.rn", (MAX, MAX, INF), (MAX, 2.0**102, MAX), (MAX, 2.0**103, INF), (-MAX, -MAX, -INF)),
    f32("add.rm", (MAX, MAX, MAX), (-MAX, -MAX, -INF), (INF, 1.0, INF)),
    f32("add.rp", (MAX, MAX, INF), (-MAX, -MAX, -MAX), (-INF, 1.0, -INF)),
    f32("add", (NORMAL / 2, NORMAL / 2, NORMAL), (TINY, TINY, 2 * TINY)),
    f32(
        "add.ftz",
        (NORMAL / 2, NORMAL / 2, 0.0),
        (1.25 * NORMAL, -NORMAL, 0.0),
        (NORMAL, -1.25 * NORMAL, -0.0),
        (-TINY, -TINY, -0.0),
        (NORMAL, NORMAL, 2 * NORMAL),
    ),
    f32("add.sat", (0.75, 0.75, 1.0), (0.25, 0.25, 0.5), (-1.0, 0.5, 0.0), (NAN, 1.0, 0.0)),
    f32("sub", (1.0, 1.0, 0.0), (INF, INF, NAN), (0.0, -0.0, 0.0), (-0.0, 0.0, -0.0)),
    f32("sub.rn", (1.0, -HALF, 1.0), (UP, 1.0, EPS)),
    f32("sub.rz", (1.0, TINY, DOWN), (-1.0, HALF, -1.0)),
    f32("sub.rm", (-1.0, HALF, -UP), (1.0, 1.0, -0.0)),
    f32("sub.rp", (1.0, -TINY, UP), (1.0, 1.0, 0.0)),
    f64("add", (1.0, 2.0**-53, 1.0), (DUP, 2.0**-53, 1 + 2.0**-51), (DMAX, DMAX, INF)),
    f64("add.rz", (1.0, 2.0**-53, 1.0), (1.0, -(2.0**-1000), 1 - 2.0**-53)),
    f64("add.rm", (-1.0, -(2.0**-1000), -DUP), (1.0, -1.0, -0.0)),
    f64("add.rp", (1.0, 2.0**-1000, DUP), (-1.0, 2.0**-1000, -1 + 2.0**-53)),
    f64("sub", (1.0, DUP, -(2.0**-52)), (INF, INF, NAN)),
]

# (1 + e)^2 = 1 + 2e + e^2, and e^2 is below half a unit of the last place.
MULTIPLY = [
    f32("mul", (UP, UP, 1 + 2 * EPS), (0.0, INF, NAN), (-0.0, 2.0, -0.0), (MAX, 2.0, INF)),
    f32("mul.rn", (UP, UP, 1 + 2 * EPS), (NORMAL, 0.5, NORMAL / 2), (TINY, 0.5, 0.0)),
    f32("mul.rz", (UP, UP, 1 + 2 * EPS), (UP, -UP, -(1 + 2 * EPS)), (MAX, 2.0, MAX)),
    f32("mul.rm", (UP, UP, 1 + 2 * EPS), (UP, -UP, -(1 + 3 * EPS)), (-TINY, 0.5, -TINY)),
    f32("mul.rp", (UP, UP, 1 + 3 * EPS), (UP, -UP, -(1 + 2 * EPS)), (TINY, 0.5, TINY)),
    f32("mul.ftz", (NORMAL, 0.5, 0.0), (-NORMAL, 0.5, -0.0), (NORMAL / 2, 4.0, 0.0)),
    f32("mul.sat", (2.0, 3.0, 1.0), (0.5, 0.5, 0.25), (-1.0, 2.0, 0.0), (0.0, INF, 0.0)),
    f64("mul", (DUP, DUP, 1 + 2.0**-51), (0.0, INF, NAN)),
    f64("mul.rp", (DUP, DUP, 1 + 3 * 2.0**-52)),
    # one rounding only: (1 + e)(1 - e) - 1 = -e^2
    f32("fma.rn", (UP, 1 - EPS, -1.0, -(EPS**2)), (INF, 0.0, 1.0, NAN), (1.0, 1.0, HALF, 1.0)),
    f32("fma.rz", (1.0, 1.0, -TINY, DOWN), (-1.0, 1.0, TINY, -DOWN), (MAX, 2.0, 0.0, MAX)),
    f32("fma.rm", (1.0, 1.0, -TINY, DOWN), (1.0, 1.0, TINY, 1.0), (1.0, 1.0, -1.0, -0.0)),
    f32("fma.rp", (1.0, 1.0, TINY, UP), (1.0, 1.0, -TINY, 1.0), (UP, UP, TINY, 1 + 3 * EPS)),
    f32("fma.rn", (UP, UP, -(2 * TINY), 1 + 2 * EPS), (2.0**-100, 2.0**-49, 0.0, TINY)),
    # just above a tie, by less than double precision sees
    f32("fma.rn", (1 + 2.0**-12, 1 + 2.0**-12, TINY, 1 + 2.0**-11 + EPS)),
    f32("fma.rn.ftz", (NORMAL, 0.5, 0.0, 0.0), (1.0, 1.0, NORMAL / 2, 1.0)),
    f32("fma.rn.sat", (2.0, 2.0, 2.0, 1.0), (1.0, 1.0, -2.0, 0.0), (0.5, 0.5, 0.0, 0.25)),
    f32("mad.rn", (UP, 1 - EPS, -1.0, -(EPS**2))),
    f64("fma.rn", (DUP, 1 - 2.0**-52, -1.0, -(2.0**-104))),
]

DIVIDE = [
    f32("div.rn", (1.0, 3.0, THIRD), (1.0, 0.0, INF), (-1.0, 0.0, -INF), (0.0, 0.0, NAN)),
    f32("div.rn", (NORMAL, 2.0, NORMAL / 2), (TINY, 2.0, 0.0), (INF, INF, NAN), (1.0, -INF, -0.0)),
    f32("div.approx", (1.0, 2.0, 0.5), (6.0, 3.0, 2.0)),
    f32("div.full", (1.0, 2.0, 0.5)),
    f64("div.rn", (1.0, 3.0, 0x3FD5555555555555), (1.0, 0.0, INF)),
    f32(
        "rcp.rn",
        (3.0, THIRD),
        (0.0, INF),
        (-0.0, -INF),
        (INF, 0.0),
        (TINY, INF),
        (2.0**127, NORMAL / 2),
    ),
    f32("rcp.approx.ftz", (2.0, 0.5), (2.0**127, 0.0), (NORMAL / 2, INF), (-NORMAL / 2, -INF)),
    f32("rcp.approx.ftz", (0.0, INF), (-0.0, -INF), (-INF, -0.0), (NAN, NAN)),
    f64("rcp.rn", (4.0, 0.25)),
    f32(
        "sqrt.rn",
        (2.0, 0x3FB504F3),
        (4.0, 2.0),
        (-0.0, -0.0),
        (-1.0, NAN),
        (INF, INF),
        (2.0**-148, 2.0**-74),
    ),
    f32("sqrt.approx", (4.0, 2.0), (-1.0, NAN)),
    f32("sqrt.approx.ftz", (4.0, 2.0), (TINY, 0.0), (-TINY, -0.0)),
    f64("sqrt.rn", (2.0, 0x3FF6A09E667F3BCD)),
    f32("rsqrt.approx", (4.0, 0.5), (2.0**-148, 2.0**74), (0.0, INF), (-0.0, -INF), (INF, 0.0)),
    f32("rsqrt.approx.ftz", (4.0, 0.5), (TINY, INF), (-TINY, -INF), (-1.0, NAN), (-INF, NAN)),
]

# .approx functions at the points where the manual's table of special values fixes them, and where
# the result is a power of two.
APPROXIMATE = [
    f32(
        "ex2.approx",
        (0.0, 1.0),
        (3.0, 8.0),
        (-1.0, 0.5),
        (-INF, 0.0),
        (INF, INF),
        (-127.0, NORMAL / 2),
    ),
    f32("ex2.approx.ftz", (-127.0, 0.0), (TINY, 1.0), (-TINY, 1.0), (128.0, INF), (NAN, NAN)),
    f32(
        "lg2.approx",
        (8.0, 3.0),
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (-1.0, NAN),
        (2.0**-140, -140.0),
    ),
    f32("lg2.approx.ftz", (TINY, -INF), (-TINY, -INF), (1.0, 0.0)),
    f32("sin.approx", (0.0, 0.0), (-0.0, -0.0), (INF, NAN), (NAN, NAN)),
    f32("sin.approx.ftz", (TINY, 0.0), (-TINY, -0.0)),
    f32("cos.approx", (0.0, 1.0), (-0.0, 1.0), (INF, NAN)),
    f32("cos.approx.ftz", (TINY, 1.0)),
    f32("tanh.approx", (0.0, 0.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN)),
]

# min and max: of a number and a NaN, the number; of two NaNs, the canonical NaN; +0 is above -0.
ORDER = [
    f32("min", (1.0, 2.0, 1.0), (NAN, 2.0, 2.0), (1.0, NAN, 1.0), (NAN, NAN, 0x7FFFFFFF)),
    f32("min", (0.0, -0.0, -0.0), (-0.0, 0.0, -0.0), (-INF, 1.0, -INF)),
    f32("max", (1.0, 2.0, 2.0), (NAN, 2.0, 2.0), (1.0, NAN, 1.0), (0xFFC00001, NAN, 0x7FFFFFFF)),
    f32("max", (0.0, -0.0, 0.0), (-0.0, 0.0, 0.0), (INF, 1.0, INF)),
    f32("min.NaN", (1.0, 2.0, 1.0), (NAN, 2.0, 0x7FFFFFFF), (1.0, 0xFFC00001, 0x7FFFFFFF)),
    f32("max.NaN", (1.0, 2.0, 2.0), (NAN, 2.0, 0x7FFFFFFF), (-0.0, 0.0, 0.0)),
    f32("max.ftz", (TINY, -1.0, 0.0), (-TINY, -1.0, -0.0), (NORMAL, TINY, NORMAL)),
    f64("min", (1.0, 2.0, 1.0), (NAN, 2.0, 2.0), (0.0, -0.0, -0.0)),
    f64("max", (1.0, 2.0, 2.0), (1.0, NAN, 1.0), (-0.0, 0.0, 0.0)),
]

SIGN = [
    f32("neg", (1.5, -1.5), (0.0, -0.0), (-INF, INF), (TINY, -TINY), (NAN, NAN)),
    f32("neg.ftz", (TINY, -0.0), (-TINY, 0.0), (1.0, -1.0)),
    f32("abs", (-1.5, 1.5), (-0.0, 0.0), (-INF, INF), (-TINY, TINY), (NAN, NAN)),
    f32("abs.ftz", (-TINY, 0.0), (-1.0, 1.0)),
    f64("neg", (1.5, -1.5)),
    f64("abs", (-1.5, 1.5)),
    # the sign of a and the rest of b
    f32("copysign", (-1.0, 2.0, -2.0), (1.0, -2.0, 2.0), (-0.0, INF, -INF), (3.0, -0.0, 0.0)),
    f64("copysign", (-1.0, 2.0, -2.0)),
]

VALUES = [1.0, 0.0, -INF, NAN, TINY, NORMAL]
TESTS = {
    "finite": [1, 1, 0, 0, 1, 1],
    "infinite": [0, 0, 1, 0, 0, 0],
    "number": [1, 1, 1, 0, 1, 1],
    "notanumber": [0, 0, 0, 1, 0, 0],
    "normal": [1, 0, 0, 0, 0, 1],
    "subnormal": [0, 0, 0, 0, 1, 0],
}
TESTP = [
    Form(f"testp.{name}.f32", "pred f32", list(zip(VALUES, expected, strict=True)))
    for name, expected in TESTS.items()
]

FORMS = [*ADD, *MULTIPLY, *DIVIDE, *APPROXIMATE, *ORDER, *SIGN, *TESTP]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_form(form: Form) -> None:
    assert evaluate(form) == []


@pytest.mark.parametrize(
    ("instruction", "lowest", "function"),
    [("ex2.approx.ftz.f32", -10.0, "exp2"), ("lg2.approx.f32", 0.1, "log2")],
)
def test_approximate_functions_are_near(instruction: str, lowest: float, function: str) -> None:
    """Within the error that the manual allows: 2^-22 relative, of lg2 absolute near 1."""
    x = np.linspace(lowest, 10, 256, dtype=np.float32)
    body = f"""
    mul.wide.u32 %l0, %t, 4; add.s64 %l1, %l0, %in0; add.s64 %l2, %l0, %out0;
    ld.global.f32 %f0, [%l1]; {instruction} %f1, %f0; st.global.f32 [%l2], %f1;
    """
    [y] = run_ptx(body, [x], [np.zeros_like(x)], block=256)
    exact = getattr(np, function)(x.astype(np.float64))
    assert np.abs(y - exact).max() <= (2.0**-22 * np.maximum(np.abs(exact), 1)).max()


@pytest.mark.parametrize(
    "instruction",
    [
        "div.rz.f32 %f0, %f1, %f2",
        "sqrt.rp.f32 %f0, %f1",
        "add.f16 %h0, %h1, %h2",
        "add.sat.f64 %d0, %d1, %d2",
        "fma.rn.relu.f32 %f0, %f1, %f2, %f3",
        "min.xorsign.abs.f32 %f0, %f1, %f2",
        "add.ftz.f64 %d0, %d1, %d2",
    ],
)
def test_what_is_not_known_is_refused(instruction: str) -> None:
    with pytest.raises(
        PtxError, match=r"line [0-9]+: the instruction .* is not known in this form"
    ):
        run_ptx(f"{instruction};", [], [])
