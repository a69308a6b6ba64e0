"""Convolutions of the shapes that decide which tile a GPU kernel takes, and how a sum is split.

The kernels choose by the numbers of pixels, of filters and of channels (gemm/plan.cu). These
cases go through every tile of FFMA's, for 128-bit loads and without, with ragged edges;
test_conv.py has the geometry, test_precision.py the other tiles.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase, DenseCase

from convnet import ops


def same(c: int, k: int, n: int = 2, groups: int = 1, stride: int = 1) -> ConvCase:
    """A 3x3 convolution of 7 x 6 pixels: 84 rows with the batch of 2."""
    name = f"{c}-channels-{k}-filters" + (f"-{groups}-groups" if groups > 1 else "")
    name += (f"-batch-{n}" if n != 2 else "") + (f"-stride-{stride}" if stride > 1 else "")
    return ConvCase(name, n, 7, 6, c, k, 3, 3, (stride, stride), (1, 1), groups)


# The widths of the result: up to 32 takes narrow tiles, up to 64 medium ones, more large ones.
TILES = tuple(
    same(c, k)
    for c, k in (
        *((8, 72), (8, 40), (8, 8), (72, 8), (40, 8)),  # 128-bit loads
        *((9, 70), (9, 41), (9, 9), (70, 9), (41, 9)),  # single loads
        (10, 72),  # 128-bit stores of what single loads have read
        (72, 10),  # and the other way round
        (8, 136),  # two columns of tiles
    )
)
SPLITS = (
    same(64, 24),
    same(24, 64),
    same(30, 65),
    same(48, 72, groups=2),
    same(40, 40, n=7),
    same(36, 68, n=4, stride=2),
    same(33, 10, n=5, stride=2),
)
DENSE_SPLITS = (DenseCase("wide", 3, 1030, 17), DenseCase("deep", 1100, 20, 9))
both_ways = pytest.mark.parametrize(
    "precision", ["ffma", "fp32"]
)  # of float32; test_precision.py has the rest
every_tile = pytest.mark.parametrize("case", TILES, ids=str)
every_split = pytest.mark.parametrize("case", SPLITS, ids=str)


def check_exactly(backend, rng, case: ConvCase, precision: str) -> None:
    """All passes, with everything that an epilogue can do, on whole numbers."""
    x, w, dy = (cases.integers(rng, s) for s in (case.x_shape, case.w_shape, case.y_shape))
    b, mask = cases.integers(rng, (case.k,)), cases.integers(rng, case.x_shape)
    y = check.call(backend, ops.conv_fprop, x, w, b, relu=True, precision=precision, **case.options)
    check.equal(y, reference.conv_fprop(x, w, b, relu=True, **case.options))
    masked = {"relu_mask": mask, **case.options}
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, precision=precision, **masked)
    check.equal(dx, reference.conv_dgrad(dy, w, case.x_shape, **masked))
    results = check.call(
        backend, ops.conv_wgrad, x, dy, case.w_shape, precision=precision, **case.options
    )
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    for result, value in zip(results, expected, strict=True):
        check.equal(result, value)


@both_ways
@every_tile
def test_every_tile_is_exact_on_integers(backend, rng, case, precision):
    check_exactly(backend, rng, case, precision)


@both_ways
@every_split
def test_split_sums_are_exact_on_integers(backend, rng, case, precision):
    check_exactly(backend, rng, case, precision)


@both_ways
@every_split
def test_split_sums_on_floats(backend, rng, case, precision):
    x, w, dy = (cases.floats(rng, s) for s in (case.x_shape, case.w_shape, case.y_shape))
    y = check.call(backend, ops.conv_fprop, x, w, precision=precision, **case.options)
    magnitude = reference.conv_fprop(abs(x), abs(w), **case.options)
    length = 9 * case.c // case.groups
    check.close(y, reference.conv_fprop(x, w, **case.options), magnitude, length)
    results = check.call(
        backend, ops.conv_wgrad, x, dy, case.w_shape, precision=precision, **case.options
    )
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    magnitudes = reference.conv_wgrad(abs(x), abs(dy), case.w_shape, **case.options)
    length = case.n * case.output[0] * case.output[1]
    for result, value, magnitude in zip(results, expected, magnitudes, strict=True):
        check.close(result, value, magnitude, length)


@both_ways
@pytest.mark.parametrize("case", DENSE_SPLITS, ids=str)
def test_split_dense_sums_are_exact_on_integers(backend, rng, case, precision):
    x, w = cases.integers(rng, (case.n, case.c)), cases.integers(rng, (case.k, case.c))
    b, dy = cases.integers(rng, (case.k,)), cases.integers(rng, (case.n, case.k))
    y = check.call(backend, ops.dense_fprop, x, w, b, relu=True, precision=precision)
    check.equal(y, reference.dense_fprop(x, w, b, relu=True))
    dx = check.call(backend, ops.dense_dgrad, dy, w, relu_mask=x, precision=precision)
    check.equal(dx, reference.dense_dgrad(dy, w, relu_mask=x))
    results = check.call(backend, ops.dense_wgrad, x, dy, precision=precision)
    for result, value in zip(results, reference.dense_wgrad(x, dy), strict=True):
        check.equal(result, value)


@both_ways
@pytest.mark.parametrize("case", [*TILES[:2], *SPLITS[:2]], ids=str)
def test_alignment_does_not_change_a_bit(kernels_backend, rng, case, precision):
    """Single loads instead of 128-bit ones, and the same sums in the same order."""
    x, w, dy = (cases.floats(rng, s) for s in (case.x_shape, case.w_shape, case.y_shape))
    aligned = [kernels_backend.asarray(array) for array in (x, w, dy)]
    unaligned = [check.unaligned(kernels_backend, array) for array in (x, w, dy)]
    results = []
    for x, w, dy in (aligned, unaligned):
        y = ops.conv_fprop(x, w, precision=precision, **case.options)
        dx = ops.conv_dgrad(dy, w, case.x_shape, precision=precision, **case.options)
        dw, db = ops.conv_wgrad(x, dy, case.w_shape, precision=precision, **case.options)
        results.append([np.array(kernels_backend.to_host(array)) for array in (y, dx, dw, db)])
    for one, other in zip(*results, strict=True):
        check.same_bits(one, other)


@both_ways
def test_a_sum_in_one_part_needs_no_workspace_and_a_long_one_does(kernels_backend, precision):
    """The cases above are what they claim to be."""
    for case in SPLITS:
        assert workspace_bytes(kernels_backend, precision, "fprop", case) > 0
        assert workspace_bytes(kernels_backend, precision, "dgrad", case) > 0 or case.n > 2
    assert workspace_bytes(kernels_backend, precision, "wgrad", same(40, 40, n=7)) > 0
    assert workspace_bytes(kernels_backend, precision, "fprop", same(8, 8)) == 0
    assert workspace_bytes(kernels_backend, precision, "wgrad", same(8, 8, n=1)) == 0


def test_a_workspace_may_begin_anywhere(kernels_backend, rng):
    case = SPLITS[0]
    x, dy = (cases.integers(rng, shape) for shape in (case.x_shape, case.y_shape))
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    x, dy = kernels_backend.asarray(x), kernels_backend.asarray(dy)
    dw, db = kernels_backend.empty(case.w_shape), kernels_backend.empty((case.k,))
    size = workspace_bytes(kernels_backend, "fp32", "wgrad", case)
    space = kernels_backend.asarray(np.full(size + 32, 165, np.uint8))
    for first in (1, 16):
        args = (1, 1, "floor", 1, "fp32", space[first : first + size])
        kernels_backend.module.conv_wgrad(x, dy, dw, db, *args, kernels_backend.stream())
        check.equal(np.array(kernels_backend.to_host(dw)), expected[0])
        check.equal(np.array(kernels_backend.to_host(db)), expected[1])
    margins = np.array(kernels_backend.to_host(space))
    assert (margins[:1] == 165).all()
    assert (margins[16 + size :] == 165).all()


def workspace_bytes(backend, precision: str, step: str, case: ConvCase) -> int:
    window = (case.options["stride"], case.options["pad"], case.options["rounding"])
    shapes = case.x_shape, case.w_shape
    return backend.module.conv_workspace(step, *shapes, *window, case.groups, precision, "float32")
