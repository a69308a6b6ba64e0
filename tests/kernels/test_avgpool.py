"""Average pooling over windows clipped to the image."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

every_case = pytest.mark.parametrize("case", cases.POOL, ids=str)
# Clipped windows of 1, 2 or 4 elements: dividing by them is exact.
powers_of_two = pytest.mark.parametrize(
    "case", [c for c in cases.POOL if set(c.size) <= {1, 2}], ids=str
)
OVERLAP = next(case for case in cases.POOL if case.name == "overlapping-3-by-2-ragged")
PAD = next(case for case in cases.POOL if case.name == "pad-2x1")
some_cases = pytest.mark.parametrize("case", [OVERLAP, PAD], ids=str)


@powers_of_two
def test_fprop_is_exact_on_integers(backend, rng, case):
    x = cases.integers(rng, case.x_shape)
    y = check.call(backend, ops.avgpool_fprop, x, *case.args)
    check.equal(y, reference.avgpool_fprop(x, *case.args))


@powers_of_two
def test_bprop_is_exact_on_integers(backend, rng, case):
    dy = cases.integers(rng, case.y_shape)
    dx = check.call(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args)
    check.equal(dx, reference.avgpool_bprop(dy, case.x_shape, *case.args))


@every_case
def test_fprop_on_floats(backend, rng, case):
    x = cases.floats(rng, case.x_shape)
    y = check.call(backend, ops.avgpool_fprop, x, *case.args)
    magnitude = reference.avgpool_fprop(abs(x), *case.args)
    check.close(y, reference.avgpool_fprop(x, *case.args), magnitude, case.size[0] * case.size[1])


@every_case
def test_bprop_on_floats(backend, rng, case):
    dy = cases.floats(rng, case.y_shape)
    dx = check.call(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args)
    magnitude = reference.avgpool_bprop(abs(dy), case.x_shape, *case.args)
    length = case.size[0] * case.size[1]
    check.close(dx, reference.avgpool_bprop(dy, case.x_shape, *case.args), magnitude, length)


@every_case
def test_average_of_equal_values_is_that_value(backend, case):
    """Were the divisor not that of the clipped window, the edges would differ."""
    x = np.full(case.x_shape, 3.0, np.float32)
    y = check.call(backend, ops.avgpool_fprop, x, *case.args)
    check.close(y, np.full(case.y_shape, 3.0), 3.0)


@some_cases
def test_gradient_against_differences_of_the_reference(backend, rng, case):
    x, dy = cases.floats(rng, case.x_shape), cases.floats(rng, case.y_shape)
    dx = check.call(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args)
    check.gradient(lambda v: reference.avgpool_fprop(v, *case.args), x, dy, dx)


@powers_of_two
def test_passes_are_adjoint(backend, rng, case):
    x, dy = cases.integers(rng, case.x_shape), cases.integers(rng, case.y_shape)
    y = check.call(backend, ops.avgpool_fprop, x, *case.args)
    dx = check.call(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args)
    check.adjoint(dy, y, dx, x)


@powers_of_two
def test_unaligned_arrays(backend, rng, case):
    x, dy = cases.integers(rng, case.x_shape), cases.integers(rng, case.y_shape)
    for y in check.calls_on_unaligned(backend, ops.avgpool_fprop, x, *case.args):
        check.equal(y, reference.avgpool_fprop(x, *case.args))
    for dx in check.calls_on_unaligned(backend, ops.avgpool_bprop, dy, case.x_shape, *case.args):
        check.equal(dx, reference.avgpool_bprop(dy, case.x_shape, *case.args))


def test_a_window_may_have_more_than_256_elements(backend, rng):
    x = cases.integers(rng, (2, 32, 16, 3))
    y = check.call(backend, ops.avgpool_fprop, x, (32, 16), 1)
    check.equal(y, reference.avgpool_fprop(x, (32, 16), (1, 1)))
