"""Products of activations that are stored as bfloat16: every geometry, pass and main loop.

What is read is exact, sums are float32, and y and dx are rounded once. So on whole numbers that
bfloat16 holds, results are those of float64, rounded.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
from cases import ConvCase, DenseCase
from passes import conv_passes, dense_passes

import convnet.backend
from convnet import ops
from convnet.common.dtypes import stored_type

BFLOAT16 = stored_type("bfloat16")


def halves(rng, *shape: int) -> np.ndarray:
    return cases.floats(rng, shape).astype(BFLOAT16)


def passes(backend, case, make, rng, precision, **options):
    each = conv_passes if isinstance(case, ConvCase) else dense_passes
    return each(backend, case, make, rng, precision, stored=BFLOAT16, **options)


def same_as_rounded(backend, case, rng, precision, **options) -> None:
    for name, actual, expected in passes(backend, case, cases.integers, rng, precision, **options):
        stored = BFLOAT16 if name in ("y", "dx") else np.float32
        assert actual.dtype == stored
        check.equal(actual, expected.astype(np.float32).astype(stored))


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Whole numbers stay whole: not so where the CPU takes Winograd's algorithm."""
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", cases.CONV + cases.DENSE, ids=str)
def test_products_are_exact_on_integers(backend, rng, case, precision):
    same_as_rounded(backend, case, rng, precision)


@pytest.mark.parametrize("precision", ["ffma", "tf32", "bf16"])
@pytest.mark.parametrize("case", [DenseCase("rows", 65, 200, 136)], ids=str)
def test_every_precision(backend, rng, case, precision):
    same_as_rounded(backend, case, rng, precision)


@pytest.mark.parametrize(
    ("shapes", "options", "kernel"),
    [
        (((128, 224, 224, 3), (96, 11, 11, 3)), {"stride": 4, "rounding": "ceil"}, "mma.sync, "),
        (((128, 13, 13, 256), (384, 3, 3, 256)), {"pad": 1}, "wgmma, "),
        (((4, 13, 13, 36), (40, 3, 3, 36)), {"pad": 1}, "mma.sync, "),
        (((4, 13, 13, 34), (40, 3, 3, 34)), {"pad": 1}, "FFMA, "),
    ],
)
def test_tensor_cores_take_what_is_in_fours(hopper, shapes, options, kernel):
    with convnet.backend.use(hopper):
        for step in ("fprop", "wgrad"):
            how = {"precision": "bf16", "dtype": "bfloat16", **options}
            assert ops.conv_kernel(step, *shapes, **how).startswith(kernel)
            assert ops.conv_kernel(step, *shapes, **how | {"precision": "fp32"}).startswith(
                "FFMA, "
            )


def on_unaligned(backend, function, *args, **kwargs):
    """The result, which is the same whichever array is not aligned."""
    results = list(check.calls_on_unaligned(backend, function, *args, **kwargs))
    for other in results[1:]:
        pairs = zip(results[0], other, strict=True) if isinstance(other, tuple) else None
        for one, two in pairs or [(results[0], other)]:
            check.same_bits(one, two)
    return results[0]


GROUPS = ConvCase("groups", 2, 9, 8, 16, 32, 3, 3, pad=(1, 1), groups=2)


@pytest.mark.parametrize("case", [GROUPS, DenseCase("rows", 33, 72, 40)], ids=str)
def test_unaligned_arrays(backend, rng, case):
    same_as_rounded(backend, case, rng, "bf16", call=on_unaligned)


@pytest.mark.parametrize("case", [GROUPS, *cases.CONV[:4]], ids=str)
def test_prepared_filters(backend, rng, case):
    x, w = halves(rng, *case.x_shape), cases.floats(rng, case.w_shape)
    options = {"precision": "bf16", **case.options}
    if not ops.conv_prepared_bytes(x.shape, w.shape, dtype="bfloat16", **options):
        return
    prepared = check.call(backend, ops.conv_prepare, w, x.shape, dtype="bfloat16", **options)
    y = check.call(backend, ops.conv_fprop_prepared, x, prepared, w.shape, **options)
    check.same_bits(y, check.call(backend, ops.conv_fprop, x, w, **options))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("n", "c", "k"), [(9, 40, 24), (40, 2300, 36), (5, 700, 30)])
def test_dense_layers_with_dropout_and_update_have_the_bits_of_two(
    backend, rng, n, c, k, precision
):
    """With splits of the sum, too: what lies between is rounded, as where it is stored."""
    x, w, dy = halves(rng, n, c), cases.floats(rng, (k, c)), halves(rng, n, k)
    rule = {"drop": 0.3, "seed": 7, "layer": 3, "step": 5, "mode": "inverted"}
    y = check.call(backend, ops.dense_fprop, x, w, precision=precision)
    one = check.call(backend, ops.dense_fprop_dropout, x, w, precision=precision, **rule)
    check.same_bits(one, check.call(backend, ops.dropout_fprop, y, **rule))

    given = backend.asarray(x), backend.asarray(dy)
    fused, apart = [tuple(map(backend.asarray, (w.copy(), w + 1))) for _ in range(2)]
    db = ops.dense_wgrad_sgd(*given, *fused, 0.1, precision=precision)
    dw, expected_db = ops.dense_wgrad(*given, precision=precision)
    ops.sgd_update([(*apart, dw, 1.0, 1.0)], 0.1)
    for one, other in zip((*fused, db), (*apart, expected_db), strict=True):
        check.same_bits(*(np.array(backend.to_host(each)) for each in (one, other)))
