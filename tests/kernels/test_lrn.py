"""Local response normalization, with hyper-parameters at which a wrong window is a wrong result.

At the paper's alpha of 1e-4 a window shifted by one channel changes the fifth digit; at alpha = 1
it changes the first. So the table runs alpha = 1, and the paper's values once.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

every_case = pytest.mark.parametrize("case", cases.LRN, ids=str)
small_cases = pytest.mark.parametrize("case", [c for c in cases.LRN if c.small], ids=str)


def bprop_magnitude(x, dy, **options):
    """The sum of the absolute values of both terms of dx."""
    scale = {key: value for key, value in options.items() if key != "beta"}
    direct = abs(dy) * reference.lrn_scale(x, **scale) ** -options["beta"]
    return 2 * direct - reference.lrn_bprop(abs(x), abs(dy), **options)


@every_case
def test_fprop(backend, rng, case):
    x = cases.floats(rng, case.x_shape)
    y = check.call(backend, ops.lrn_fprop, x, **case.options)
    expected = reference.lrn_fprop(x, **case.options)
    check.close(y, expected, expected, case.n)


@every_case
def test_bprop(backend, rng, case):
    x, dy = cases.floats(rng, case.x_shape), cases.floats(rng, case.x_shape)
    dx = check.call(backend, ops.lrn_bprop, x, dy, **case.options)
    magnitude = bprop_magnitude(x, dy, **case.options)
    check.close(dx, reference.lrn_bprop(x, dy, **case.options), magnitude, case.n)


@small_cases
def test_gradient_against_differences_of_the_reference(backend, rng, case):
    x, dy = cases.floats(rng, case.x_shape), cases.floats(rng, case.x_shape)
    dx = check.call(backend, ops.lrn_bprop, x, dy, **case.options)
    check.gradient(lambda v: reference.lrn_fprop(v, **case.options), x, dy, dx)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("groups", [1, 2])
def test_reach_of_one_channel(backend, n, groups):
    """One channel at a time is large; exactly those whose window holds it must feel it."""
    channels = 12
    x = np.ones((channels, channels), np.float32) + 9 * np.eye(channels, dtype=np.float32)
    y = check.call(backend, ops.lrn_fprop, x, n=n, k=1.0, alpha=1.0, beta=1.0, groups=groups)
    expected = np.empty_like(x, np.float64)
    for i in range(channels):
        for row in range(channels):
            window = [
                j
                for j in range(i - n // 2, i - n // 2 + n)
                if 0 <= j < channels and j * groups // channels == i * groups // channels
            ]
            total = 1 + sum(100 if j == row else 1 for j in window)
            expected[row, i] = x[row, i] / total
    check.close(y, expected, expected, n)


def test_defaults_are_the_paper(backend, rng):
    x, dy = 30 * cases.floats(rng, (2, 3, 8)), cases.floats(rng, (2, 3, 8))
    paper = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "groups": 1, "alpha_mode": "sum"}
    check.same_bits(
        check.call(backend, ops.lrn_fprop, x), check.call(backend, ops.lrn_fprop, x, **paper)
    )
    check.same_bits(
        check.call(backend, ops.lrn_bprop, x, dy),
        check.call(backend, ops.lrn_bprop, x, dy, **paper),
    )


def test_mean_divides_alpha_by_n(backend, rng):
    x = cases.floats(rng, (4, 10))
    mean = check.call(backend, ops.lrn_fprop, x, n=4, alpha=2.0, alpha_mode="mean")
    check.same_bits(mean, check.call(backend, ops.lrn_fprop, x, n=4, alpha=0.5, alpha_mode="sum"))


def test_large_values_stay_finite(backend):
    """x^2 near the top of float32's range, as in a net about to diverge: small, but no NaN."""
    x = np.full((2, 8), 1e15, np.float32)
    y = check.call(backend, ops.lrn_fprop, x, k=2.0, alpha=1.0, beta=0.75)
    expected = reference.lrn_fprop(x, alpha=1.0)
    check.close(y, expected, expected, 5)


@pytest.mark.parametrize("channels", [8, 9], ids=["by warps", "by blocks"])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_a_sum_beyond_float32_gives_small_numbers(backend, channels, beta):
    """x^2 is infinite, which must not become 0 * infinity."""
    x = np.array([[1e20] * channels, [1e38] * channels], np.float32)
    y = check.call(backend, ops.lrn_fprop, x, k=2.0, alpha=1.0, beta=beta)
    assert (abs(y) <= 1.001 * x * float(np.finfo(np.float32).max) ** -beta).all()
    dx = check.call(backend, ops.lrn_bprop, x, np.ones_like(x), k=2.0, alpha=1.0, beta=beta)
    assert np.isfinite(dx).all()


def test_nan_stays_inside_its_windows(backend):
    x, dy = np.ones((2, 3, 12), np.float32), np.ones((2, 3, 12), np.float32)
    x[0, 1, 4] = np.nan
    options = {"n": 3, "alpha": 1.0, "groups": 2}
    y = check.call(backend, ops.lrn_fprop, x, **options)
    check.equal(np.isnan(y), np.isnan(reference.lrn_fprop(x, **options)))
    dx = check.call(backend, ops.lrn_bprop, x, dy, **options)
    check.equal(np.isnan(dx), np.isnan(reference.lrn_bprop(x, dy, **options)))


@pytest.mark.parametrize("channels", [16, 17])
def test_unaligned_arrays(backend, rng, channels):
    x, dy = (cases.floats(rng, (3, 5, channels)) for _ in range(2))
    expected = reference.lrn_fprop(x, alpha=1.0)
    for y in check.calls_on_unaligned(backend, ops.lrn_fprop, x, alpha=1.0):
        check.close(y, expected, expected, 5)
    options = {"n": 5, "k": 2.0, "alpha": 1.0, "beta": 0.75, "groups": 1, "alpha_mode": "sum"}
    expected, magnitude = (f(x, dy, **options) for f in (reference.lrn_bprop, bprop_magnitude))
    for dx in check.calls_on_unaligned(backend, ops.lrn_bprop, x, dy, alpha=1.0):
        check.close(dx, expected, magnitude, 5)
