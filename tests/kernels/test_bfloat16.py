"""Activations stored as bfloat16: every operation reads them, computes in float32, and rounds once.

So an operation gives what it gives for the same numbers in float32, rounded. That is compared to
the bit; what float32 gives is held to the float64 reference by the operations' own tests. Products
are compared with the reference themselves.
"""

from __future__ import annotations

import itertools

import cases
import check
import numpy as np
import pytest
from cases import ConvCase, DenseCase
from passes import conv_passes, dense_passes

from convnet import backend as backends
from convnet import ops
from convnet.common.dtypes import stored_type

BFLOAT16 = stored_type("bfloat16")


@pytest.fixture
def cpu():
    with backends.use("cpu") as backend:
        yield backend


def halves(rng, *shape: int) -> np.ndarray:
    return cases.floats(rng, shape).astype(BFLOAT16)


def wide(value):
    """The same numbers in float32; other arguments as they are."""
    is_half = isinstance(value, np.ndarray) and value.dtype == BFLOAT16
    return value.astype(np.float32) if is_half else value


# ---- conversion -------------------------------------------------------------------------------


def test_widening_is_exact(backend):
    every = np.arange(2**16, dtype=np.uint16).view(BFLOAT16)
    y = check.call(backend, ops.convert, every, dtype="float32")
    check.same_bits(y.view(np.uint32) >> 16, every.view(np.uint16).astype(np.uint32))


def test_rounding_is_to_nearest_and_ties_to_even(backend, rng):
    """As ml_dtypes has it; a NaN stays one, whatever its bits."""
    random = rng.integers(0, 2**32, 50_000, dtype=np.uint32)
    ties = rng.integers(0, 2**16, 5_000, dtype=np.uint32) << 16 | 0x8000
    ends = np.array([0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 1, 0x80000001, 0x7F800001], np.uint32)
    x = np.concatenate([random, ties, ends]).view(np.float32)
    y = check.call(backend, ops.convert, x, dtype="bfloat16")
    with np.errstate(invalid="ignore"):
        expected = x.astype(BFLOAT16)
    number = ~np.isnan(x)
    check.same_bits(y[number], expected[number])
    assert np.isnan(y[~number].astype(np.float32)).all()


# ---- each operation ---------------------------------------------------------------------------

LRN = {"n": 5, "k": 2.0, "alpha": 0.7, "beta": 0.75}
POOL = {"size": 3, "stride": 2}
DROP = {"drop": 0.3, "seed": 7, "layer": 3, "step": 5}
KINDS = (
    *("relu", "tanh", "sigmoid", "abs", "softplus", "square", "sqrt", "log"),
    *("brelu", "affine", "drelu"),
)


def argmax(rng, *shape: int) -> np.ndarray:
    return rng.integers(0, 9, shape).astype(np.uint8)


def activations(rng):
    x, dy = np.abs(halves(rng, 3, 5, 7)), halves(rng, 3, 5, 7)
    for kind in KINDS:
        yield ops.activation_fprop, (kind, x, 1.5, 0.5), {}
        yield ops.activation_bprop, (kind, x, dy, 1.5, 0.5), {}


def memory_bound(rng, channels: int):
    x, y = halves(rng, 2, 7, 8, channels), halves(rng, 2, 3, 4, channels)
    won = argmax(rng, 2, 3, 4, channels)
    yield ops.lrn_fprop, (x,), LRN
    yield ops.lrn_fprop, (x,), LRN | {"beta": 0.6, "n": 4}
    yield ops.lrn_bprop, (x, halves(rng, *x.shape)), LRN
    yield ops.lrn_bprop, (x, halves(rng, *x.shape)), LRN | {"beta": 1.0, "n": 7}
    yield ops.maxpool_fprop, (x,), POOL
    yield ops.maxpool_bprop, (y, won, x.shape), POOL
    yield ops.avgpool_fprop, (x,), POOL
    yield ops.avgpool_bprop, (y, x.shape), POOL
    yield ops.blur_fprop, (x, 5, 1.2), {}
    yield ops.nailbed_fprop, (x, 2, 1), {}
    yield ops.nailbed_bprop, (halves(rng, 2, 3, 4, channels), x.shape, 2, 1), {}
    yield ops.dropout_fprop, (x,), DROP | {"mode": "inverted"}
    yield ops.dropout_bprop, (x,), DROP


def others(rng):
    logits, labels = halves(rng, 9, 13), rng.integers(0, 13, 9).astype(np.int32)
    yield ops.softmax_fprop, (logits,), {}
    yield ops.softmax_xent, (logits, labels), {}
    yield ops.softmax_xent, (logits, labels), {"weights": cases.floats(rng, (13,))}


def locally_connected(rng):
    x = halves(rng, 5, 6, 7, 4)
    local = {"stride": 1, "pad": (1, 1), "groups": 2}
    w = cases.floats(rng, (6, 7, 6, 3, 3, 2))
    dy, b = halves(rng, 5, 6, 7, 6), cases.floats(rng, (6, 7, 6))
    yield ops.local_fprop, (x, w, b), local | {"relu": True}
    yield ops.local_dgrad, (dy, w, x.shape), local | {"relu_mask": halves(rng, *x.shape)}
    yield ops.local_wgrad, (x, dy, w.shape), local


def rounds(backend, function, args, kwargs) -> None:
    actual = check.call(backend, function, *args, **kwargs)
    given = [wide(each) for each in args], {key: wide(each) for key, each in kwargs.items()}
    expected = check._plain_call(backend, function, *given)
    actual = actual if isinstance(actual, tuple) else (actual,)
    for one, other in zip(actual, expected, strict=True):
        check.same_bits(one, other if one.dtype == other.dtype else other.astype(BFLOAT16))


@pytest.mark.parametrize("channels", [1, 5, 16, 32, 50])
def test_memory_bound_operations_round_what_float32_gives(backend, rng, channels):
    """One, some and many channels: every loop there is, and the kernels over explicit vectors."""
    for function, args, kwargs in memory_bound(rng, channels):
        rounds(backend, function, args, kwargs)


@pytest.mark.parametrize("table", [activations, others])
def test_other_operations_round_what_float32_gives(backend, rng, table):
    for function, args, kwargs in table(rng):
        rounds(backend, function, args, kwargs)


def test_locally_connected_layers_round_what_float32_gives(backend, rng):
    for function, args, kwargs in locally_connected(rng):
        rounds(backend, function, args, kwargs)


@pytest.mark.parametrize("channels", [5, 32, 132])
def test_lrn_and_pool_in_one_have_the_bits_of_the_two(backend, rng, channels):
    """What lies between is rounded, as where it is stored."""
    x, dy = halves(rng, 2, 9, 8, channels), halves(rng, 2, 4, 4, channels)
    between = check.call(backend, ops.lrn_fprop, x, **LRN)
    y, won = check.call(backend, ops.maxpool_fprop, between, **POOL)
    fused = check.call(backend, ops.lrn_maxpool_fprop, x, **POOL, **LRN)
    check.same_bits(fused[0], y)
    check.same_bits(fused[1], won)
    back = check.call(backend, ops.maxpool_bprop, dy, won, x.shape, **POOL)
    dx = check.call(backend, ops.lrn_bprop, x, back, **LRN)
    dx = check.call(backend, ops.relu_bprop, x, dx)
    fused = check.call(backend, ops.lrn_maxpool_bprop, x, dy, won, **POOL, **LRN, relu_mask=True)
    check.same_bits(fused, dx)


def test_augment(backend, rng):
    images = rng.integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    offsets = np.array([[0, 1], [2, -1], [1, 1]], np.int32)
    mirror, mean = np.array([0, 1, 1], np.uint8), cases.floats(rng, (9, 8, 3))
    given = images, offsets, mirror, mean
    for width, affine in itertools.product((7, 8), (None, cases.floats(rng, (3, 2, 2)))):
        options = {"crop": (6, width), "scale": 0.3, "affine": affine}
        half = check.call(backend, ops.augment, *given, **options, dtype="bfloat16")
        full = check.call(backend, ops.augment, *given, **options)
        check.same_bits(half, full.astype(BFLOAT16))


@pytest.mark.parametrize("columns", [32, 33])
def test_sums_and_transfers(backend, rng, columns):
    dst, src = halves(rng, 4, columns), halves(rng, 4, columns)
    total = (wide(dst) + wide(src)).astype(BFLOAT16)

    def result(function, *arrays, **block):
        return backend.to_host(function(*map(backend.asarray, map(np.copy, arrays)), **block))

    check.same_bits(result(ops.accumulate, dst, src), total)
    added = result(ops.peer_add, dst, src, cols=7)
    check.same_bits(added, np.hstack([total[:, :7], dst[:, 7:]]))
    check.same_bits(result(ops.peer_add, dst, src), total)
    copied = result(ops.peer_copy, dst, src, dst_col=3, cols=5)
    check.same_bits(copied[:, 3:8], src[:, :5])


def test_a_transfer_keeps_every_bit_and_is_checked_by_them(backend):
    """NaNs have many bits, and a checksum tells them apart."""
    src = np.arange(2**16, dtype=np.uint16).view(BFLOAT16).reshape(64, -1)
    for last in (1024, 1023):
        sent, got = backend.asarray(src), backend.empty(src.shape, BFLOAT16)
        ops.peer_copy(got, sent, cols=last)
        check.same_bits(backend.to_host(got)[:, :last], src[:, :last])
        counts, checksum, aborted = (backend.zeros((n,), np.uint32) for n in (2, 2, 1))
        block = {"cols": last}
        ops.peer_checksum(sent, counts[:1], checksum, target=backend, **block)
        ops.peer_check(got, counts[1:], checksum, aborted, 7, **block)
        words = src.view(np.uint16)[:, :last].astype(np.uint64)
        check.equal(backend.to_host(checksum), np.array([1, words.sum() % 2**32], np.uint32))
        assert int(backend.to_host(aborted)[0]) == 0


@pytest.mark.parametrize(
    ("function", "options"),
    [(ops.lrn_bprop, LRN), (ops.relu_bprop, {})],
    ids=["lrn_bprop", "relu_bprop"],
)
def test_unaligned_arrays(backend, rng, function, options):
    x, dy = halves(rng, 3, 5, 32), halves(rng, 3, 5, 32)
    expected = check._plain_call(backend, function, (wide(x), wide(dy)), options)[0]
    for dx in check.calls_on_unaligned(backend, function, x, dy, **options):
        check.same_bits(dx, expected.astype(BFLOAT16))


# ---- products ---------------------------------------------------------------------------------

CONVOLUTIONS = (
    ConvCase("winograd", 2, 9, 8, 16, 80, 5, 5, pad=(2, 2), groups=2),
    ConvCase("space-to-depth", 2, 24, 24, 3, 96, 11, 11, stride=(4, 4), rounding="ceil"),
    ConvCase("strided", 3, 11, 13, 12, 40, 4, 3, stride=(2, 3), pad=(1, 2)),
    ConvCase("pointwise", 3, 7, 5, 24, 40, 1, 1),
)
DENSE = (DenseCase("few-rows", 2, 200, 130), DenseCase("rows", 65, 200, 130))


def products(cpu, case, make, rng, **options):
    passes = conv_passes if isinstance(case, ConvCase) else dense_passes
    return passes(cpu, case, make, rng, "bf16", stored=BFLOAT16, **options)


@pytest.mark.parametrize("case", CONVOLUTIONS + DENSE, ids=str)
def test_products_are_exact_on_integers(backend, rng, case):
    """Whatever multiplies, up to the rounding of y and dx."""
    for name, actual, expected in products(backend, case, cases.integers, rng):
        is_stored = name in ("y", "dx")
        assert actual.dtype == (BFLOAT16 if is_stored else np.float32)
        check.equal(actual, expected.astype(BFLOAT16) if is_stored else expected)


@pytest.mark.parametrize("case", CONVOLUTIONS + DENSE, ids=str)
def test_errors_of_products(cpu, rng, case):
    """Against float64: of y and dx that of one rounding, 1.7e-3 of a result in the root mean
    square; of dw and db float32's, as the numbers that are multiplied are exact. Where the
    processor multiplies in bfloat16, w is rounded too."""
    shapes = (case.x_shape, case.w_shape) if isinstance(case, ConvCase) else None
    for name, actual, expected in products(cpu, case, cases.floats, rng):
        error = check.relative_error(actual.astype(np.float64), expected)
        if name in ("y", "dx"):
            said = kernel(case, {"y": "fprop", "dx": "dgrad"}[name], shapes)
            assert 1.4e-3 < error < (3e-3 if said.endswith(", bf16") else 1.9e-3), (name, error)
        else:
            assert error < 2e-6, (name, error)


def kernel(case, step: str, shapes) -> str:
    options = {"precision": "bf16", "dtype": "bfloat16"}
    if shapes:
        return ops.conv_kernel(step, *shapes, **case.options, **options)
    return ops.dense_kernel(step, (case.n, case.c), (case.k, case.c), **options)


def test_a_large_batch_is_widened_in_pieces(cpu, rng, monkeypatch, request):
    """Of a direct convolution without a unit for bfloat16: the pieces are as good as the whole, and
    their gradients add up."""
    monkeypatch.setenv("CONVNET_AMX", "off")
    cpu.module.pretend_implementation("brgconv:avx512_core")
    request.addfinalizer(lambda: cpu.module.pretend_implementation(""))
    x = cases.integers(rng, (9, 127, 129, 32), 2).astype(BFLOAT16)
    w, dy = cases.integers(rng, (32, 1, 1, 32), 2), cases.integers(rng, x.shape, 1).astype(BFLOAT16)
    options = {"precision": "bf16", "dtype": "bfloat16"}
    assert ops.conv_kernel("wgrad", x.shape, w.shape, **options) == "direct"
    assert ops.conv_workspace(x.shape, w.shape, **options) < 1.5 * wide(x).nbytes
    dw, db = ops.conv_wgrad(x, dy, w.shape, precision="bf16")
    y = ops.conv_fprop(x, w, precision="bf16")
    dx = ops.conv_dgrad(dy, w, x.shape, precision="bf16")
    rows, grads = wide(x).reshape(-1, 32), wide(dy).reshape(-1, 32)
    check.equal(dw.reshape(32, 32), grads.T @ rows)
    check.equal(db, grads.sum(0))
    check.equal(y.reshape(-1, 32), (rows @ w.reshape(32, 32).T).astype(BFLOAT16))
    check.equal(dx.reshape(-1, 32), (grads @ w.reshape(32, 32)).astype(BFLOAT16))


def test_prepared_filters(cpu, rng):
    for case in CONVOLUTIONS:
        x, w = halves(rng, *case.x_shape), cases.floats(rng, case.w_shape)
        options = {"precision": "bf16", **case.options}
        if not ops.conv_prepared_bytes(x.shape, w.shape, dtype="bfloat16", **options):
            continue
        prepared = ops.conv_prepare(w, x.shape, dtype="bfloat16", **options)
        y = check.call(cpu, ops.conv_fprop_prepared, x, prepared, w.shape, **options)
        check.same_bits(y, ops.conv_fprop(x, w, **options))


def test_dense_dropout_and_update_in_one(cpu, rng):
    x, w, dy = halves(rng, 9, 40), cases.floats(rng, (24, 40)), halves(rng, 9, 24)
    rule = DROP | {"mode": "inverted"}
    one = check.call(cpu, ops.dense_fprop_dropout, x, w, precision="bf16", **rule)
    check.same_bits(one, ops.dropout_fprop(ops.dense_fprop(x, w, precision="bf16"), **rule))
    fused, apart = [(w.copy(), np.ones_like(w)) for _ in range(2)]
    ops.dense_wgrad_sgd(x, dy, *fused, 0.1, precision="bf16")
    dw, _ = ops.dense_wgrad(x, dy, precision="bf16")
    ops.sgd_update([(*apart, dw, 1.0, 1.0)], 0.1)
    for one, other in zip(fused, apart, strict=True):
        check.same_bits(one, other)


# ---- what is refused --------------------------------------------------------------------------


def test_types_do_not_mix(cpu, rng):
    x, w = halves(rng, 3, 4), np.ones((5, 4), np.float32)
    with pytest.raises(ValueError, match="dy: expected bfloat16, like x, got float32"):
        ops.dense_wgrad(x, np.ones((3, 5), np.float32))
    with pytest.raises(ValueError, match="w: expected float32, got bfloat16"):
        ops.dense_fprop(x, w.astype(BFLOAT16))
    with pytest.raises(ValueError, match="y: expected bfloat16, like x, got float32"):
        ops.dense_fprop(x, w, out=np.empty((3, 5), np.float32))
    with pytest.raises(ValueError, match="x: expected float32 or bfloat16, got float16"):
        ops.relu_fprop(x.astype(np.float16))
    with pytest.raises(ValueError, match="dtype: expected one of float32, bfloat16"):
        ops.convert(x, "float16")
