"""Locally connected layers: convolution with filters of its own at every position."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase

from convnet import ops

every_case = pytest.mark.parametrize("case", cases.LOCAL, ids=str)
GROUPS = next(case for case in cases.LOCAL if case.name == "3x3-groups-2-odd-channels")
OVERHANG = next(case for case in cases.LOCAL if case.name == "ceil-overhang-pad")
FOURS = next(case for case in cases.LOCAL if case.name == "5x5-same")
some_cases = pytest.mark.parametrize("case", [GROUPS, OVERHANG, FOURS], ids=str)


def arrays(make, rng, case: ConvCase):
    """x, w, b, dy"""
    shapes = case.x_shape, case.local_w_shape, case.local_b_shape, case.y_shape
    return [make(rng, shape) for shape in shapes]


@every_case
def test_fprop_is_exact_on_integers(backend, rng, case):
    x, w, b, _ = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.local_fprop, x, w, b, **case.options)
    check.equal(y, reference.local_fprop(x, w, b, **case.options))


@every_case
def test_dgrad_is_exact_on_integers(backend, rng, case):
    _, w, _, dy = arrays(cases.integers, rng, case)
    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, **case.options)
    check.equal(dx, reference.local_dgrad(dy, w, case.x_shape, **case.options))


@every_case
def test_wgrad_is_exact_on_integers(backend, rng, case):
    x, _, _, dy = arrays(cases.integers, rng, case)
    dw, db = check.call(backend, ops.local_wgrad, x, dy, case.local_w_shape, **case.options)
    expected_dw, expected_db = reference.local_wgrad(x, dy, case.local_w_shape, **case.options)
    check.equal(dw, expected_dw)
    check.equal(db, expected_db)


@every_case
def test_passes_on_floats(backend, rng, case):
    x, w, b, dy = arrays(cases.floats, rng, case)
    y = check.call(backend, ops.local_fprop, x, w, b, **case.options)
    magnitude = reference.local_fprop(abs(x), abs(w), abs(b), **case.options)
    length = case.r * case.s * case.c // case.groups + 1
    check.close(y, reference.local_fprop(x, w, b, **case.options), magnitude, length)

    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, **case.options)
    magnitude = reference.local_dgrad(abs(dy), abs(w), case.x_shape, **case.options)
    length = case.r * case.s * case.k // case.groups
    check.close(dx, reference.local_dgrad(dy, w, case.x_shape, **case.options), magnitude, length)

    results = check.call(backend, ops.local_wgrad, x, dy, case.local_w_shape, **case.options)
    expected = reference.local_wgrad(x, dy, case.local_w_shape, **case.options)
    magnitudes = reference.local_wgrad(abs(x), abs(dy), case.local_w_shape, **case.options)
    for actual, value, magnitude in zip(results, expected, magnitudes, strict=True):
        check.close(actual, value, magnitude, case.n)


@every_case
def test_passes_are_adjoint(backend, rng, case):
    x, w, _, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.local_fprop, x, w, **case.options)
    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, **case.options)
    dw, _ = check.call(backend, ops.local_wgrad, x, dy, case.local_w_shape, **case.options)
    check.adjoint(dy, y, dx, x)
    check.adjoint(dy, y, dw, w)


@every_case
def test_relu_epilogue_and_mask(backend, rng, case):
    x, w, b, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.local_fprop, x, w, b, relu=True, **case.options)
    check.equal(y, reference.local_fprop(x, w, b, relu=True, **case.options))
    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, relu_mask=x, **case.options)
    check.equal(dx, reference.local_dgrad(dy, w, case.x_shape, relu_mask=x, **case.options))


@some_cases
def test_without_bias(backend, rng, case):
    x, w, _, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.local_fprop, x, w, **case.options)
    check.equal(y, reference.local_fprop(x, w, **case.options))
    shape = case.local_w_shape
    dw, db = check.call(backend, ops.local_wgrad, x, dy, shape, bias=False, **case.options)
    assert db is None
    check.equal(dw, reference.local_wgrad(x, dy, shape, **case.options)[0])


@some_cases
def test_shared_filters_make_it_a_convolution(backend, rng, case):
    x, w = cases.integers(rng, case.x_shape), cases.integers(rng, case.w_shape)
    everywhere = np.ascontiguousarray(np.broadcast_to(w, case.local_w_shape))
    local = check.call(backend, ops.local_fprop, x, everywhere, **case.options)
    check.equal(local, check.call(backend, ops.conv_fprop, x, w, **case.options))


@some_cases
def test_gradients_against_differences_of_the_reference(backend, rng, case):
    x, w, _, dy = arrays(cases.floats, rng, case)
    dx = check.call(backend, ops.local_dgrad, dy, w, case.x_shape, **case.options)
    dw, _ = check.call(backend, ops.local_wgrad, x, dy, case.local_w_shape, **case.options)
    check.gradient(lambda v: reference.local_fprop(v, w, **case.options), x, dy, dx)
    check.gradient(lambda v: reference.local_fprop(x, v, **case.options), w, dy, dw)


@some_cases
def test_unaligned_arrays(backend, rng, case):
    x, w, b, dy = arrays(cases.integers, rng, case)
    for y in check.calls_on_unaligned(backend, ops.local_fprop, x, w, b, **case.options):
        check.equal(y, reference.local_fprop(x, w, b, **case.options))
    dgrad = (backend, ops.local_dgrad, dy, w, case.x_shape)
    for dx in check.calls_on_unaligned(*dgrad, **case.options):
        check.equal(dx, reference.local_dgrad(dy, w, case.x_shape, **case.options))
    wgrad = (backend, ops.local_wgrad, x, dy, case.local_w_shape)
    for results in check.calls_on_unaligned(*wgrad, **case.options):
        expected = reference.local_wgrad(x, dy, case.local_w_shape, **case.options)
        for actual, gradient in zip(results, expected, strict=True):
            check.equal(actual, gradient)
