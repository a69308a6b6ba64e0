"""The gradient of dense weights that goes straight into their update: the bits of the two apart."""

from __future__ import annotations

import itertools

import cases
import check
import numpy as np
import pytest
import reference
from cases import DenseCase

from convnet import ops

# Every tile, and splits of the sum over the batch, of which the last may have nothing left to do;
# the last case lies in several tiles on the CPU.
CASES = (
    *cases.DENSE,
    DenseCase("fc", 65, 200, 130),
    DenseCase("fc-odd", 33, 77, 41),
    DenseCase("small-tiles", 40, 60, 24),
    DenseCase("ninety-six", 40, 100, 92),
    DenseCase("medium-for-180", 40, 68, 180),
    DenseCase("empty-splits", 1296, 20, 12),
    DenseCase("splits", 600, 40, 36),
    DenseCase("odd-splits", 300, 35, 21),
    DenseCase("several-tiles", 9, 2300, 530, small=False),
)
FC = next(case for case in CASES if case.name == "fc")
SOME = [FC, CASES[-3], CASES[3]]
# Powers of two: every product and sum is exact.
EXACT = {"lr": 0.5, "momentum": 0.25, "weight_decay": 0.125}
PAPER = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
MULTIPLIERS = {"lr_mult": 2.0, "decay_mult": 0.5}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_precision = pytest.mark.parametrize("precision", ops.PRECISIONS)


def arrays(make, rng, case: DenseCase):
    """x, dy, w, velocity"""
    shapes = (case.n, case.c), (case.n, case.k), (case.k, case.c), (case.k, case.c)
    return [make(rng, shape) for shape in shapes]


def apart(backend, x, dy, w, velocity, precision, **options):
    """(w, velocity, db) by two operations."""
    x, dy, w, velocity = map(backend.asarray, (x, dy, w.copy(), velocity.copy()))
    dw, db = ops.dense_wgrad(x, dy, precision=precision)
    ops.sgd_update([(w, velocity, dw, *MULTIPLIERS.values())], **options)
    return [np.array(backend.to_host(array)) for array in (w, velocity, db)]


def together(backend, x, dy, w, velocity, precision, filler="nan", **options):
    """(w, velocity, db) by one, within fillers that must not be touched."""
    given = (x, dy, w, velocity)
    guards = [check.Guarded.of(backend, array, filler) for array in given]
    out = check.Guarded(backend, dy[0].shape, dy.dtype, filler)
    with check.guarded_workspace(backend, filler):
        db = ops.dense_wgrad_sgd(
            *(guard.array for guard in guards),
            precision=precision,
            out=out.array,
            **MULTIPLIERS,
            **options,
        )
    assert db is out.array
    after = [guard.check() for guard in guards]
    same(after[:2], (x, dy))
    return [*after[2:], out.check()]


def same(actual, expected):
    for got, want in zip(actual, expected, strict=True):
        check.same_bits(got, want)


@every_case
@every_precision
def test_the_bits_of_the_two(backend, rng, case, precision):
    problem = arrays(cases.floats, rng, case)
    expected = apart(backend, *problem, precision, **PAPER)
    assert not np.array_equal(expected[0], problem[2])
    for filler, _ in zip(
        itertools.cycle(check.FILLERS), check.reruns(backend, ops.dense_wgrad_sgd), strict=False
    ):
        same(together(backend, *problem, precision, filler, **PAPER), expected)


@every_case
def test_exact_on_integers(backend, rng, case):
    x, dy, w, velocity = arrays(cases.integers, rng, case)
    got = together(backend, x, dy, w, velocity, "fp32", **EXACT)
    dw, db = reference.dense_wgrad(x, dy)
    expected = reference.sgd_update(w, velocity, dw, *MULTIPLIERS.values(), **EXACT)
    for actual, want in zip(got, (*expected, db), strict=True):
        check.equal(actual, want)


@every_precision
@pytest.mark.parametrize("case", SOME, ids=str)
def test_rates_of_the_step_state(backend, rng, case, precision):
    """They are read when the operation runs, and the numbers beside them do not matter."""
    problem = arrays(cases.floats, rng, case)
    expected = apart(backend, *problem, precision, **PAPER)
    wrong = {"lr": 7.0, "momentum": 0.7, "weight_decay": 7.0}
    state = check.state_of(backend, **PAPER)
    same(together(backend, *problem, precision, **wrong, state=state), expected)


@every_precision
@pytest.mark.parametrize("case", SOME, ids=str)
def test_rates_of_its_own(backend, rng, case, precision):
    """Those of the row of its number, as they are when the operation runs."""
    problem = arrays(cases.floats, rng, case)
    expected = apart(backend, *problem, precision, **PAPER)
    rows = np.array([(7.0, 0.7), (PAPER["lr"], PAPER["momentum"]), (7.0, 0.7)], np.float32)
    wrong = {"lr": 7.0, "momentum": 0.7, "weight_decay": 7.0}
    state = check.state_of(backend, **wrong | {"weight_decay": PAPER["weight_decay"]})
    given = {"number": 2, "rates": backend.asarray(rows), "state": state}
    same(together(backend, *problem, precision, **wrong, **given), expected)
    with pytest.raises(ValueError, match="dense_wgrad_sgd: rates: expected"):
        together(backend, *problem, precision, **wrong, **given | {"number": 4})


@every_precision
@pytest.mark.parametrize("case", SOME, ids=str)
def test_an_aborted_step_changes_nothing(backend, rng, case, precision):
    x, dy, w, velocity = arrays(cases.floats, rng, case)
    state = check.state_of(backend, aborted=3, **PAPER)
    got = together(backend, x, dy, w, velocity, precision, **PAPER, state=state)
    same(got[:2], (w, velocity))


@every_precision
@pytest.mark.parametrize("case", SOME[:2], ids=str)
def test_unaligned_arrays(backend, rng, case, precision):
    """Any of the four alone, too: each has a say in how wide the accesses are."""
    problem = arrays(cases.floats, rng, case)
    expected = apart(backend, *problem, precision, **PAPER)
    for places in [(0, 1, 2, 3), (0,), (1,), (2,), (3,)]:
        moved = [
            check.unaligned(backend, a) if i in places else backend.asarray(a.copy())
            for i, a in enumerate(problem)
        ]
        db = ops.dense_wgrad_sgd(*moved, precision=precision, **MULTIPLIERS, **PAPER)
        same([np.array(backend.to_host(a)) for a in (*moved[2:], db)], expected)


def test_without_bias(backend, rng):
    problem = arrays(cases.floats, rng, FC)
    expected = apart(backend, *problem, "fp32", **PAPER)
    moved = [backend.asarray(a.copy()) for a in problem]
    assert ops.dense_wgrad_sgd(*moved, bias=False, **MULTIPLIERS, **PAPER) is None
    same([np.array(backend.to_host(a)) for a in moved[2:]], expected[:2])


@every_precision
@pytest.mark.parametrize("case", SOME, ids=str)
@pytest.mark.parametrize("where", ["dy", "velocity", "w"])
def test_what_would_not_be_finite_stays(backend, rng, case, precision, where):
    """And is noted; the rest has the bits of the two apart."""
    problem = arrays(cases.floats, rng, case)
    problem[("x", "dy", "w", "velocity").index(where)][3, 5] = np.nan
    state, other = (check.state_of(backend, step=8, **PAPER) for _ in range(2))
    got = together(backend, *problem, precision, **PAPER, state=state, number=4)
    same(got, apart(backend, *problem, precision, **PAPER, state=other))
    assert np.array(backend.to_host(state))[7:9].tolist() == [4, 9]
    changed = got[0] != problem[2]
    if where == "dy":
        assert not changed[5].any()
        assert np.isnan(got[2]).tolist() == [k == 5 for k in range(case.k)]
    assert np.delete(changed, 5, axis=0).any()


def test_any_number_of_threads(rng):
    """On the CPU a thread computes a tile alone, so their number changes nothing."""
    import convnet.backend

    backend = convnet.backend.get("cpu")
    problem = arrays(cases.floats, rng, CASES[-1])
    expected = together(backend, *problem, "fp32", **PAPER)
    for count in (1, 3):
        with check.threads(backend, count):
            same(together(backend, *problem, "fp32", **PAPER), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": (4, 6)}, r"w: expected shape \(4, 7\), got \(4, 6\)"),
        ({"dy": (2, 4)}, r"dy: expected shape \(3, 4\), got \(2, 4\)"),
        ({"velocity": (7, 4)}, r"velocity: expected shape \(4, 7\), got \(7, 4\)"),
        ({"out": (5,)}, r"db: expected shape \(4,\), got \(5,\)"),
        ({"x": (3, 7, 1)}, "x: expected 2 dimensions"),
    ],
)
def test_shapes_that_do_not_fit(backend, change, message):
    shapes = {"x": (3, 7), "dy": (3, 4), "w": (4, 7), "velocity": (4, 7), "out": (4,)}
    given = {name: backend.zeros(shape) for name, shape in (shapes | change).items()}
    with pytest.raises(ValueError, match=f"dense_wgrad_sgd: {message}"):
        ops.dense_wgrad_sgd(**given, **PAPER)


def test_what_is_refused_besides(backend):
    x, dy, w = (backend.zeros(shape) for shape in ((3, 7), (3, 4), (4, 7)))
    with pytest.raises(ValueError, match="velocity: expected memory apart from w"):
        ops.dense_wgrad_sgd(x, dy, w, w, **PAPER)
    with pytest.raises(ValueError, match="state: expected"):
        ops.dense_wgrad_sgd(x, dy, w, backend.zeros((4, 7)), **PAPER, state=backend.zeros((12,)))
    with pytest.raises(ValueError, match="lr: expected a number, got 'much'"):
        ops.dense_wgrad_sgd(x, dy, w, backend.zeros((4, 7)), lr="much")
