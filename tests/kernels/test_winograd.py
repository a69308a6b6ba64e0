"""Convolution by fewer multiplications on the CPU: Winograd's algorithm, also for strided filters.

The host takes it where it pays, which is for shapes larger than most of the suite's;
CONVNET_WINOGRAD=always makes it serve small ones too. Its transforms mix neighbouring outputs, so
the rounding error of one follows the largest of them, and whole numbers do not stay whole.
"""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase

import convnet
from convnet import ops

CPU = convnet.backend.get("cpu")


def has_form(case: ConvCase) -> bool:
    """Whether there is a Winograd form: 3x3 or 5x5 at stride 1, or that after space-to-depth."""
    sizes = {-(-case.r // case.stride[0]), -(-case.s // case.stride[1])}
    if len(sizes) > 1 or len(set(case.stride)) > 1 or not sizes <= {3, 5}:
        return False
    if case.stride[0] > 1:
        return case.groups == 1
    return case.pad[0] < case.r and case.pad[1] < case.s and case.r == case.s


STRIDED = (
    ConvCase("9x9-stride-3-pad", 2, 14, 17, 2, 5, 9, 9, (3, 3), (2, 1)),
    ConvCase("5x6-stride-2-ceil", 3, 12, 11, 3, 4, 5, 6, (2, 2), (1, 0), rounding="ceil"),
    ConvCase("10x10-stride-2-rows-unread", 1, 17, 15, 2, 3, 10, 10, (2, 2), (3, 4)),
)
WITH_FORM = [case for case in (*cases.CONV, *STRIDED) if has_form(case)]
every_case = pytest.mark.parametrize("case", WITH_FORM, ids=str)

PAYS = ConvCase("3x3-96-channels", 32, 13, 13, 96, 96, 3, 3, pad=(1, 1), small=False)
PAYS_STRIDED = ConvCase("conv1", 16, 127, 127, 3, 96, 11, 11, (4, 4), small=False)
DOES_NOT_PAY = next(case for case in cases.CONV if case.name == "3x3-same")


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setenv("CONVNET_WINOGRAD", "always")


def close(actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray, length: int) -> None:
    check.close(actual, expected, 2 * np.max(magnitude), length)


def arrays(case):
    rng = np.random.default_rng(0)
    shapes = case.x_shape, case.w_shape, (case.k,), case.y_shape
    return [cases.floats(rng, shape) for shape in shapes]


def test_the_table_has_both_kinds():
    assert {case.r for case in WITH_FORM if case.stride == (1, 1)} == {3, 5}
    assert sum(case.stride != (1, 1) for case in WITH_FORM) >= 4


@every_case
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_fprop(case, relu):
    x, w, b, _ = arrays(case)
    y = check.same_bits_on_any_threads(CPU, ops.conv_fprop, x, w, b, relu=relu, **case.options)
    expected = reference.conv_fprop(x, w, b, **case.options)
    magnitude = reference.conv_fprop(abs(x), abs(w), abs(b), **case.options)
    expected = np.maximum(expected, 0) if relu else expected
    close(y, expected, magnitude, case.r * case.s * case.c // case.groups + 1)


@every_case
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_dgrad(case, masked):
    x, w, _, dy = arrays(case)
    mask = x if masked else None
    dx = check.same_bits_on_any_threads(
        CPU, ops.conv_dgrad, dy, w, case.x_shape, relu_mask=mask, **case.options
    )
    expected = reference.conv_dgrad(dy, w, case.x_shape, **case.options)
    magnitude = reference.conv_dgrad(abs(dy), abs(w), case.x_shape, **case.options)
    if masked:
        assert np.all(dx[x <= 0] == 0)
        expected = np.where(x > 0, expected, 0)
    close(dx, expected, magnitude, case.r * case.s * case.k // case.groups)


@every_case
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_wgrad(case, bias):
    x, _, _, dy = arrays(case)
    dw, db = check.same_bits_on_any_threads(
        CPU, ops.conv_wgrad, x, dy, case.w_shape, bias=bias, **case.options
    )
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    magnitudes = reference.conv_wgrad(abs(x), abs(dy), case.w_shape, **case.options)
    length = case.n * case.output[0] * case.output[1]
    close(dw, expected[0], magnitudes[0], length)
    if bias:
        check.close(db, expected[1], magnitudes[1], length)
    else:
        assert db is None


def test_unaligned_arrays():
    x, w, b, dy = arrays(PAYS)
    plain = ops.conv_fprop(x, w, b, **PAYS.options)
    shifted = [check.unaligned(CPU, array) for array in (x, w, b, dy)]
    check.same_bits(ops.conv_fprop(*shifted[:3], **PAYS.options), plain)
    dw, db = ops.conv_wgrad(x, dy, PAYS.w_shape, **PAYS.options)
    again = ops.conv_wgrad(shifted[0], shifted[3], PAYS.w_shape, **PAYS.options)
    check.same_bits(again[0], dw)
    check.same_bits(again[1], db)


def test_the_results_of_some_images_do_not_depend_on_the_others():
    x, w, b, _ = arrays(PAYS)
    together = ops.conv_fprop(x, w, b, **PAYS.options)
    for part in (slice(0, 16), slice(9, 32)):
        check.same_bits(ops.conv_fprop(x[part].copy(), w, b, **PAYS.options), together[part])


def test_relu_keeps_nan():
    x, w, b, _ = arrays(PAYS)
    x[0, 6, 6, 0] = np.nan
    y = ops.conv_fprop(x, w, b, relu=True, **PAYS.options)
    assert np.isnan(y[0, 6, 6]).all()
    assert np.isfinite(y[1:]).all()


@pytest.mark.parametrize("case", [PAYS, PAYS_STRIDED], ids=str)
@pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
def test_it_is_taken_where_it_pays(case, step, monkeypatch):
    always = run(case, step)
    monkeypatch.delenv("CONVNET_WINOGRAD")
    check.same_bits(run(case, step), always)
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")
    direct = run(case, step)
    assert np.any(direct != always)
    np.testing.assert_allclose(direct, always, atol=1e-4 * np.abs(always).max())


@pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
def test_it_is_not_taken_where_it_does_not_pay(step, monkeypatch):
    always = run(DOES_NOT_PAY, step)
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")
    direct = run(DOES_NOT_PAY, step)
    assert np.any(direct != always)
    monkeypatch.delenv("CONVNET_WINOGRAD")
    check.same_bits(run(DOES_NOT_PAY, step), direct)


@pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
def test_strided_groups_have_no_form(step, monkeypatch):
    case = ConvCase("5x5-stride-2-groups", 2, 13, 13, 4, 6, 5, 5, (2, 2), (2, 2), groups=2)
    always = run(case, step)
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")
    check.same_bits(run(case, step), always)


def test_a_misspelt_choice_is_refused(monkeypatch):
    monkeypatch.setenv("CONVNET_WINOGRAD", "of")
    for step in ("fprop", "dgrad", "wgrad"):
        with pytest.raises(
            ValueError, match="CONVNET_WINOGRAD: expected auto, off or always, got of"
        ):
            run(PAYS, step)


def run(case, step):
    x, w, b, dy = arrays(case)
    if step == "fprop":
        return ops.conv_fprop(x, w, b, **case.options)
    if step == "dgrad":
        return ops.conv_dgrad(dy, w, case.x_shape, **case.options)
    return ops.conv_wgrad(x, dy, case.w_shape, **case.options)[0]
