"""Arrays of the wrong kind, outputs that overlap, and values out of range are refused."""

from __future__ import annotations

import numpy as np
import pytest
from refused_calls import Arrays, assert_refuses, augment, parametrize

from convnet import ops

ARRAYS = {
    "float64": (
        lambda z: ops.relu_fprop(z(3, dtype=np.float64)),
        "x: expected float32 or bfloat16, got float64",
    ),
    "float16": (
        lambda z: ops.conv_fprop(z(1, 3, 3, 1), z(1, 1, 1, 1, dtype=np.float16)),
        "w: expected float32, got float16",
    ),
    "int64-labels": (
        lambda z: ops.softmax_xent(z(2, 3), z(2, dtype=np.int64)),
        "labels: expected int32, got int64",
    ),
    "float-pictures": (
        lambda z: augment(z, images=np.float32),
        "x: expected uint8, got float32",
    ),
    "float-argmax": (
        lambda z: ops.maxpool_bprop(z(1, 2, 2, 1), z(1, 2, 2, 1), (1, 4, 4, 1), 2, 2),
        "argmax: expected uint8, got float32",
    ),
    "output-dtype": (
        lambda z: ops.relu_fprop(z(3), out=z(3, dtype=np.float64)),
        "y: expected float32, got float64",
    ),
    "strided": (
        lambda z: ops.relu_fprop(z.strided(3, 4)),
        r"x: expected a C-contiguous array, got shape \(3, 4\) with other strides",
    ),
    "transposed": (
        lambda z: ops.dense_fprop(z(5, 2).T, z(3, 5)),
        "x: expected a C-contiguous array, got",
    ),
    "strided-output": (
        lambda z: ops.softmax_fprop(z(3, 4), out=z.strided(3, 4)),
        "probs: expected a C-contiguous array, got",
    ),
    "no-array": (lambda z: ops.relu_fprop([1.0, 2.0]), "x: expected an array, got list"),
    "none": (lambda z: ops.conv_fprop(z(1, 3, 3, 1), None), "w: expected .*, got NoneType"),
    "number": (lambda z: ops.dense_fprop(z(1, 3), 3.0), "w: expected an array, got float"),
}


@parametrize(ARRAYS)
def test_arrays_of_the_wrong_kind(backend, call, message):
    assert_refuses(call, message, backend)


def overlapping(z):
    whole = z(20)
    return whole[:12].reshape(3, 4), whole[8:].reshape(3, 4)


def shared_by_two_tensors(z):
    w = z(4)
    return ops.sgd_update([(w, z(4), z(4), 1.0, 1.0), (w, z(4), z(4), 1.0, 1.0)], 0.1)


def lrn_in_place(z):
    x = z(3, 4)
    return ops.lrn_fprop(x, out=x)


def lrn_overlapping(z):
    x, out = overlapping(z)
    return ops.lrn_fprop(x, out=out)


def relu_overlapping(z):
    x, out = overlapping(z)
    return ops.relu_fprop(x, out=out)


def two_outputs_in_one(z):
    dw = z(4, 4)
    return ops.dense_wgrad(z(2, 4), z(2, 4), out=(dw, dw[0]))


def peer_within_one(z):
    x = z(3, 4)
    return ops.peer_copy(x, x)


OVERLAPS = {
    "lrn-in-place": (lrn_in_place, "y: expected memory apart from x, got the same array"),
    "lrn": (lrn_overlapping, "y: expected memory apart from x, got overlapping arrays"),
    "relu": (relu_overlapping, "y: expected memory apart from x, got overlapping arrays"),
    "two-outputs": (two_outputs_in_one, "db: expected memory apart from dw, got"),
    "peer": (peer_within_one, "dst: expected memory apart from src, got the same array"),
    "sgd": (shared_by_two_tensors, r"w\[1\]: expected memory apart from w\[0\], got"),
}


@parametrize(OVERLAPS)
def test_outputs_that_overlap(backend, call, message):
    assert_refuses(call, message, backend)


VALUES = {
    "stride-zero": (
        lambda z: ops.conv_fprop(z(1, 5, 5, 1), z(1, 3, 3, 1), stride=0),
        "stride_h: expected between 1 and .*, got 0",
    ),
    "stride-fraction": (
        lambda z: ops.maxpool_fprop(z(1, 5, 5, 1), 3, 1.5),
        "stride: expected a whole number or a pair of them, got 1.5",
    ),
    "stride-bool": (
        lambda z: ops.maxpool_fprop(z(1, 5, 5, 1), 3, True),
        "stride: expected a whole number or a pair of them, got True",
    ),
    "stride-huge": (
        lambda z: ops.maxpool_fprop(z(1, 5, 5, 1), 3, 2**70),
        "stride: expected numbers below",
    ),
    "pad-negative": (
        lambda z: ops.conv_fprop(z(1, 5, 5, 1), z(1, 3, 3, 1), pad=(0, -1)),
        "pad_w: expected between 0 and .*, got -1",
    ),
    "rounding": (
        lambda z: ops.conv_fprop(z(1, 5, 5, 1), z(1, 3, 3, 1), rounding="up"),
        'rounding: expected "floor" or "ceil", got "up"',
    ),
    "kind": (
        lambda z: ops.activation_fprop("rleu", z(3)),
        'kind: expected "relu", "tanh", .* or "drelu", got "rleu"',
    ),
    "alpha-mode": (
        lambda z: ops.lrn_fprop(z(1, 4), alpha_mode="size"),
        'alpha_mode: expected "sum" or "mean", got "size"',
    ),
    "lrn-n": (lambda z: ops.lrn_fprop(z(1, 4), n=0), "n: expected between 1 and .*, got 0"),
    "lrn-k": (lambda z: ops.lrn_fprop(z(1, 4), k=0.0), "k: expected a positive number, got 0"),
    "lrn-alpha": (lambda z: ops.lrn_fprop(z(1, 4), alpha=-1.0), "alpha: expected 0 or more, got"),
    "lrn-beta-nan": (
        lambda z: ops.lrn_fprop(z(1, 4), beta=float("nan")),
        "beta: expected between 0 and 1000, got",
    ),
    "lrn-k-text": (lambda z: ops.lrn_fprop(z(1, 4), k="2"), "k: expected a number, got '2'"),
    "drop-one": (
        lambda z: ops.dropout_fprop(z(3), 1.0, seed=1),
        r"drop: expected a probability in \[0, 1\), got 1",
    ),
    "drop-nan": (
        lambda z: ops.dropout_fprop(z(3), float("nan"), seed=1),
        r"drop: expected a probability in \[0, 1\), got nan",
    ),
    "dropout-mode": (
        lambda z: ops.dropout_fprop(z(3), seed=1, mode="test"),
        'mode: expected "paper" or "inverted", got',
    ),
    "seed-negative": (lambda z: ops.dropout_fprop(z(3), seed=-1), "seed: expected 0 to .* got -1"),
    "step-33-bits": (
        lambda z: ops.dropout_fprop(z(3), seed=1, step=2**32),
        "step: expected 0 to 4294967295, got 4294967296",
    ),
    "philox-seed": (lambda z: ops.philox(2**64, 0, 0, np.arange(3)), "seed: expected 0 to .* got"),
    "philox-negative": (
        lambda z: ops.philox(1, 0, 0, np.array([0, -1])),
        "indices: expected .* got -1",
    ),
}


@parametrize(VALUES)
def test_values_out_of_range(backend, call, message):
    assert_refuses(call, message, backend)


def test_read_only_outputs():
    """NumPy can forbid writing; the other backends' arrays cannot."""
    out = np.zeros(3, np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="y: expected a writable array, got a read-only one"):
        ops.relu_fprop(np.zeros(3, np.float32), out=out)


def test_misaligned_memory():
    """A float that starts at an odd address."""
    array = np.zeros(13, np.uint8)[1:].view(np.float32)
    with pytest.raises(ValueError, match="x: expected an array aligned to its element size, got"):
        ops.relu_fprop(array)


def test_other_byte_order():
    with pytest.raises(ValueError, match=r"x: expected float32 or bfloat16, got dtype >f4"):
        ops.relu_fprop(np.zeros(3, ">f4"))


def test_a_failed_call_leaves_the_output_alone(backend):
    out = np.full((2, 3), 7, np.float32)
    array = backend.asarray(out.copy())
    with pytest.raises(ValueError, match="softmax_fprop"):
        ops.softmax_fprop(Arrays(backend)(3, 2), out=array)
    np.testing.assert_array_equal(backend.to_host(array), out)


class Size(tuple):
    """As torch.Size."""


@pytest.mark.parametrize("shape", [Size, list, np.array])
def test_a_shape_may_be_any_sequence(backend, shape):
    z = Arrays(backend)
    argmax = z(2, 2, 2, 3, dtype=np.uint8)
    assert ops.maxpool_bprop(z(2, 2, 2, 3), argmax, shape((2, 5, 5, 3)), 3, 2).shape == (2, 5, 5, 3)
    assert ops.avgpool_bprop(z(2, 2, 2, 3), shape((2, 5, 5, 3)), 3, 2).shape == (2, 5, 5, 3)
    x, w = z(2, 5, 5, 3), shape((4, 3, 3, 3))
    assert ops.conv_dgrad(z(2, 3, 3, 4), z(4, 3, 3, 3), shape((2, 5, 5, 3))).shape == x.shape
    dw, db = ops.conv_wgrad(x, z(2, 3, 3, 4), w, bias=np.True_)
    assert dw.shape == (4, 3, 3, 3)
    assert db.shape == (4,)
