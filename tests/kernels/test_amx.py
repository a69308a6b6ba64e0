"""Convolutions of bfloat16 arrays by products of tiles, which AMX does in an instruction.

CONVNET_AMX=always has them done so on any processor, by loops where there is no such unit.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase
from passes import conv_passes

import convnet
from convnet import ops
from convnet.common.dtypes import stored_type

CPU = convnet.backend.get("cpu")
BFLOAT16 = stored_type("bfloat16")
HALF = {"precision": "bf16", "dtype": "bfloat16"}

# Channels in 32s, in 16s and neither; a second tile of a row that overlaps the first (19 = 10 + 9),
# tiles and blocks in odd numbers, several bands, pixels that no chunk divides.
SHAPES = (
    ConvCase("whole-steps", 2, 7, 19, 64, 48, 3, 3, pad=(1, 1)),
    ConvCase("groups-of-48", 2, 9, 33, 96, 64, 5, 5, pad=(2, 2), groups=2),
    ConvCase("odd-channels", 3, 6, 5, 17, 33, 3, 2, pad=(1, 0)),
    ConvCase("strided-groups", 2, 13, 11, 10, 36, 4, 3, stride=(2, 3), pad=(1, 2), groups=2),
    ConvCase("image", 1, 35, 39, 3, 20, 11, 11, stride=(4, 4), rounding="ceil"),
    ConvCase("one-row", 1, 1, 40, 32, 16, 1, 1),
    ConvCase("bands", 1, 70, 6, 32, 16, 3, 3, pad=(1, 1)),
    ConvCase("chunks", 5, 15, 14, 32, 40, 3, 3, pad=(1, 1)),
)
every_case = pytest.mark.parametrize("case", [*cases.CONV, *SHAPES], ids=str)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setenv("CONVNET_AMX", "always")
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")


def has_form(case: ConvCase, step: str) -> bool:
    unpadded = case.pad[0] < case.r and case.pad[1] < case.s
    return step != "dgrad" or (case.stride == (1, 1) and unpadded)


def halves(rng, *shape: int) -> np.ndarray:
    return cases.floats(rng, shape).astype(BFLOAT16)


@every_case
def test_the_choice(monkeypatch, case):
    for step in ("fprop", "dgrad", "wgrad"):
        shapes = case.x_shape, case.w_shape
        name = ops.conv_kernel(step, *shapes, **case.options, **HALF)
        in_blocks = step == "wgrad" and case.stride[0] == case.stride[1] > 1 == case.groups
        expected = "space to depth, bf16" if in_blocks else "tiles, bf16"
        assert (name == expected) == has_form(case, step)
        assert "tiles" not in ops.conv_kernel(step, *shapes, **case.options, precision="bf16")
        assert "tiles" not in ops.conv_kernel(
            step, *shapes, **case.options, dtype="bfloat16", precision="fp32"
        )
    monkeypatch.setenv("CONVNET_AMX", "off")
    assert "tiles" not in ops.conv_kernel("fprop", *shapes, **case.options, **HALF)


def test_the_first_layer_of_the_paper(rng):
    """Three channels are laid out as 48, of blocks of 4 x 4 pixels."""
    case = ConvCase("conv1", 2, 227, 35, 3, 24, 11, 11, stride=(4, 4), pad=(1, 2))
    x = cases.integers(rng, case.x_shape).astype(BFLOAT16)
    dy = cases.integers(rng, case.y_shape).astype(BFLOAT16)
    shapes = case.x_shape, case.w_shape
    assert ops.conv_kernel("wgrad", *shapes, **case.options, **HALF) == "space to depth, bf16"
    dw, db = check.same_bits_on_any_threads(
        CPU, ops.conv_wgrad, x, dy, case.w_shape, precision="bf16", **case.options
    )
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    check.equal(dw, expected[0])
    check.equal(db, expected[1])


def test_other_choices_are_refused(monkeypatch):
    monkeypatch.setenv("CONVNET_AMX", "sometimes")
    with pytest.raises(
        ValueError, match="CONVNET_AMX: expected auto, off or always, got sometimes"
    ):
        ops.conv_kernel("fprop", (1, 8, 8, 32), (32, 3, 3, 32), **HALF)


@every_case
def test_exact_on_integers(rng, case):
    """Products and sums of small whole numbers, so that only y and dx are rounded, once."""
    for name, actual, expected in conv_passes(
        CPU, case, cases.integers, rng, "bf16", stored=BFLOAT16
    ):
        check.equal(actual, expected.astype(BFLOAT16) if name in ("y", "dx") else expected)


@every_case
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_bias_and_relu(rng, case, relu):
    x, w, b = halves(rng, *case.x_shape), halves(rng, *case.w_shape), cases.floats(rng, (case.k,))
    wide = x.astype(np.float64), w.astype(np.float64)
    y = check.call(
        CPU, ops.conv_fprop, x, w.astype(np.float32), b, relu=relu, precision="bf16", **case.options
    )
    expected = reference.conv_fprop(*wide, b, relu=relu, **case.options)
    error = np.abs(y.astype(np.float64) - expected)
    assert (error <= 2**-8 * np.abs(expected) + 1e-6 * np.abs(expected).max()).all()


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_bits_do_not_depend_on_threads(rng, case):
    x, dy = halves(rng, *case.x_shape), halves(rng, *case.y_shape)
    w = cases.floats(rng, case.w_shape)
    options = {"precision": "bf16", **case.options}
    y = check.same_bits_on_any_threads(CPU, ops.conv_fprop, x, w, **options)
    check.same_bits_on_any_threads(CPU, ops.conv_wgrad, x, dy, case.w_shape, **options)
    if has_form(case, "dgrad"):
        check.same_bits_on_any_threads(CPU, ops.conv_dgrad, dy, w, case.x_shape, **options)
    prepared = ops.conv_prepare(w, case.x_shape, dtype="bfloat16", **options)
    check.same_bits(ops.conv_fprop_prepared(x, prepared, case.w_shape, **options), y)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_images_do_not_depend_on_each_other(rng, case):
    x, w = halves(rng, *case.x_shape), cases.floats(rng, case.w_shape)
    y = ops.conv_fprop(x, w, precision="bf16", **case.options)
    alone = ops.conv_fprop(x[-1:], w, precision="bf16", **case.options)
    check.same_bits(alone, y[-1:])


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_what_is_not_finite_is_seen(rng, case, value):
    x, w = halves(rng, *case.x_shape), cases.floats(rng, case.w_shape)
    x[0, 0, 0, 0] = value
    y = ops.conv_fprop(x, w, relu=True, precision="bf16", **case.options)
    assert not np.isfinite(y[0].astype(np.float32)).all()
    dy = np.ones(case.y_shape, BFLOAT16)
    dw, _ = ops.conv_wgrad(x, dy, case.w_shape, precision="bf16", **case.options)
    assert not np.isfinite(dw).all()
    assert np.isfinite(dw[case.k // case.groups :]).all()  # of the other group


def test_products_of_onednn_in_between(rng):
    """oneDNN has tiles of its own, which stay as it has set them."""
    x, w = halves(rng, 4, 9, 9, 32), cases.floats(rng, (32, 3, 3, 32))
    rows, weights = halves(rng, 64, 512), cases.floats(rng, (256, 512))
    first = ops.dense_fprop(rows, weights, precision="bf16"), ops.conv_fprop(x, w, precision="bf16")
    for _ in range(3):
        check.same_bits(ops.dense_fprop(rows, weights, precision="bf16"), first[0])
        check.same_bits(ops.conv_fprop(x, w, precision="bf16"), first[1])


# ---- dense layers -----------------------------------------------------------------------------

# Rows and columns that tiles and blocks do not divide, more than one block each way.
DENSE = [(1, 16, 16), (3, 40, 17), (33, 33, 4113), (64, 64, 100), (130, 70, 8200)]


@pytest.mark.parametrize(("n", "k", "c"), DENSE)
def test_dense_gradients_are_exact_on_integers(rng, n, k, c):
    x, dy = (
        cases.integers(rng, (n, c)).astype(BFLOAT16),
        cases.integers(rng, (n, k)).astype(BFLOAT16),
    )
    assert ops.dense_kernel("wgrad", (n, c), (k, c), **HALF) == "tiles, bf16"
    dw, db = check.same_bits_on_any_threads(CPU, ops.dense_wgrad, x, dy, precision="bf16")
    check.equal(dw, dy.astype(np.float64).T @ x.astype(np.float64))
    check.equal(db, dy.astype(np.float64).sum(0))


@pytest.mark.parametrize(("n", "k", "c"), DENSE)
def test_the_update_in_one_has_the_bits_of_the_two(rng, n, k, c):
    x, dy = halves(rng, n, c), halves(rng, n, k)
    w, v = cases.floats(rng, (k, c)), cases.floats(rng, (k, c))
    rule = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    dw, db = ops.dense_wgrad(x, dy, precision="bf16")
    expected = w.copy(), v.copy()
    ops.sgd_update([(expected[0], expected[1], dw, 1.0, 1.0)], **rule)
    again = ops.dense_wgrad_sgd(x, dy, w, v, precision="bf16", **rule)
    check.same_bits(w, expected[0])
    check.same_bits(v, expected[1])
    check.same_bits(again, db)
