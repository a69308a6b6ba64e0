"""Elementwise functions: values, gradients, kinks, extremes, in place; and dst += src."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

every_kind = pytest.mark.parametrize("kind", reference.ACTIVATIONS)
exact_kinds = pytest.mark.parametrize("kind", ["relu", "abs", "square", "brelu", "affine"])
with_kink = pytest.mark.parametrize("kind", ["relu", "abs", "brelu"])
constants = pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.5, 0.625)])
COUNT = (7, 33, 293)  # not a multiple of a vector, and more than two threads' share


def inputs(rng, kind, shape=COUNT):
    """Values across magnitudes, inside the domain of the function."""
    x = cases.floats(rng, shape) * 10.0 ** rng.uniform(-3, 1, shape)
    return (abs(x) + 1e-3 if kind in ("sqrt", "log") else x).astype(np.float32)


def saved(kind, x, a=1.0, b=1.0):
    """What the backward pass is given: the rounded output, or the input."""
    if not ops.activation_saves_output(kind):
        return x
    return reference.activation_fprop(kind, x, a, b).astype(np.float32)


@every_kind
@constants
def test_fprop(backend, rng, kind, a, b):
    x = inputs(rng, kind)
    y = check.call(backend, ops.activation_fprop, kind, x, a, b)
    expected = reference.activation_fprop(kind, x, a, b)
    check.close(y, expected, check.activation_magnitude(kind, x, a, b))


@every_kind
@constants
def test_bprop(backend, rng, kind, a, b):
    x, dy = inputs(rng, kind), cases.floats(rng, COUNT)
    dx = check.call(backend, ops.activation_bprop, kind, saved(kind, x, a, b), dy, a, b)
    expected = dy * reference.activation_slope(kind, x, a, b)
    check.close(dx, expected, abs(dy) * check.slope_magnitude(kind, x, a, b))


@every_kind
def test_gradient_against_differences_of_the_reference(backend, rng, kind):
    x, dy = cases.distinct(rng, (11, 13)), cases.floats(rng, (11, 13))
    x = x * 2 + (2.5 if kind in ("sqrt", "log") else 0.003)  # away from 0, where kinks are
    kept = saved(kind, x, 1.5, 0.625)
    dx = check.call(backend, ops.activation_bprop, kind, kept, dy, 1.5, 0.625)
    check.gradient(lambda v: reference.activation_fprop(kind, v, 1.5, 0.625), x, dy, dx)


@exact_kinds
def test_exact_on_integers(backend, rng, kind):
    x, dy = cases.integers(rng, COUNT), cases.integers(rng, COUNT)
    y = check.call(backend, ops.activation_fprop, kind, x, 2.0, 3.0)
    check.equal(y, reference.activation_fprop(kind, x, 2.0, 3.0))
    kept = saved(kind, x, 2.0, 3.0)
    dx = check.call(backend, ops.activation_bprop, kind, kept, dy, 2.0, 3.0)
    check.equal(dx, dy * reference.activation_slope(kind, x, 2.0, 3.0))


@with_kink
def test_gradient_is_zero_at_kinks(backend, kind):
    x = np.array([-2.0, -0.0, 0.0, 2.0, 3.0, 1.0], np.float32)
    dy = np.full_like(x, 7)
    dx = check.call(backend, ops.activation_bprop, kind, saved(kind, x, 2.0), dy, 2.0)
    expected = {
        "relu": [0, 0, 0, 7, 7, 7],
        "abs": [-7, 0, 0, 7, 7, 7],
        "brelu": [0, 0, 0, 0, 0, 7],
    }
    check.equal(dx, np.array(expected[kind]))


@every_kind
def test_nan_passes_through(backend, kind):
    """A net that has diverged must show it."""
    x = np.array([1.0, np.nan, 2.0, np.nan, 0.5], np.float32)
    y = check.call(backend, ops.activation_fprop, kind, x, 1.5, 0.5)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("tanh", -1.5, 1.5), ("sigmoid", 0, 1), ("softplus", 0, 1e4), ("relu", 0, 1e4)],
)
def test_far_from_zero(backend, kind, low, high):
    """Where e^x over- or underflows, the limit is the answer, and the gradient is finite."""
    x = np.array([-1e4, -200, -100, 100, 200, 1e4], np.float32)
    y = check.call(backend, ops.activation_fprop, kind, x, 1.5, 1.0)
    expected = reference.activation_fprop(kind, x, 1.5, 1.0)
    check.close(y, expected, check.activation_magnitude(kind, x, 1.5, 1.0))
    assert y[0] == low
    assert y[-1] == high
    dx = check.call(backend, ops.activation_bprop, kind, saved(kind, x, 1.5), x, 1.5, 1.0)
    assert np.isfinite(dx).all()


@every_kind
def test_in_place(backend, rng, kind):
    x, dy = inputs(rng, kind), cases.floats(rng, COUNT)
    kept = saved(kind, x, 1.5, 0.625)
    y = check.call(backend, ops.activation_fprop, kind, x, 1.5, 0.625)
    dx = check.call(backend, ops.activation_bprop, kind, kept, dy, 1.5, 0.625)
    array = backend.asarray(x.copy())
    assert ops.activation_fprop(kind, array, 1.5, 0.625, out=array) is array
    check.same_bits(np.array(backend.to_host(array)), y)
    array = backend.asarray(dy.copy())
    assert ops.activation_bprop(kind, backend.asarray(kept), array, 1.5, 0.625, out=array) is array
    check.same_bits(np.array(backend.to_host(array)), dx)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 31, 33, 127, 1025, 4099])
def test_every_length(backend, rng, count):
    x, dy = cases.integers(rng, (count,)), cases.integers(rng, (count,))
    check.equal(check.call(backend, ops.relu_fprop, x), np.maximum(x, 0))
    check.equal(check.call(backend, ops.relu_bprop, x, dy), np.where(x > 0, dy, 0))


@pytest.mark.parametrize("shape", [(), (1, 1, 1, 1, 3)])
def test_any_rank(backend, shape):
    x = np.full(shape, -3.0, np.float32)
    check.equal(np.array(backend.to_host(ops.abs_fprop(x))), np.full(shape, 3.0))


@pytest.mark.parametrize("kind", ["relu", "tanh", "sigmoid", "abs", "softplus"])
def test_thin_names(backend, rng, kind):
    x, dy = cases.floats(rng, (5, 7)), cases.floats(rng, (5, 7))
    fprop, bprop = getattr(ops, f"{kind}_fprop"), getattr(ops, f"{kind}_bprop")
    y = check.call(backend, fprop, x)
    check.same_bits(y, check.call(backend, ops.activation_fprop, kind, x))
    kept = saved(kind, x)
    dx = check.call(backend, bprop, kept, dy)
    check.same_bits(dx, check.call(backend, ops.activation_bprop, kind, kept, dy))


def test_unaligned_arrays(backend, rng):
    x, dy = cases.integers(rng, COUNT), cases.integers(rng, COUNT)
    for y in check.calls_on_unaligned(backend, ops.relu_fprop, x):
        check.equal(y, np.maximum(x, 0))
    for dx in check.calls_on_unaligned(backend, ops.relu_bprop, x, dy):
        check.equal(dx, np.where(x > 0, dy, 0))


@pytest.mark.parametrize("count", [1, 3, 4, 33, 1025, 100_003])
def test_accumulate(backend, rng, count):
    dst, src = cases.integers(rng, (count,)), cases.integers(rng, (count,))
    guard, source = check.Guarded.of(backend, dst), check.Guarded.of(backend, src)
    assert ops.accumulate(guard.array, source.array) is guard.array
    check.equal(guard.check(), dst + src)
    check.equal(source.check(), src)
