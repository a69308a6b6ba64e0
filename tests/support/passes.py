"""The passes of a product, each with its float64 reference."""

from __future__ import annotations

import check
import numpy as np
import reference
from cases import ConvCase, DenseCase

from convnet import ops


def conv_passes(
    backend, case: ConvCase, make, rng, precision: str, call=check.call, stored=np.float32
):
    """(name, result, float64 reference) of each pass; `stored`: the type of activations."""
    shapes = case.x_shape, case.w_shape, (case.k,), case.y_shape
    x, w, b, dy = (make(rng, shape) for shape in shapes)
    x, dy = x.astype(stored), dy.astype(stored)
    options = {"precision": precision, **case.options}
    y = call(backend, ops.conv_fprop, x, w, b, **options)
    yield "y", y, reference.conv_fprop(x, w, b, **case.options)
    mask = {"relu_mask": make(rng, case.x_shape).astype(stored)}
    dx = call(backend, ops.conv_dgrad, dy, w, case.x_shape, **mask, **options)
    yield "dx", dx, reference.conv_dgrad(dy, w, case.x_shape, **mask, **case.options)
    dw, db = call(backend, ops.conv_wgrad, x, dy, case.w_shape, **options)
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    yield "dw", dw, expected[0]
    yield "db", db, expected[1]


def dense_passes(
    backend, case: DenseCase, make, rng, precision: str, call=check.call, stored=np.float32
):
    shapes = (case.n, case.c), (case.k, case.c), (case.k,), (case.n, case.k)
    x, w, b, dy = (make(rng, shape) for shape in shapes)
    x, dy = x.astype(stored), dy.astype(stored)
    y = call(backend, ops.dense_fprop, x, w, b, relu=True, precision=precision)
    yield "y", y, reference.dense_fprop(x, w, b, relu=True)
    yield (
        "dx",
        call(backend, ops.dense_dgrad, dy, w, precision=precision),
        reference.dense_dgrad(dy, w),
    )
    dw, db = call(backend, ops.dense_wgrad, x, dy, precision=precision)
    expected = reference.dense_wgrad(x, dy)
    yield "dw", dw, expected[0]
    yield "db", db, expected[1]
