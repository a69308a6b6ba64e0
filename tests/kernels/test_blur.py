"""The blur, and the nailbed with its transpose."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

blurs = pytest.mark.parametrize(("shape", "size", "std"), cases.BLUR)
nailbeds = pytest.mark.parametrize(("shape", "stride", "start"), cases.NAILBED)


@blurs
def test_blur_and_its_gradient(backend, rng, shape, size, std):
    """Prefilled with NaN and between canaries, on floats; the gradient by differences."""
    x, dy = cases.floats(rng, shape), cases.floats(rng, shape)
    y = check.call(backend, ops.blur_fprop, x, size, std)
    magnitude = reference.blur(abs(x), size, std)
    check.close(y, reference.blur(x, size, std), magnitude, 2 * size)
    dx = check.call(backend, ops.blur_bprop, dy, size, std)
    check.gradient(lambda v: reference.blur(v, size, std), x, dy, dx)


@blurs
def test_blur_of_unaligned_arrays_has_the_same_bits(backend, rng, shape, size, std):
    x = cases.floats(rng, shape)
    y = check.call(backend, ops.blur_fprop, x, size, std)
    for other in check.calls_on_unaligned(backend, ops.blur_fprop, x, size, std):
        check.same_bits(other, y)


def test_blur_keeps_what_is_even(backend):
    """The weights sum to 1: away from the edges nothing changes."""
    y = check.call(backend, ops.blur_fprop, np.full((1, 12, 11, 4), 3.0, np.float32), 5, 1.1)
    check.close(y[:, 2:-2, 2:-2], np.full((1, 8, 7, 4), 3.0), 3.0, 10)


@nailbeds
def test_nailbed_and_its_gradient_are_exact(backend, rng, shape, stride, start):
    x = cases.integers(rng, shape)
    expected = reference.nailbed_fprop(x, stride, start)
    y = check.call(backend, ops.nailbed_fprop, x, stride, start)
    check.equal(y, expected)
    dy = cases.integers(rng, expected.shape)
    dx = check.call(backend, ops.nailbed_bprop, dy, shape, stride, start)
    check.equal(dx, reference.nailbed_bprop(dy, shape, stride, start))
    check.adjoint(dy, y, dx, x)
    for other in check.calls_on_unaligned(backend, ops.nailbed_fprop, x, stride, start):
        check.equal(other, y)
    for other in check.calls_on_unaligned(backend, ops.nailbed_bprop, dy, shape, stride, start):
        check.equal(other, dx)
