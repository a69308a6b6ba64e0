"""Dropout in the epilogue of a dense layer: the bits of the two operations apart."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
from cases import DenseCase

from convnet import ops

# Every tile, alone and with splits, and rows of a mask that begin anywhere among its fours.
CASES = (
    *cases.DENSE,
    DenseCase("fc", 65, 200, 130),
    DenseCase("fc-odd", 33, 77, 41),
    DenseCase("splits", 3, 1030, 17),
    DenseCase("splits-of-fours", 70, 2304, 36),
    DenseCase("small-tiles", 40, 60, 24),
    DenseCase("medium-tiles", 70, 40, 60),
    DenseCase("ninety-six", 70, 40, 92),
    DenseCase("large-tiles", 130, 40, 136),
)
SEED = 2**33 + 5
MASKS = {
    "whole": {"layer": 7, "step": 3},
    "inverted": {"mode": "inverted"},
    "rows": {"row_offset": 1_000_003, "step": 2},
    "columns": {"col_offset": 3, "row_offset": 5},
    "wide": {"col_offset": 4, "row_offset": 2, "extra": 1},
}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_precision = pytest.mark.parametrize("precision", ops.PRECISIONS)


def mask_for(name, case: DenseCase):
    """The options of a mask over y [N, K] as a block of something wider."""
    mask = {"seed": SEED, **MASKS[name]}
    extra = mask.pop("extra", 0)
    return mask | {"global_cols": case.k + mask.get("col_offset", 0) + extra}


def arrays(rng, case: DenseCase):
    return [cases.floats(rng, shape) for shape in ((case.n, case.c), (case.k, case.c), (case.k,))]


def apart(backend, x, w, b, drop, relu, precision, **mask):
    y = ops.dense_fprop(*map(moved(backend), (x, w, b)), relu=relu, precision=precision)
    return np.array(backend.to_host(ops.dropout_fprop(y, drop, **mask)))


def moved(backend):
    return lambda array: None if array is None else backend.asarray(array)


@every_case
@pytest.mark.parametrize("mask", MASKS)
def test_the_bits_of_the_two(backend, rng, case, mask):
    x, w, b = arrays(rng, case)
    options = mask_for(mask, case)
    for bias, relu in ((b, True), (None, False)):
        expected = apart(backend, x, w, bias, 0.3, relu, "fp32", **options)
        y = check.call(backend, ops.dense_fprop_dropout, x, w, bias, 0.3, relu=relu, **options)
        check.same_bits(y, expected)
        assert expected.size < 20 or 0 < np.count_nonzero(y) < y.size


@every_case
@every_precision
def test_in_every_math(backend, rng, case, precision):
    problem, mask = arrays(rng, case), mask_for("columns", case)
    expected = apart(backend, *problem, 0.5, True, precision, **mask)
    y = ops.dense_fprop_dropout(
        *map(moved(backend), problem), 0.5, relu=True, precision=precision, **mask
    )
    check.same_bits(np.array(backend.to_host(y)), expected)


@every_precision
def test_seed_and_step_of_the_step_state(backend, rng, precision):
    """They are read when the operation runs, and the numbers beside them do not matter."""
    state = check.state_of(backend, seed=SEED, step=9)
    for case in (CASES[-1], CASES[-5]):
        problem = arrays(rng, case)
        expected = apart(backend, *problem, 0.5, True, precision, seed=SEED, step=9, layer=2)
        y = ops.dense_fprop_dropout(
            *map(moved(backend), problem),
            0.5,
            relu=True,
            precision=precision,
            seed=1,
            step=1,
            layer=2,
            state=state,
        )
        check.same_bits(np.array(backend.to_host(y)), expected)


def test_unaligned_arrays(backend, rng):
    for case in (CASES[-1], CASES[-5]):
        problem, mask = arrays(rng, case), mask_for("rows", case)
        expected = apart(backend, *problem, 0.5, True, "fp32", **mask)
        op = (backend, ops.dense_fprop_dropout, *problem, 0.5)
        for y in check.calls_on_unaligned(*op, relu=True, **mask):
            check.same_bits(y, expected)


@pytest.mark.parametrize("mode", ["paper", "inverted"])
def test_a_shard_of_the_batch_draws_its_rows_of_the_mask(backend, rng, mode):
    """A rank that holds samples from the fourth on drops what one process alone would drop."""
    x = cases.integers(rng, (9, 7))  # whole numbers, so that every order of a sum is right
    w, b = cases.integers(rng, (10, 7)), cases.integers(rng, (10,))

    def dropped(x, row_offset):
        mask = {"seed": SEED, "step": 4, "layer": 5, "global_cols": 10, "row_offset": row_offset}
        arrays = map(moved(backend), (x, w, b))
        y = ops.dense_fprop_dropout(*arrays, 0.4, relu=True, mode=mode, **mask)
        return np.array(backend.to_host(y))

    whole = dropped(x, 0)
    check.same_bits(dropped(x[4:], 4), whole[4:])
    assert np.any(dropped(x[4:], 0) != whole[4:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": (4, 6)}, "w: expected 7 columns, the width of x"),
        ({"b": (5,)}, r"b: expected shape \(4,\), got \(5,\)"),
        ({"out": (3, 5)}, r"y: expected shape \(3, 4\), got \(3, 5\)"),
        ({"x": (3,)}, "x: expected 2 dimensions"),
        ({"drop": 1.0}, r"drop: expected a probability in \[0, 1\), got 1.0"),
        ({"mode": "half"}, 'mode: expected "paper" or "inverted"'),
        ({"global_cols": 3}, "global_cols: expected between 4 and"),
        ({"seed": -1}, "seed: expected 0 to"),
    ],
)
def test_what_is_refused(backend, change, message):
    given = {"x": (3, 7), "w": (4, 7), "b": (4,), "out": (3, 4), "seed": 1} | change
    arrays = {
        name: backend.zeros(value) if isinstance(value, tuple) else value
        for name, value in given.items()
    }
    with pytest.raises(ValueError, match=f"dense_fprop_dropout: {message}"):
        ops.dense_fprop_dropout(**arrays)
