"""Softmax and cross-entropy: loss, gradient and the rank of the label, in one pass."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

SHAPES = [(1, 1), (1, 2), (5, 10), (3, 33), (7, 100), (2, 1000), (128, 10), (99, 1001)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def problem(rng, shape, spread=3.0):
    logits = (spread * cases.floats(rng, shape)).astype(np.float32)
    return logits, rng.integers(0, shape[1], shape[0]).astype(np.int32)


def exponents(logits):
    """How far below the top each score is: the rounding of e^x grows with it."""
    return logits.max(axis=1, keepdims=True) - reference.float64(logits)


@shapes
def test_softmax(backend, rng, shape):
    logits, _ = problem(rng, shape)
    probs = check.call(backend, ops.softmax_fprop, logits)
    expected = reference.softmax(logits)
    check.close(probs, expected, expected * (1 + exponents(logits)), shape[1])
    check.close(probs.sum(axis=1, dtype=np.float32), np.ones(shape[0]), 1.0, shape[1])


@shapes
@pytest.mark.parametrize("scale", [None, 1.0, 0.125])
def test_loss_gradient_and_rank(backend, rng, shape, scale):
    logits, labels = problem(rng, shape)
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, scale=scale)
    expected = reference.softmax_xent(logits, labels, scale)
    distance = exponents(logits)
    at_label = distance[np.arange(shape[0]), labels]
    check.close(loss, expected[0], 1 + at_label + abs(expected[0]), shape[1])
    factor = 1 / shape[0] if scale is None else scale
    onehot = np.arange(shape[1]) == labels[:, None]
    magnitude = factor * (reference.softmax(logits) * (1 + distance) + onehot)
    check.close(dlogits, expected[1], magnitude, shape[1])
    check.equal(rank, expected[2])
    assert rank.dtype == np.int32


@shapes
def test_gradient_against_differences_of_the_reference(backend, rng, shape):
    logits, labels = problem(rng, shape)
    _, dlogits, _ = check.call(backend, ops.softmax_xent, logits, labels, scale=1.0)
    loss_weight = np.ones(shape[0])
    check.gradient(
        lambda v: reference.softmax_xent(v, labels)[0], logits, loss_weight, dlogits, directions=2
    )


@pytest.mark.parametrize("shape", [(7, 3), (40, 300)], ids=str)
def test_weights_of_classes(backend, rng, shape):
    """They multiply loss and gradient of their samples; ranks stay, and so do the bits for 1."""
    logits, labels = problem(rng, shape)
    weights = rng.uniform(0, 4, shape[1]).astype(np.float32)
    weights[labels[0]] = 0
    options = {"weights": weights, "scale": 1.0}
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, **options)
    expected = reference.softmax_xent(logits, labels, 1.0, weights)
    size = np.maximum(weights[labels], 1e-30) * (1 + exponents(logits).max(axis=1))
    check.close(loss, expected[0], 2 * size, shape[1])
    check.close(dlogits, expected[1], 2 * size[:, None], shape[1])
    assert loss[0] == 0
    assert not dlogits[0].any()
    check.gradient(
        lambda v: reference.softmax_xent(v, labels, weights=weights)[0],
        logits, np.ones(shape[0]), dlogits, directions=2,
    )  # fmt: skip
    plain = check.call(backend, ops.softmax_xent, logits, labels)
    check.equal(rank, plain[2])
    ones = check.call(backend, ops.softmax_xent, logits, labels, weights=np.ones_like(weights))
    for got, same in zip(ones, plain, strict=True):
        check.same_bits(got, same)


@shapes
def test_without_gradient(backend, rng, shape):
    logits, labels = problem(rng, shape)
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, dlogits=False)
    assert dlogits is None
    with_gradient = check.call(backend, ops.softmax_xent, logits, labels)
    check.same_bits(loss, with_gradient[0])
    check.same_bits(rank, with_gradient[2])


@shapes
def test_ranks_of_ties(backend, rng, shape):
    """Among equals the earlier class counts as ahead."""
    logits = cases.integers(rng, shape, largest=1)
    labels = rng.integers(0, shape[1], shape[0]).astype(np.int32)
    _, _, rank = check.call(backend, ops.softmax_xent, logits, labels)
    check.equal(rank, reference.softmax_xent(logits, labels)[2])


def test_every_label_of_equal_scores(backend):
    logits, labels = np.zeros((6, 6), np.float32), np.arange(6, dtype=np.int32)
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, scale=1.0)
    check.equal(rank, np.arange(6))
    check.close(loss, np.full(6, np.log(6)), 1 + np.log(6), 6)
    check.close(dlogits, 1 / 6 - np.eye(6), 1.0, 6)


def test_large_scores_do_not_overflow(backend):
    logits = np.array([[1e30, -1e30, 0], [-1e30, -1e30, -1e30], [88, 89, 1000]], np.float32)
    labels = np.array([0, 2, 2], np.int32)
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, scale=1.0)
    check.close(loss, np.array([0, np.log(3), 0]), 3.0, 3)
    third = 1 / 3
    check.close(dlogits, np.array([[0, 0, 0], [third, third, third - 1], [0, 0, 0]]), 1.0, 3)
    check.equal(rank, np.array([0, 2, 0]))
    probs = check.call(backend, ops.softmax_fprop, logits)
    check.close(probs, np.array([[1, 0, 0], [third, third, third], [0, 0, 1]]), 1.0, 3)


def test_a_wrong_certainty_costs_what_it_should(backend):
    logits, labels = np.array([[0, 500]], np.float32), np.array([0], np.int32)
    loss, dlogits, rank = check.call(backend, ops.softmax_xent, logits, labels, scale=1.0)
    check.close(loss, np.array([500.0]), 500.0)
    check.close(dlogits, np.array([[-1.0, 1.0]]), 1.0)
    check.equal(rank, np.array([1]))


def test_nan_counts_against_the_label(backend):
    nan = np.nan
    logits = np.array([[nan, 1, 0, 0], [0, nan, 1, 2], [nan, nan, nan, nan], [3, 2, 1, nan]])
    logits = logits.astype(np.float32)
    labels = np.array([1, 1, 0, 0], np.int32)
    loss, _, rank = check.call(backend, ops.softmax_xent, logits, labels)
    check.equal(rank, np.array([1, 3, 3, 1]))
    assert np.isnan(loss).all()


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_label_out_of_range(backend, label):
    """Refused where labels can be read on the host."""
    logits, labels = np.zeros((2, 3), np.float32), np.array([0, label], np.int32)
    if backend.name != "cuda":
        with pytest.raises(ValueError, match=rf"labels\[1\].*expected 0 to 2, got {label}"):
            ops.softmax_xent(logits, labels)


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "no gradient"])
@pytest.mark.parametrize("classes", [3, 300])
@pytest.mark.parametrize("label", [-1, "classes", 2**31 - 1, -(2**31)])
def test_label_that_goes_wrong_later(backend, classes, label, gradient):
    """A step that is run again reads labels that nobody has checked: NaN, and never right."""
    logits, labels = backend.zeros((2, classes)), backend.zeros((2,), np.int32)
    outputs = [((2,), np.float32), ((2, classes), np.float32), ((2,), np.int32)]
    guards = [check.Guarded(backend, shape, np.dtype(dtype)) for shape, dtype in outputs]
    out = [guard.array for guard in guards]
    if not gradient:
        out[1] = None
    recording = backend.module.Recording()
    recording.begin()
    ops.softmax_xent(logits, labels, dlogits=gradient, out=tuple(out))
    recording.end()
    wrong = classes if label == "classes" else label
    backend.put(labels, np.array([0, wrong], np.int32))
    recording.run()
    loss, dlogits, rank = (guard.check() for guard in guards)
    check.equal(np.isnan(loss), np.array([False, True]))
    check.equal(rank, np.array([0, classes]))
    if gradient:
        check.equal(np.isnan(dlogits), np.array([[False] * classes, [True] * classes]))


def test_unaligned_arrays(backend, rng):
    logits, labels = problem(rng, (5, 37))
    aligned = check.call(backend, ops.softmax_xent, logits, labels)
    for results in check.calls_on_unaligned(backend, ops.softmax_xent, logits, labels):
        for result, expected in zip(results, aligned, strict=True):
            check.equal(result, expected)
