"""Convolution against the reference: every geometry of the table, every pass."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase

from convnet import ops


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Whole numbers stay whole: what the CPU does by Winograd's algorithm is in test_winograd."""
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")


every_case = pytest.mark.parametrize("case", cases.CONV, ids=str)
GROUPS = next(case for case in cases.CONV if case.name == "5x5-groups-2")
OVERHANG = next(case for case in cases.CONV if case.name == "ceil-overhang-pad")
some_cases = pytest.mark.parametrize("case", [GROUPS, OVERHANG], ids=str)


def arrays(make, rng, case: ConvCase):
    """x, w, b, dy"""
    shapes = case.x_shape, case.w_shape, (case.k,), case.y_shape
    return [make(rng, shape) for shape in shapes]


@every_case
def test_fprop_is_exact_on_integers(backend, rng, case):
    x, w, b, _ = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.conv_fprop, x, w, b, **case.options)
    check.equal(y, reference.conv_fprop(x, w, b, **case.options))


@every_case
def test_dgrad_is_exact_on_integers(backend, rng, case):
    _, w, _, dy = arrays(cases.integers, rng, case)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **case.options)
    check.equal(dx, reference.conv_dgrad(dy, w, case.x_shape, **case.options))


@every_case
def test_wgrad_is_exact_on_integers(backend, rng, case):
    x, _, _, dy = arrays(cases.integers, rng, case)
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **case.options)
    expected_dw, expected_db = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    check.equal(dw, expected_dw)
    check.equal(db, expected_db)


@every_case
def test_fprop_on_floats(backend, rng, case):
    x, w, b, _ = arrays(cases.floats, rng, case)
    y = check.call(backend, ops.conv_fprop, x, w, b, **case.options)
    magnitude = reference.conv_fprop(abs(x), abs(w), abs(b), **case.options)
    length = case.r * case.s * case.c // case.groups + 1
    check.close(y, reference.conv_fprop(x, w, b, **case.options), magnitude, length)


@every_case
def test_dgrad_on_floats(backend, rng, case):
    _, w, _, dy = arrays(cases.floats, rng, case)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **case.options)
    magnitude = reference.conv_dgrad(abs(dy), abs(w), case.x_shape, **case.options)
    length = case.r * case.s * case.k // case.groups
    check.close(dx, reference.conv_dgrad(dy, w, case.x_shape, **case.options), magnitude, length)


@every_case
def test_wgrad_on_floats(backend, rng, case):
    x, _, _, dy = arrays(cases.floats, rng, case)
    results = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **case.options)
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    magnitudes = reference.conv_wgrad(abs(x), abs(dy), case.w_shape, **case.options)
    length = case.n * case.output[0] * case.output[1]
    for actual, value, magnitude in zip(results, expected, magnitudes, strict=True):
        check.close(actual, value, magnitude, length)


@every_case
def test_passes_are_adjoint(backend, rng, case):
    x, w, _, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.conv_fprop, x, w, **case.options)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **case.options)
    dw, _ = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **case.options)
    check.adjoint(dy, y, dx, x)
    check.adjoint(dy, y, dw, w)


@every_case
def test_relu_epilogue_and_no_bias(backend, rng, case):
    x, w, b, _ = arrays(cases.integers, rng, case)
    for bias in (b, None):
        y = check.call(backend, ops.conv_fprop, x, w, bias, relu=True, **case.options)
        check.equal(y, reference.conv_fprop(x, w, bias, relu=True, **case.options))
    y = check.call(backend, ops.conv_fprop, x, w, **case.options)
    check.equal(y, reference.conv_fprop(x, w, **case.options))


@every_case
def test_dgrad_applies_the_mask_of_the_relu_below(backend, rng, case):
    relu_mask, w, _, dy = arrays(cases.integers, rng, case)
    dx = check.call(
        backend, ops.conv_dgrad, dy, w, case.x_shape, relu_mask=relu_mask, **case.options
    )
    check.equal(dx, reference.conv_dgrad(dy, w, case.x_shape, relu_mask=relu_mask, **case.options))


@some_cases
def test_wgrad_without_bias(backend, rng, case):
    x, _, _, dy = arrays(cases.integers, rng, case)
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, bias=False, **case.options)
    assert db is None
    check.equal(dw, reference.conv_wgrad(x, dy, case.w_shape, **case.options)[0])


@some_cases
def test_gradients_against_differences_of_the_reference(backend, rng, case):
    x, w, _, dy = arrays(cases.floats, rng, case)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **case.options)
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **case.options)
    check.gradient(lambda v: reference.conv_fprop(v, w, **case.options), x, dy, dx)
    check.gradient(lambda v: reference.conv_fprop(x, v, **case.options), w, dy, dw)
    bias = np.zeros(case.k)
    check.gradient(lambda v: reference.conv_fprop(x, w, v, **case.options), bias, dy, db)


@some_cases
def test_unaligned_arrays(backend, rng, case):
    x, w, b, dy = arrays(cases.integers, rng, case)
    for y in check.calls_on_unaligned(backend, ops.conv_fprop, x, w, b, **case.options):
        check.equal(y, reference.conv_fprop(x, w, b, **case.options))
    dgrad = (backend, ops.conv_dgrad, dy, w, case.x_shape)
    for dx in check.calls_on_unaligned(*dgrad, **case.options):
        check.equal(dx, reference.conv_dgrad(dy, w, case.x_shape, **case.options))
    wgrad = (backend, ops.conv_wgrad, x, dy, case.w_shape)
    for results in check.calls_on_unaligned(*wgrad, **case.options):
        expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
        for actual, gradient in zip(results, expected, strict=True):
            check.equal(actual, gradient)


def test_one_number_stands_for_both_axes(backend, rng):
    x, w = cases.integers(rng, (2, 7, 6, 3)), cases.integers(rng, (4, 3, 3, 3))
    one = check.call(backend, ops.conv_fprop, x, w, stride=2, pad=1)
    two = check.call(backend, ops.conv_fprop, x, w, stride=(2, 2), pad=(1, 1))
    check.equal(one, two)


@pytest.mark.parametrize("case", [*cases.CONV, *cases.ALEXNET_CONV], ids=str)
def test_output_shape(backend, case):
    shape = ops.conv_output_shape(case.x_shape, case.w_shape, **case.options)
    assert tuple(shape) == case.y_shape


def test_conv1_of_the_paper_has_55_rows():
    x_shape, w_shape = (128, 224, 224, 3), (96, 11, 11, 3)
    shape = ops.conv_output_shape(x_shape, w_shape, stride=4, rounding="ceil")
    assert tuple(shape) == (128, 55, 55, 96)
    assert tuple(ops.conv_output_shape(x_shape, w_shape, stride=4)) == (128, 54, 54, 96)
