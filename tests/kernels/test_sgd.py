"""The paper's update rule, for many tensors in one call, in place."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops

SHAPES = [(1,), (3,), (4, 4), (5, 3, 3, 7), (33,), (1025,), (128, 257), (100_003,)]
# Powers of two: every product and sum below is exact.
EXACT = {"lr": 0.5, "momentum": 0.25, "weight_decay": 0.125}
PAPER = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def own_rates(backend, lr, momentum, **_):
    """A row for each tensor, with the same numbers."""
    return backend.asarray(np.full((len(SHAPES), 2), (lr, momentum), np.float32))


def update(backend, tensors, filler="nan", **options):
    """(w, velocity) of each (w, velocity, grad, lr_mult, decay_mult); grads must stay untouched."""
    guarded = []
    for w, velocity, grad, *multipliers in tensors:
        guards = [check.Guarded.of(backend, array, filler) for array in (w, velocity, grad)]
        guarded.append((guards, multipliers))
    ops.sgd_update(
        [(*(guard.array for guard in guards), *rest) for guards, rest in guarded], **options
    )
    after = [[guard.check() for guard in guards] for guards, _ in guarded]
    for (_, _, grad, _, _), (_, _, same) in zip(tensors, after, strict=True):
        check.same_bits(same, grad)
    return [(w, velocity) for w, velocity, _ in after]


def tensors(make, rng):
    """One tensor of every shape, each with multipliers of its own."""
    return [
        (*(make(rng, shape) for _ in range(3)), 2.0 ** (i % 3), float(i % 2))
        for i, shape in enumerate(SHAPES)
    ]


def test_exact_on_integers(backend, rng):
    problem = tensors(cases.integers, rng)
    for got, tensor in zip(update(backend, problem, **EXACT), problem, strict=True):
        for actual, expected in zip(got, reference.sgd_update(*tensor, **EXACT), strict=True):
            check.equal(actual, expected)


def test_on_floats(backend, rng):
    problem = tensors(cases.floats, rng)
    for got, tensor in zip(update(backend, problem, **PAPER), problem, strict=True):
        w, velocity, grad, lr_mult, decay_mult = tensor
        expected_w, expected_velocity = reference.sgd_update(*tensor, **PAPER)
        rate = PAPER["lr"] * lr_mult
        decay = PAPER["weight_decay"] * decay_mult * rate
        magnitude = PAPER["momentum"] * abs(velocity) + decay * abs(w) + rate * abs(grad)
        check.close(got[1], expected_velocity, magnitude, 3)
        check.close(got[0], expected_w, magnitude + abs(w), 4)


def test_every_factor_matters(backend):
    """w = 1, v = 1, g = 1: the four terms of the rule, one at a time."""
    one = np.ones(5, np.float32)

    def after(lr_mult=1.0, decay_mult=1.0, **options):
        ((w, v),) = update(backend, [(one, one, one, lr_mult, decay_mult)], **(EXACT | options))
        assert (w == w[0]).all()
        assert (v == v[0]).all()
        return v[0], w[0] - 1

    assert after() == (0.25 - 0.0625 - 0.5,) * 2
    assert after(momentum=0.0) == (-0.0625 - 0.5,) * 2
    assert after(weight_decay=0.0) == (0.25 - 0.5,) * 2
    assert after(decay_mult=0.0) == (0.25 - 0.5,) * 2
    assert after(lr_mult=2.0) == (0.25 - 0.125 - 1,) * 2
    assert after(lr_mult=0.0) == (0.25, 0.25)
    assert after(lr=0.0) == (0.25, 0.25)


def test_gradient_zero_and_no_decay_leave_w(backend, rng):
    w = cases.floats(rng, (77,))
    zero = np.zeros_like(w)
    ((after, velocity),) = update(backend, [(w, zero, zero, 1.0, 0.0)], **PAPER)
    check.same_bits(after, w)
    check.equal(velocity, zero)


def test_several_steps_accumulate_momentum(backend):
    w, velocity, grad = (np.full(9, value, np.float32) for value in (8.0, 0.0, 1.0))
    for _ in range(4):
        ((w, velocity),) = update(
            backend, [(w, velocity, grad, 1.0, 1.0)], lr=0.5, momentum=0.5, weight_decay=0.0
        )
    check.equal(velocity, np.full(9, -0.5 - 0.25 - 0.125 - 0.0625))
    check.equal(w, np.full(9, 8 - 0.5 - 0.75 - 0.875 - 0.9375))


def test_all_at_once_equals_one_by_one(backend, rng):
    problem = tensors(cases.floats, rng)
    together = update(backend, problem, **PAPER)
    for tensor, expected in zip(problem, together, strict=True):
        (alone,) = update(backend, [tensor], **PAPER)
        check.same_bits(alone[0], expected[0])
        check.same_bits(alone[1], expected[1])


def test_same_bits_every_time(backend, rng):
    problem = tensors(cases.floats, rng)
    first = update(backend, problem, **PAPER)
    for _ in check.reruns(backend, ops.sgd_update):
        for filler in check.FILLERS:
            again = update(backend, problem, filler, **PAPER)
            for got, expected in zip(again, first, strict=True):
                check.same_bits(got[0], expected[0])
                check.same_bits(got[1], expected[1])


@pytest.mark.parametrize("count", [64, 300])
def test_many_tensors(backend, count):
    """As many as one launch's table takes, and more."""
    one = np.ones(3, np.float32)
    problem = [(one * i, one, one, 1.0, 1.0) for i in range(count)]
    for got, tensor in zip(update(backend, problem, **EXACT), problem, strict=True):
        check.equal(got[0], reference.sgd_update(*tensor, **EXACT)[0])


def test_no_tensors(backend):
    ops.sgd_update([], **PAPER)


@pytest.mark.parametrize("count", [1, 3, 5, 1023])
def test_unaligned_arrays(backend, rng, count):
    host = [cases.integers(rng, (count,)) for _ in range(3)]
    expected = reference.sgd_update(*host, 1.0, 1.0, **EXACT)
    for shifts in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        w, velocity, grad = (
            check.Guarded.of(backend, array, shift=shift)
            for array, shift in zip(host, shifts, strict=True)
        )
        ops.sgd_update([(w.array, velocity.array, grad.array, 1.0, 1.0)], **EXACT)
        check.equal(w.check(), expected[0])
        check.equal(velocity.check(), expected[1])


def test_rates_of_the_step_state(backend, rng):
    """They are read when the operation runs, and the numbers beside them do not matter."""
    problem = tensors(cases.floats, rng)
    expected = update(backend, problem, **PAPER)
    state = check.state_of(backend, **PAPER)
    wrong = {"lr": 7.0, "momentum": 0.7, "weight_decay": 7.0}
    for got, want in zip(update(backend, problem, **wrong, state=state), expected, strict=True):
        check.same_bits(got[0], want[0])
        check.same_bits(got[1], want[1])


def test_an_aborted_step_changes_nothing(backend, rng):
    problem = tensors(cases.floats, rng)
    state = check.state_of(backend, aborted=3, **PAPER)
    after = update(backend, problem, **PAPER, state=state)
    for (w, velocity), tensor in zip(after, problem, strict=True):
        check.same_bits(w, tensor[0])
        check.same_bits(velocity, tensor[1])


@pytest.mark.parametrize(("words", "dtype"), [(11, np.uint32), (12, np.float32)])
def test_a_state_that_is_none(backend, words, dtype):
    one = [backend.zeros((3,)) for _ in range(3)]
    with pytest.raises(ValueError, match="sgd_update: state: expected"):
        ops.sgd_update([(*one, 1.0, 1.0)], **PAPER, state=backend.zeros((words,), dtype))


def words_of(backend, state):
    """diverged and diverged_step"""
    return np.array(backend.to_host(state))[7:9].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["grad", "velocity", "w"])
def test_an_element_that_would_not_be_finite_stays(backend, rng, where, value):
    """And no other; in the first element, in the middle, and past the last full vector."""
    w, velocity, grad = (cases.floats(rng, (1027,)) for _ in range(3))
    expected = update(backend, [(w, velocity, grad, 2.0, 1.0)], **PAPER)[0]
    for place in (0, 400, 1026):
        tensor = {"w": w.copy(), "velocity": velocity.copy(), "grad": grad.copy()}
        tensor[where][place] = value
        state = check.state_of(backend, step=6, **PAPER)
        problem = [(*tensor.values(), 2.0, 1.0)]
        got = update(backend, problem, **PAPER, state=state, numbers=[5])[0]
        for actual, want, before in zip(got, expected, tensor.values(), strict=False):
            check.same_bits(np.delete(actual, place), np.delete(want, place))
            check.same_bits(actual[place : place + 1], before[place : place + 1])
        assert words_of(backend, state) == [5, 7]


def test_a_sum_that_overflows_is_not_written(backend):
    """The largest w, velocity or gradient, times the rate, that is just not finite."""
    w, velocity, grad = (np.full(9, value, np.float32) for value in (3e38, 0.0, -1e38))
    state = check.state_of(backend, lr=1.0, momentum=0.0, weight_decay=0.0)
    tensor = (w, velocity, grad, 1.0, 0.0)
    rates = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    ((after, kept),) = update(backend, [tensor], **rates, state=state)
    check.same_bits(after, w)
    check.same_bits(kept, velocity)
    assert words_of(backend, state) == [1, 1]
    state = check.state_of(backend, lr=0.25, momentum=0.0, weight_decay=0.0)
    ((after, _),) = update(backend, [tensor], **rates, state=state)
    check.equal(after, np.full(9, np.float32(3e38) + np.float32(2.5e37)))
    assert words_of(backend, state) == [0, 0]


@pytest.mark.parametrize(("wrong", "noted"), [((0, 2), 3), ((0,), 1), ((5, 1, 70), 71)])
def test_the_greatest_number_is_noted(backend, rng, wrong, noted):
    problem = [(*(cases.floats(rng, (5,)) for _ in range(3)), 1.0, 1.0) for _ in range(90)]
    for place in wrong:
        problem[place][2][3] = np.nan
    for _ in check.reruns(backend, ops.sgd_update):
        state = check.state_of(backend, **PAPER)
        update(backend, problem, **PAPER, state=state)
        assert words_of(backend, state) == [noted, 1]


def test_a_lesser_number_does_not_replace_a_greater(backend):
    one, nan = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    state = check.state_of(backend, **PAPER)
    for number in (7, 3):
        tensor = (one, one, nan, 1.0, 1.0)
        update(backend, [tensor], **PAPER, state=state, numbers=[number])
    assert words_of(backend, state) == [7, 1]


@pytest.mark.parametrize("own", [False, True])
def test_a_later_step_changes_nothing(backend, rng, own):
    """The step that met it goes on: which elements another block has seen must not matter."""
    problem = tensors(cases.floats, rng)
    expected = update(backend, problem, **PAPER)
    state = check.state_of(backend, step=4, **PAPER)
    state[7:9] = backend.asarray(np.array([2, 5], np.uint32))
    rates = own_rates(backend, **PAPER) if own else None
    for got, want in zip(
        update(backend, problem, **PAPER, state=state, rates=rates), expected, strict=True
    ):
        check.same_bits(got[0], want[0])
    state[2:3] = backend.asarray(np.array([5], np.uint32))
    for got, tensor in zip(
        update(backend, problem, **PAPER, state=state, rates=rates), problem, strict=True
    ):
        check.same_bits(got[0], tensor[0])
        check.same_bits(got[1], tensor[1])
    assert words_of(backend, state) == [2, 5]


def test_rates_of_ones_own_beside_a_state(backend, rng):
    """Each tensor has those of the row of its number; the weight decay is everybody's."""
    problem = tensors(cases.floats, rng)
    rows = np.array([(0.5 / (i + 1), 0.9 - 0.1 * i) for i in range(2 * len(problem))], np.float32)
    numbers = [2 * len(problem) - 2 * i for i in range(len(problem))]
    state = check.state_of(backend, lr=7.0, momentum=0.7, weight_decay=5e-4)
    wrong = {"lr": 7.0, "momentum": 0.7}
    for given in ({"state": state, "weight_decay": 7.0}, {"weight_decay": 5e-4}):
        rates = backend.asarray(rows)
        got = update(backend, problem, **wrong, **given, numbers=numbers, rates=rates)
        for tensor, number, actual in zip(problem, numbers, got, strict=True):
            lr, momentum = map(float, rows[number - 1])
            ((w, v),) = update(backend, [tensor], lr=lr, momentum=momentum, weight_decay=5e-4)
            check.same_bits(actual[0], w)
            check.same_bits(actual[1], v)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 2), np.float32), ((2, 3), np.float32), ((4,), np.float32),
                         ((2, 2), np.float64)]
)  # fmt: skip
def test_rates_that_do_not_fit(backend, shape, dtype):
    one = [backend.zeros((3,)) for _ in range(6)]
    pair = [(*one[:3], 1.0, 1.0), (*one[3:], 1.0, 1.0)]
    with pytest.raises(ValueError, match="sgd_update: rates: expected"):
        ops.sgd_update(pair, **PAPER, rates=backend.zeros(shape, dtype))


@pytest.mark.parametrize("numbers", [[0], [1, 2], [1.5], [-1]])
def test_numbers_that_are_none(backend, numbers):
    one = [backend.zeros((3,)) for _ in range(3)]
    with pytest.raises(ValueError, match=r"sgd_update: .*number"):
        ops.sgd_update([(*one, 1.0, 1.0)], **PAPER, numbers=numbers)
