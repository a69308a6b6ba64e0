"""LRN and max-pool in one operation: the bits of the two after each other, and the reference."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

# name, x_shape, pool (size, stride, pad, rounding), LRN
CASES = {
    "paper": ((2, 7, 9, 16), ((3, 3), (2, 2), (0, 0), "ceil"), {"k": 2.0, "alpha": 1e-4}),
    "groups": ((2, 8, 6, 48), ((3, 3), (2, 2), (0, 0), "ceil"), {"groups": 2}),
    "halo-lanes": ((2, 5, 6, 24), ((3, 3), (2, 2), (0, 0), "ceil"), {"groups": 2}),
    "fours": ((1, 6, 7, 20), ((2, 3), (1, 2), (0, 1), "floor"), {}),
    "32-channels": ((2, 6, 5, 32), ((2, 2), (2, 2), (0, 0), "ceil"), {}),
    "window-of-3": ((2, 7, 5, 16), ((3, 3), (2, 2), (1, 1), "ceil"), {"n": 3, "groups": 2}),
    "stride-beyond": ((1, 9, 8, 8), ((2, 1), (3, 4), (0, 0), "ceil"), {}),
    "stride-1": ((1, 5, 6, 16), ((3, 3), (1, 1), (1, 1), "ceil"), {}),
    "whole-image": ((3, 5, 4, 8), ((5, 4), (1, 1), (0, 0), "ceil"), {}),
    "tall-window": ((1, 9, 3, 8), ((8, 2), (1, 2), (2, 0), "ceil"), {}),
    "largest-window": ((1, 18, 17, 4), ((16, 16), (2, 1), (0, 0), "ceil"), {}),
    "largest-window-narrow-slabs": ((1, 17, 17, 64), ((16, 16), (2, 1), (0, 0), "ceil"), {}),
    "17-channels": ((2, 7, 6, 17), ((3, 3), (2, 2), (0, 0), "ceil"), {}),
    "3-channels": ((2, 7, 6, 3), ((3, 3), (2, 2), (0, 0), "ceil"), {}),
    "odd-groups": ((2, 6, 7, 18), ((3, 3), (2, 2), (0, 0), "ceil"), {"groups": 3}),
    "window-of-4": ((1, 6, 7, 16), ((3, 3), (2, 2), (0, 0), "ceil"), {"n": 4}),
    "window-of-9": ((1, 6, 7, 32), ((3, 3), (2, 2), (0, 0), "ceil"), {"n": 9}),
    "beta-half": ((1, 6, 7, 16), ((3, 3), (2, 2), (0, 0), "ceil"), {"beta": 0.5}),
    "beta-1.3": ((1, 6, 7, 16), ((3, 3), (2, 2), (0, 0), "ceil"), {"beta": 1.3}),
    "mean": ((1, 6, 7, 16), ((3, 3), (2, 2), (0, 0), "ceil"), {"alpha_mode": "mean"}),
    "several-slabs": ((1, 5, 7, 136), ((3, 3), (2, 2), (0, 0), "ceil"), {}),
    "several-tiles": ((1, 5, 67, 128), ((3, 3), (2, 2), (0, 0), "ceil"), {"groups": 2}),
    "several-bands": ((1, 23, 5, 32), ((3, 3), (2, 2), (0, 0), "ceil"), {}),
}


def problem(rng, name, integers=False):
    x_shape, pool, norm = CASES[name]
    norm = {"n": 5, "k": 1.0, "alpha": 1.0, "beta": 0.75, "groups": 1, "alpha_mode": "sum"} | norm
    make = cases.integers if integers else cases.floats
    x = make(rng, x_shape)
    dy = make(rng, (x_shape[0], *reference.pool_size(x_shape, *pool), x_shape[3]))
    return x, dy, pool, norm


def apart(backend, x, dy, pool, norm, relu_mask):
    """The operations one after the other."""
    z = ops.lrn_fprop(x, **norm)
    y, argmax = ops.maxpool_fprop(z, *pool)
    dx = ops.lrn_bprop(x, ops.maxpool_bprop(dy, argmax, x.shape, *pool), **norm)
    if relu_mask:
        ops.relu_bprop(x, dx, out=dx)
    return y, argmax, dx


@pytest.mark.parametrize("name", CASES)
def test_same_bits_as_apart(backend, rng, name):
    x, dy, pool, norm = problem(rng, name)
    arrays = backend.asarray(x), backend.asarray(dy)
    for relu_mask in (False, True):
        y, argmax, dx = map(backend.to_host, apart(backend, *arrays, pool, norm, relu_mask))
        got_y, got_argmax = check.call(backend, ops.lrn_maxpool_fprop, x, *pool, **norm)
        check.same_bits(got_y, np.array(y))
        check.equal(got_argmax, np.array(argmax))
        got = check.call(backend, ops.lrn_maxpool_bprop, x, dy, got_argmax, *pool, **norm,
                         relu_mask=relu_mask)  # fmt: skip
        check.same_bits(got, np.array(dx))


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(backend, rng, name):
    x, dy, pool, norm = problem(rng, name)
    z = reference.lrn_fprop(x, **norm)
    y, argmax = check.call(backend, ops.lrn_maxpool_fprop, x, *pool, **norm)
    expected_y, _ = reference.maxpool_fprop(z, *pool)
    check.close(y, expected_y, np.abs(expected_y), norm["n"])
    dx = check.call(backend, ops.lrn_maxpool_bprop, x, dy, argmax, *pool, **norm)
    dz = reference.maxpool_bprop(dy, argmax, x.shape, *pool)
    size = reference.maxpool_bprop(abs(dy), argmax, x.shape, *pool)
    scale = {key: value for key, value in norm.items() if key != "beta"}
    direct = size * reference.lrn_scale(x, **scale) ** -norm["beta"]
    magnitude = 2 * direct - reference.lrn_bprop(abs(x), size, **norm)
    terms = norm["n"] + pool[0][0] * pool[0][1]
    check.close(dx, reference.lrn_bprop(x, dz, **norm), magnitude, terms)


def test_ties_nan_and_the_mask(backend, rng):
    x, dy, pool, norm = problem(rng, "groups", integers=True)
    x = np.maximum(x, 0)  # many ties of zeros
    for values in (x, np.where(rng.random(x.shape) < 0.02, np.nan, x).astype(np.float32)):
        arrays = backend.asarray(values), backend.asarray(dy)
        y, argmax, dx = map(backend.to_host, apart(backend, *arrays, pool, norm, True))
        got_y, got_argmax = check.call(backend, ops.lrn_maxpool_fprop, values, *pool, **norm)
        check.equal(got_y, np.array(y))
        check.equal(got_argmax, np.array(argmax))
        got = check.call(backend, ops.lrn_maxpool_bprop, values, dy, got_argmax, *pool, **norm,
                         relu_mask=True)  # fmt: skip
        check.equal(got, np.array(dx))
        assert not np.any(got[values <= 0])


@pytest.mark.parametrize("name", ["groups", "17-channels"])
def test_unaligned_arrays(backend, rng, name):
    x, dy, pool, norm = problem(rng, name)
    expected_y, codes = check.call(backend, ops.lrn_maxpool_fprop, x, *pool, **norm)
    for y, argmax in check.calls_on_unaligned(backend, ops.lrn_maxpool_fprop, x, *pool, **norm):
        check.close(y, expected_y, abs(expected_y), 5)
        check.equal(argmax, codes)
    bprop = (backend, ops.lrn_maxpool_bprop, x, dy, codes, *pool)
    expected = check.call(*bprop, **norm)
    for dx in check.calls_on_unaligned(*bprop, **norm):
        check.close(dx, expected, np.abs(expected).max(), 5)


def test_bytes_that_point_nowhere_credit_nothing(backend, rng):
    x, dy, pool, norm = problem(rng, "paper")
    argmax = rng.integers(9, 256, dy.shape).astype(np.uint8)
    dx = check.call(backend, ops.lrn_maxpool_bprop, x, dy, argmax, *pool, **norm)
    check.equal(dx, np.zeros_like(x))


BAD = {
    "size": (
        lambda z: ops.lrn_maxpool_fprop(z(1, 20, 20, 8), 17, 1),
        "lrn_maxpool_fprop: size: expected at most 256 elements",
    ),
    "rank": (lambda z: ops.lrn_maxpool_fprop(z(4, 8), 3, 2), "x: expected 4 dimensions"),
    "groups": (
        lambda z: ops.lrn_maxpool_fprop(z(1, 4, 4, 8), 3, 2, groups=3),
        "lrn_maxpool_fprop: groups: expected a divisor of",
    ),
    "dy": (
        lambda z: ops.lrn_maxpool_bprop(z(1, 5, 5, 8), z(1, 2, 3, 8), z(1, 2, 2, 8), 3, 2),
        r"lrn_maxpool_bprop: dy: expected shape \(1, 2, 2, 8\), got \(1, 2, 3, 8\)",
    ),
    "argmax": (
        lambda z: ops.lrn_maxpool_bprop(z(1, 5, 5, 8), z(1, 2, 2, 8), z(1, 2, 2, 8), 3, 2),
        "lrn_maxpool_bprop: argmax: expected .*uint8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(backend, name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call(lambda *shape: backend.zeros(shape))


def test_output_over_the_input_is_refused(backend):
    x = backend.zeros((1, 5, 5, 8))
    _, argmax = ops.lrn_maxpool_fprop(x, 3, 2)
    with pytest.raises(ValueError, match="dx: expected memory apart from x"):
        ops.lrn_maxpool_bprop(x, backend.zeros((1, 2, 2, 8)), argmax, 3, 2, out=x)


SHORTER = """
import numpy as np
from convnet import ops
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 9, 8, {channels}), np.float32)
y, argmax = ops.lrn_maxpool_fprop(x, 3, 2, alpha=1.0)
z, again = ops.maxpool_fprop(ops.lrn_fprop(x, alpha=1.0), 3, 2)
dx = ops.lrn_maxpool_bprop(x, y, argmax, 3, 2, alpha=1.0)
dz = ops.lrn_bprop(x, ops.maxpool_bprop(y, argmax, x.shape, 3, 2), alpha=1.0)
assert (y == z).all() and (argmax == again).all() and (dx == dz).all()
print(repr((float(np.abs(y).sum(dtype="f8")), float(np.abs(dx).sum(dtype="f8")))))
"""


@pytest.mark.parametrize("channels", [32, 20, 3])
def test_with_shorter_vectors(channels):
    """What older processors run: same bits fused and apart, and the same results to rounding."""
    code, results = SHORTER.format(channels=channels), []
    for isa in ("avx512", "avx2", "sse2"):
        env = os.environ | {"CONVNET_CPU_ISA": isa}
        run = subprocess.run(
            [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        results.append(eval(run.stdout))
    for one, other in itertools.pairwise(results):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_ring_is_used_again(backend, rng):
    """So many images that a block of the kernel makes several rows of outputs, by several warps,
    and writes over rows of its ring that others may still be reading."""
    x = backend.asarray(cases.floats(rng, (1024, 3, 34, 8)))
    y, argmax, _ = apart(backend, x, backend.zeros((1024, 2, 17, 8)), (2, (1, 2)), {}, False)
    for order in check.ORDERS.get(backend.name, ()):
        with check.kernel_order(order):
            got_y, got_argmax = ops.lrn_maxpool_fprop(x, 2, (1, 2))
        check.same_bits(np.array(backend.to_host(got_y)), np.array(backend.to_host(y)))
        check.equal(np.array(backend.to_host(got_argmax)), np.array(backend.to_host(argmax)))
