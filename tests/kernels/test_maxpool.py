"""Max-pooling: values, winners, ties, NaN and the gather of the backward pass."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

every_case = pytest.mark.parametrize("case", cases.POOL, ids=str)
OVERLAP = next(case for case in cases.POOL if case.name == "overlapping-3-by-2-ragged")
PAD = next(case for case in cases.POOL if case.name == "pad-2x1")
FOURS = next(case for case in cases.POOL if case.name == "3x3-fours")
some_cases = pytest.mark.parametrize("case", [OVERLAP, PAD, FOURS], ids=str)


@every_case
def test_fprop(backend, rng, case):
    x = cases.floats(rng, case.x_shape)
    y, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    expected_y, expected_argmax = reference.maxpool_fprop(x, *case.args)
    check.equal(y, expected_y)
    check.equal(argmax, expected_argmax)
    assert argmax.dtype == np.uint8


@every_case
def test_first_of_equals_wins(backend, rng, case):
    x = cases.integers(rng, case.x_shape, largest=1)
    y, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    expected_y, expected_argmax = reference.maxpool_fprop(x, *case.args)
    check.equal(y, expected_y)
    check.equal(argmax, expected_argmax)


@every_case
def test_all_negative_and_minus_infinity(backend, rng, case):
    """What lies outside the image must not win as a zero."""
    x = -1 - abs(cases.integers(rng, case.x_shape))
    x[x == -5] = -np.inf
    y, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    expected_y, expected_argmax = reference.maxpool_fprop(x, *case.args)
    check.equal(y, expected_y)
    check.equal(argmax, expected_argmax)


@every_case
def test_first_nan_wins_over_everything(backend, rng, case):
    x = cases.integers(rng, case.x_shape)
    x[rng.random(case.x_shape) < 0.2] = np.nan
    x[rng.random(case.x_shape) < 0.1] = np.inf
    y, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    expected_y, expected_argmax = reference.maxpool_fprop(x, *case.args)
    check.equal(y, expected_y)
    check.equal(argmax, expected_argmax)


def test_all_minus_infinity_points_at_the_first(backend):
    x = np.full((1, 4, 4, 2), -np.inf, np.float32)
    y, argmax = check.call(backend, ops.maxpool_fprop, x, 3, 2, 1)
    check.equal(y, np.full((1, 3, 3, 2), -np.inf))
    check.equal(argmax, reference.maxpool_fprop(x, (3, 3), (2, 2), (1, 1))[1])
    assert argmax[0, 0, 0, 0] == 4  # (1, 1): the first row and column of this window lie outside


@every_case
def test_bprop_is_exact_on_integers(backend, rng, case):
    x, dy = cases.floats(rng, case.x_shape), cases.integers(rng, case.y_shape)
    _, argmax = reference.maxpool_fprop(x, *case.args)
    dx = check.call(backend, ops.maxpool_bprop, dy, argmax, case.x_shape, *case.args)
    check.equal(dx, reference.maxpool_bprop(dy, argmax, case.x_shape, *case.args))


@every_case
def test_bprop_on_floats(backend, rng, case):
    x, dy = cases.floats(rng, case.x_shape), cases.floats(rng, case.y_shape)
    _, argmax = reference.maxpool_fprop(x, *case.args)
    dx = check.call(backend, ops.maxpool_bprop, dy, argmax, case.x_shape, *case.args)
    expected = reference.maxpool_bprop(dy, argmax, case.x_shape, *case.args)
    magnitude = reference.maxpool_bprop(abs(dy), argmax, case.x_shape, *case.args)
    check.close(dx, expected, magnitude, case.size[0] * case.size[1])


@every_case
def test_winners_outside_the_image_credit_nothing(backend, rng, case):
    """Any byte may stand in argmax: those that point nowhere are ignored."""
    dy = cases.integers(rng, case.y_shape)
    argmax = rng.integers(0, 256, case.y_shape).astype(np.uint8)
    dx = check.call(backend, ops.maxpool_bprop, dy, argmax, case.x_shape, *case.args)
    check.equal(dx, reference.maxpool_bprop(dy, argmax, case.x_shape, *case.args))


@some_cases
def test_gradient_against_differences_of_the_reference(backend, rng, case):
    x, dy = cases.distinct(rng, case.x_shape), cases.floats(rng, case.y_shape)
    _, argmax = check.call(backend, ops.maxpool_fprop, x, *case.args)
    dx = check.call(backend, ops.maxpool_bprop, dy, argmax, case.x_shape, *case.args)
    check.gradient(lambda v: reference.maxpool_fprop(v, *case.args)[0], x, dy, dx)


@some_cases
def test_unaligned_arrays(backend, rng, case):
    x, dy = cases.integers(rng, case.x_shape), cases.integers(rng, case.y_shape)
    expected = reference.maxpool_fprop(x, *case.args)
    for results in check.calls_on_unaligned(backend, ops.maxpool_fprop, x, *case.args):
        for actual, wanted in zip(results, expected, strict=True):
            check.equal(actual, wanted)
    bprop = (backend, ops.maxpool_bprop, dy, expected[1], case.x_shape, *case.args)
    for dx in check.calls_on_unaligned(*bprop):
        check.equal(dx, reference.maxpool_bprop(dy, expected[1], case.x_shape, *case.args))


@pytest.mark.parametrize("case", [*cases.POOL, *cases.ALEXNET_POOL], ids=str)
def test_output_shape(backend, case):
    assert tuple(ops.pool_output_shape(case.x_shape, *case.args)) == case.y_shape
