"""Fully connected layers: y = x w^T + b."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cases
import check
import pytest
import reference
from cases import DenseCase

from convnet import ops

every_case = pytest.mark.parametrize("case", cases.DENSE, ids=str)
TEN = next(case for case in cases.DENSE if case.name == "ten-classes")


def arrays(make, rng, case: DenseCase):
    """x, w, b, dy"""
    shapes = (case.n, case.c), (case.k, case.c), (case.k,), (case.n, case.k)
    return [make(rng, shape) for shape in shapes]


@every_case
def test_passes_are_exact_on_integers(backend, rng, case):
    x, w, b, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.dense_fprop, x, w, b)
    check.equal(y, reference.dense_fprop(x, w, b))
    dx = check.call(backend, ops.dense_dgrad, dy, w)
    check.equal(dx, reference.dense_dgrad(dy, w))
    dw, db = check.call(backend, ops.dense_wgrad, x, dy)
    expected_dw, expected_db = reference.dense_wgrad(x, dy)
    check.equal(dw, expected_dw)
    check.equal(db, expected_db)


FEW_ROWS = """
import numpy as np
from convnet import ops
for rows in (1, 2, 3):
    ops.dense_fprop(np.ones((rows, 2048), np.float32), np.ones((4096, 2048), np.float32))
"""


@pytest.mark.parametrize("isa", ["sse2", "avx2", "avx512"])
def test_few_rows_are_never_left_to_the_reference_of_onednn(isa, tmp_path):
    """It is oneDNN's last resort, and takes a hundred times as long."""
    variables = {**os.environ, "CONVNET_CPU_ISA": isa, "ONEDNN_VERBOSE": "1"}
    words = [sys.executable, "-c", FEW_ROWS]
    how = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}  # not the sources
    said = subprocess.run(words, env=variables, **how).stdout
    kernel = r"exec,cpu,(?:matmul|inner_product),([^,]+),.*,(?:mb)?(\d)(?:ic|x)2048"
    taken = re.findall(kernel, said)
    assert {rows for _, rows in taken} == {"1", "2", "3"}
    assert not [name for name, _ in taken if "ref" in name]


@every_case
def test_passes_on_floats(backend, rng, case):
    x, w, b, dy = arrays(cases.floats, rng, case)
    y = check.call(backend, ops.dense_fprop, x, w, b)
    magnitude = reference.dense_fprop(abs(x), abs(w), abs(b))
    check.close(y, reference.dense_fprop(x, w, b), magnitude, case.c + 1)

    dx = check.call(backend, ops.dense_dgrad, dy, w)
    check.close(dx, reference.dense_dgrad(dy, w), reference.dense_dgrad(abs(dy), abs(w)), case.k)

    results = check.call(backend, ops.dense_wgrad, x, dy)
    magnitudes = reference.dense_wgrad(abs(x), abs(dy))
    for actual, value, magnitude in zip(
        results, reference.dense_wgrad(x, dy), magnitudes, strict=True
    ):
        check.close(actual, value, magnitude, case.n)


@every_case
def test_passes_are_adjoint(backend, rng, case):
    x, w, _, dy = arrays(cases.integers, rng, case)
    y = check.call(backend, ops.dense_fprop, x, w)
    check.adjoint(dy, y, check.call(backend, ops.dense_dgrad, dy, w), x)
    check.adjoint(dy, y, check.call(backend, ops.dense_wgrad, x, dy)[0], w)


@every_case
def test_relu_epilogue_and_mask(backend, rng, case):
    x, w, b, dy = arrays(cases.integers, rng, case)
    for bias in (b, None):
        y = check.call(backend, ops.dense_fprop, x, w, bias, relu=True)
        check.equal(y, reference.dense_fprop(x, w, bias, relu=True))
    dx = check.call(backend, ops.dense_dgrad, dy, w, relu_mask=x)
    check.equal(dx, reference.dense_dgrad(dy, w, relu_mask=x))


def test_without_bias(backend, rng):
    x, w, _, dy = arrays(cases.integers, rng, TEN)
    check.equal(check.call(backend, ops.dense_fprop, x, w), reference.dense_fprop(x, w))
    dw, db = check.call(backend, ops.dense_wgrad, x, dy, bias=False)
    assert db is None
    check.equal(dw, reference.dense_wgrad(x, dy)[0])


def test_gradients_against_differences_of_the_reference(backend, rng):
    x, w, b, dy = arrays(cases.floats, rng, TEN)
    dw, db = check.call(backend, ops.dense_wgrad, x, dy)
    dx = check.call(backend, ops.dense_dgrad, dy, w)
    check.gradient(lambda v: reference.dense_fprop(v, w, b), x, dy, dx)
    check.gradient(lambda v: reference.dense_fprop(x, v, b), w, dy, dw)
    check.gradient(lambda v: reference.dense_fprop(x, w, v), b, dy, db)


def test_is_a_1x1_convolution(backend, rng):
    x, w, b, _ = arrays(cases.integers, rng, TEN)
    image, filters = x[:, None, None, :], w[:, None, None, :]
    y = check.call(backend, ops.conv_fprop, image, filters, b)
    check.equal(check.call(backend, ops.dense_fprop, x, w, b), y[:, 0, 0, :])


def test_unaligned_arrays(backend, rng):
    x, w, b, dy = arrays(cases.integers, rng, TEN)
    for y in check.calls_on_unaligned(backend, ops.dense_fprop, x, w, b):
        check.equal(y, reference.dense_fprop(x, w, b))
    for dx in check.calls_on_unaligned(backend, ops.dense_dgrad, dy, w):
        check.equal(dx, reference.dense_dgrad(dy, w))
    for results in check.calls_on_unaligned(backend, ops.dense_wgrad, x, dy):
        for actual, expected in zip(results, reference.dense_wgrad(x, dy), strict=True):
            check.equal(actual, expected)
