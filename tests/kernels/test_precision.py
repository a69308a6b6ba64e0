"""The precisions of convolutions and dense layers, each to its accuracy.

Whole numbers up to 4 are the same in TF32 and bfloat16, so every way is exact on them. On floats,
what counts is the relative error of a whole result (the L2 norm) against float64.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
from cases import ConvCase, DenseCase
from passes import conv_passes, dense_passes

from convnet import ops

# Every tile of src/kernels/gemm/tiles.cuh, by the width of the result: up to 32, 64, 96, more; with
# 16-byte copies and single ones, ragged along each side. Sums of 32 products at least.
CONV = (
    ConvCase("small-tiles", 3, 7, 6, 8, 24, 3, 3, pad=(1, 1)),
    ConvCase("medium-tiles", 3, 7, 6, 40, 44, 3, 3, pad=(1, 1)),
    ConvCase("ninety-six", 2, 7, 6, 72, 92, 3, 3, pad=(1, 1)),
    ConvCase("large-tiles", 2, 7, 6, 100, 136, 3, 3, pad=(1, 1)),
    ConvCase("medium-for-192", 2, 7, 5, 4, 180, 3, 3, pad=(1, 1)),
    ConvCase("single-copies", 2, 7, 6, 17, 35, 3, 3, pad=(1, 1)),
    ConvCase("single-copies-wide", 2, 7, 5, 5, 101, 3, 3, pad=(1, 1)),
    ConvCase("groups-2", 2, 9, 8, 16, 80, 5, 5, pad=(2, 2), groups=2),
    ConvCase("groups-3-odd", 2, 7, 7, 15, 21, 3, 3, pad=(1, 1), groups=3),
    ConvCase("stride-2x3", 3, 11, 13, 12, 40, 4, 3, stride=(2, 3), pad=(1, 2)),
    ConvCase("ceil-overhang", 2, 10, 9, 8, 40, 3, 3, stride=(4, 4), rounding="ceil"),
    ConvCase("splits", 2, 5, 5, 64, 40, 3, 3, pad=(1, 1)),
    ConvCase("wgrad-splits", 7, 9, 8, 8, 12, 3, 3, pad=(1, 1)),
    # Three channels and stride 4: taken by columns, with and without padding and overhang.
    ConvCase("by-columns", 2, 24, 24, 3, 96, 11, 11, stride=(4, 4), rounding="ceil"),
    ConvCase("by-columns-pad", 3, 15, 16, 3, 40, 5, 5, stride=(2, 4), pad=(1, 4)),
    ConvCase("by-columns-one-channel", 5, 12, 20, 1, 33, 6, 7, stride=(3, 4)),
    ConvCase("by-columns-two-channels", 5, 9, 10, 2, 20, 4, 5, stride=(1, 2)),
    ConvCase("not-by-columns", 2, 23, 23, 3, 40, 11, 11, stride=(4, 4)),  # 69 floats in a row
)
DENSE = (
    DenseCase("fc", 65, 200, 130),
    DenseCase("fc-odd", 33, 77, 41),
    DenseCase("fc-one-image", 1, 1030, 17),
    DenseCase("fc-deep", 70, 2304, 36),
)
every_precision = pytest.mark.parametrize("precision", ops.PRECISIONS)


def once(backend, function, *args, **kwargs):
    """As check.call, without its repetitions."""
    moved = [backend.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    kwargs = {k: backend.asarray(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    results = function(*moved, **kwargs)
    hosts = [
        np.array(backend.to_host(r))
        for r in (results if isinstance(results, tuple) else (results,))
    ]
    return tuple(hosts) if isinstance(results, tuple) else hosts[0]


@every_precision
@pytest.mark.parametrize("case", CONV, ids=str)
def test_convolution_is_exact_on_integers(backend, rng, case, precision):
    for _, actual, expected in conv_passes(backend, case, cases.integers, rng, precision):
        check.equal(actual, expected)


@every_precision
@pytest.mark.parametrize("case", DENSE, ids=str)
def test_dense_is_exact_on_integers(backend, rng, case, precision):
    for _, actual, expected in dense_passes(backend, case, cases.integers, rng, precision):
        check.equal(actual, expected)


STEPS = {"y": "fprop", "dx": "dgrad", "dw": "wgrad"}


def computes_in(kernel: str, precision: str) -> bool:
    """Whether a kernel computes in this, a lower precision, by what `conv_kernel` says of it."""
    return kernel.startswith(("wgmma, ", "mma.sync, ")) or kernel.endswith(f", {precision}")


def check_accuracy(passes, precision: str, kernel) -> None:
    """Each pass to the accuracy that its `kernel(pass)` claims: of the lower precision, within its
    bounds and not better than it can be; or of float32, as db in any case."""
    least, most = check.REDUCED_ERRORS[precision]
    for name, actual, expected in passes:
        error = check.relative_error(actual, expected)
        said = kernel(STEPS[name]) if name in STEPS else "a plain sum"
        if computes_in(said, precision):
            assert least < error < most, (
                f"{name}: {error:.2e} is not {precision}, as {said} should be"
            )
        else:
            assert error < 1e-6, f"{name}: {error:.2e} is not float32, as {said} should be"


@pytest.mark.parametrize("precision", list(check.REDUCED_ERRORS))
@pytest.mark.parametrize("case", [CONV[2], CONV[5], CONV[7], CONV[13]], ids=str)
def test_lower_precision_is_what_it_says(backend, rng, case, precision):
    def kernel(step):
        return ops.conv_kernel(
            step, case.x_shape, case.w_shape, precision=precision, **case.options
        )

    check_accuracy(
        conv_passes(backend, case, cases.floats, rng, precision, call=once), precision, kernel
    )


@pytest.mark.parametrize("precision", list(check.REDUCED_ERRORS))
@pytest.mark.parametrize("case", [DENSE[0], DENSE[2], DENSE[3]], ids=str)
def test_lower_precision_of_dense_layers(backend, rng, case, precision):
    def kernel(step):
        return ops.dense_kernel(step, (case.n, case.c), (case.k, case.c), precision=precision)

    check_accuracy(
        dense_passes(backend, case, cases.floats, rng, precision, once), precision, kernel
    )


LONG = (
    ConvCase("k-32", 2, 9, 9, 32, 24, 1, 1),
    ConvCase("k-363", 2, 24, 24, 3, 40, 11, 11, stride=(4, 4), rounding="ceil"),
    ConvCase("k-1200", 2, 5, 6, 48, 40, 5, 5, pad=(2, 2)),
    DenseCase("k-9216", 20, 9216, 33),
)


@pytest.mark.parametrize("case", LONG, ids=str)
def test_fp32_is_no_worse_than_ffma(kernels_backend, case):
    """Against float64, and against what a single chain of float32 additions comes to: its error
    grows as the root of its length, 1.8e-8 each; FFMA may do better by splitting the sum."""
    passes = conv_passes if isinstance(case, ConvCase) else dense_passes
    errors = {}
    for precision in ("fp32", "ffma"):
        rng = np.random.default_rng(3)
        results = passes(kernels_backend, case, cases.floats, rng, precision, once)
        errors[precision] = {name: check.relative_error(a, e) for name, a, e in results}
    length = case.r * case.s * case.c if isinstance(case, ConvCase) else case.c
    assert errors["fp32"]["y"] < max(1.3e-7, 1.8e-8 * np.sqrt(length)), errors
    for name in ("y", "dx", "dw"):
        assert errors["fp32"][name] < 1.1 * errors["ffma"][name], (name, errors)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_not_a_number_stays_one(backend, rng, precision):
    """In x or w, whatever its bits: rounding must not make a number of it."""
    x, w = cases.floats(rng, (70, 64)), cases.floats(rng, (40, 64))
    for bits in (0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001):
        damaged = x.copy()
        damaged.view(np.uint32)[3, 5] = bits
        y = once(backend, ops.dense_fprop, damaged, w, precision=precision)
        assert np.isnan(y[3]).all()
        assert np.isfinite(np.delete(y, 3, axis=0)).all()


def with_infinities(rng, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Operands of a product with all that an infinity can meet: numbers, 0, itself, its opposite;
    and numbers so large that a rounding must not make them infinite."""
    a, b = rng.uniform(-0.9, 0.9, (rows, 64)), rng.uniform(-0.9, 0.9, (columns, 64))
    a[[3, 4], 5] = np.inf, -np.inf
    b[[2, 7], 5] = 0, np.inf
    a[5, [6, 7]] = np.inf, -np.inf
    a[6, 8] = -np.inf
    b[9, [8, 9]] = np.inf, 1e-30
    a[9, 9] = np.inf
    a[[7, 8], 10] = 3.3e38, -3.3e38
    return a.astype(np.float32), b.astype(np.float32)


def check_infinities(actual: np.ndarray, expected: np.ndarray) -> None:
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(actual), kind(expected), kind.__name__)


@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_infinity_is_as_ieee_754_has_it(backend, rng, precision):
    """In every pass: infinite, or NaN where it meets 0 or its opposite."""
    a, b = with_infinities(rng, 70, 40)
    with np.errstate(invalid="ignore"):
        expected = np.matmul(a.astype(np.float64), b.astype(np.float64).T)
    for kind in (np.isnan, np.isposinf, np.isneginf):
        assert kind(expected).any()
    transposed = [np.ascontiguousarray(m.T) for m in (a, b)]
    check_infinities(once(backend, ops.dense_fprop, a, b, precision=precision), expected)
    check_infinities(
        once(backend, ops.dense_dgrad, a, transposed[1], precision=precision), expected
    )
    dw, _ = once(backend, ops.dense_wgrad, transposed[1], transposed[0], precision=precision)
    check_infinities(dw, expected)


@pytest.mark.parametrize("case", [CONV[1], CONV[3], CONV[7], CONV[13]], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_alignment_does_not_change_a_bit(kernels_backend, rng, case, precision):
    """Single copies instead of 16 bytes, other tiles, and the same sums in the same order."""
    x, w, dy = (cases.floats(rng, s) for s in (case.x_shape, case.w_shape, case.y_shape))
    results = []
    for place in (kernels_backend.asarray, lambda a: check.unaligned(kernels_backend, a)):
        x_there, w_there, dy_there = place(x), place(w), place(dy)
        options = {"precision": precision, **case.options}
        y = ops.conv_fprop(x_there, w_there, **options)
        dx = ops.conv_dgrad(dy_there, w_there, case.x_shape, **options)
        dw, db = ops.conv_wgrad(x_there, dy_there, case.w_shape, **options)
        results.append([np.array(kernels_backend.to_host(array)) for array in (y, dx, dw, db)])
    for one, other in zip(*results, strict=True):
        check.same_bits(one, other)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("step", ["fprop", "wgrad"])
def test_huge_tiles(kernels_backend, rng, step, precision):
    """256 x 128, taken where there are 264 of them: here by one each for as many groups (in wgrad
    with bf16 only; tf32 has twice as many of half the size)."""
    groups, k = 264, 100
    n, c = (65, 32) if step == "fprop" else (33, 68)
    x = cases.integers(rng, (n, 1, 1, groups * c))
    w = cases.integers(rng, (groups * k, 1, 1, c))
    dy = cases.integers(rng, (n, 1, 1, groups * k))
    by_group = x.reshape(n, groups, c)
    if step == "fprop":
        y = once(kernels_backend, ops.conv_fprop, x, w, groups=groups, precision=precision)
        expected = np.einsum("ngc,gkc->ngk", by_group, w.reshape(groups, k, c))
        check.equal(y.reshape(n, groups, k), expected)
    else:
        options = {"groups": groups, "precision": precision}
        dw, db = once(kernels_backend, ops.conv_wgrad, x, dy, w.shape, **options)
        expected = np.einsum("ngk,ngc->gkc", dy.reshape(n, groups, k), by_group)
        check.equal(dw.reshape(groups, k, c), expected)
        check.equal(db, dy.sum((0, 1, 2)))


@pytest.mark.parametrize("function", [ops.conv_fprop, ops.dense_fprop])
def test_unknown_math(backend, function):
    ones = np.ones((1, 1, 1, 1) if function is ops.conv_fprop else (1, 1), np.float32)
    for precision in ("fp16", 32, None):
        with pytest.raises(ValueError, match=r"precision: expected .*got"):
            function(backend.asarray(ones), backend.asarray(ones), precision=precision)
    with pytest.raises(ValueError, match="precision: expected"):
        ops.precision_description("fp64")
