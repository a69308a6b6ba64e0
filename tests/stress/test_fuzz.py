"""Random problems and random nonsense: results stay right, and nothing crashes the interpreter.

Problems (sizes, strides, pads) are compared with the reference. Nonsense (a valid call with some
arguments replaced by anything at all) runs in a process of its own, see fuzz_calls.py: a crash
there is a failure here, with the seed that repeats it.
"""

from __future__ import annotations

import math
import subprocess
import sys

import cases
import check
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import TESTS

from convnet import ops

reproducible = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

small = st.integers(1, 3)
sides = st.tuples(st.integers(1, 9), st.integers(1, 9))
windows = st.tuples(st.integers(1, 5), st.integers(1, 5))
strides = st.tuples(st.integers(1, 4), st.integers(1, 4))
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
roundings = st.sampled_from(["floor", "ceil"])


@st.composite
def conv_cases(draw) -> cases.ConvCase:
    groups = draw(small)
    c, k = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 9))
    return cases.ConvCase(
        "fuzz", draw(small), *draw(sides), c, k, *draw(windows),
        draw(strides), draw(pads), groups, draw(roundings),
    )  # fmt: skip


@st.composite
def pool_cases(draw) -> cases.PoolCase:
    return cases.PoolCase(
        "fuzz", draw(small), *draw(sides), draw(st.integers(1, 20)), draw(windows),
        draw(strides), draw(pads), draw(roundings),
    )  # fmt: skip


def fits(h: int, w: int, size: tuple[int, int], pad: tuple[int, int]) -> bool:
    return size[0] <= h + 2 * pad[0] and size[1] <= w + 2 * pad[1]


@reproducible
@given(case=conv_cases())
def test_any_convolution(backend, case):
    rng = np.random.default_rng(0)
    x, w = cases.integers(rng, case.x_shape), cases.integers(rng, case.w_shape)
    if not fits(case.h, case.w, (case.r, case.s), case.pad):
        with pytest.raises(ValueError, match="window"):
            ops.conv_fprop(backend.asarray(x), backend.asarray(w), **case.options)
        return
    b, dy = cases.integers(rng, (case.k,)), cases.integers(rng, case.y_shape)
    y = check.call(backend, ops.conv_fprop, x, w, b, **case.options)
    check.equal(y, reference.conv_fprop(x, w, b, **case.options))
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **case.options)
    check.equal(dx, reference.conv_dgrad(dy, w, case.x_shape, **case.options))
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **case.options)
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    check.equal(dw, expected[0])
    check.equal(db, expected[1])


@reproducible
@given(case=conv_cases())
def test_any_local_layer(backend, case):
    rng = np.random.default_rng(0)
    if not fits(case.h, case.w, (case.r, case.s), case.pad):
        return
    shapes = case.x_shape, case.local_w_shape, case.local_b_shape, case.y_shape
    x, w, b, dy = (cases.integers(rng, shape) for shape in shapes)
    y = check.call(backend, ops.local_fprop, x, w, b, **case.options)
    check.equal(y, reference.local_fprop(x, w, b, **case.options))
    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, **case.options)
    check.equal(dx, reference.local_dgrad(dy, w, case.x_shape, **case.options))
    dw, db = check.call(backend, ops.local_wgrad, x, dy, case.local_w_shape, **case.options)
    expected = reference.local_wgrad(x, dy, case.local_w_shape, **case.options)
    check.equal(dw, expected[0])
    check.equal(db, expected[1])


@reproducible
@given(case=pool_cases())
def test_any_pool(backend, case):
    rng = np.random.default_rng(0)
    x = cases.integers(rng, case.x_shape)
    padded_out = case.pad[0] >= case.size[0] or case.pad[1] >= case.size[1]
    if padded_out or not fits(case.h, case.w, case.size, case.pad):
        with pytest.raises(ValueError, match=r"pad|window"):
            ops.maxpool_fprop(backend.asarray(x), *case.args)
        return
    y, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    expected = reference.maxpool_fprop(x, *case.args)
    check.equal(y, expected[0])
    check.equal(argmax, expected[1])
    dy = cases.integers(rng, case.y_shape)
    dx = check.call(backend, ops.maxpool_bprop, dy, argmax, case.x_shape, *case.args)
    check.equal(dx, reference.maxpool_bprop(dy, argmax, case.x_shape, *case.args))
    y = check.call(backend, ops.avgpool_fprop, x, *case.args)
    elements = math.prod(case.size)
    expected_y = reference.avgpool_fprop(x, *case.args)
    check.close(y, expected_y, reference.avgpool_fprop(abs(x), *case.args), elements)
    dx = check.call(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args)
    expected_dx = reference.avgpool_bprop(dy, case.x_shape, *case.args)
    magnitude = reference.avgpool_bprop(abs(dy), case.x_shape, *case.args)
    check.close(dx, expected_dx, magnitude, elements)


@reproducible
@given(
    pixels=st.integers(1, 9),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 20),
    n=st.integers(1, 12),
    beta=st.sampled_from([0.5, 0.75, 1.0, 1.7]),
)
def test_any_normalization(backend, pixels, groups, per_group, n, beta):
    rng = np.random.default_rng(0)
    x = cases.floats(rng, (pixels, groups * per_group))
    options = {"n": n, "k": 1.5, "alpha": 0.75, "beta": beta, "groups": groups}
    y = check.call(backend, ops.lrn_fprop, x, **options)
    expected = reference.lrn_fprop(x, **options)
    check.close(y, expected, expected, n)


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3))]
)
@pytest.mark.parametrize("layer", ["ops", "binding"])
def test_nonsense_raises_and_never_crashes(layer, seed):
    program = TESTS / "stress" / "fuzz_calls.py"
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(program), layer, str(seed), "400"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    last = "\n".join(result.stderr.splitlines()[-40:])
    repeat = f"python {program} {layer} {seed}"
    assert result.returncode == 0, f"exit code {result.returncode}; repeat with `{repeat}`:\n{last}"
