"""Learning-rate schedules: the formulas of cuda-convnet, the paper's plateau rule, warm-up."""

import json
import math

import pytest

from convnet.optim import lr_schedule
from convnet.optim.lr_schedule import (
    SCHEDULES,
    Constant,
    Cosine,
    DExp,
    Exp,
    Linear,
    Plateau,
    Step,
)

TOTAL = 1000


def test_constant():
    assert Constant(0.1).lr(0, TOTAL) == Constant(0.1).lr(999, TOTAL) == 0.1


def test_step_drops_at_the_steps_and_not_before():
    s = Step(1.0, steps=[10, 20], factor=10)
    assert [s.lr(step, TOTAL) for step in (0, 9, 10, 19, 20, 999)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_step_every():
    s = Step(1.0, every=100, factor=2)
    assert [s.lr(step, TOTAL) for step in (0, 99, 100, 199, 200)] == [1, 1, 0.5, 0.5, 0.25]


def test_linear_goes_to_base_over_factor():
    s = Linear(1.0, target_factor=10)
    assert s.lr(0, TOTAL) == 1.0
    assert s.lr(500, TOTAL) == pytest.approx(0.55)
    assert s.lr(TOTAL, TOTAL) == pytest.approx(0.1)


def test_exp_goes_to_base_over_factor():
    s = Exp(1.0, target_factor=100)
    assert s.lr(0, TOTAL) == 1.0
    assert s.lr(500, TOTAL) == pytest.approx(0.1)
    assert s.lr(TOTAL, TOTAL) == pytest.approx(0.01)


def test_dexp_has_equal_spans():
    s = DExp(1.0, target_factor=1000, levels=4)
    rates = [s.lr(step, TOTAL) for step in range(TOTAL)]
    for span, rate in enumerate([1.0, 0.1, 0.01, 0.001]):
        assert rates[250 * span : 250 * (span + 1)] == pytest.approx([rate] * 250)
    assert s.lr(TOTAL, TOTAL) == pytest.approx(0.001)  # past the end too


def test_cosine():
    s = Cosine(1.0, final=0.2)
    assert s.lr(0, TOTAL) == 1.0
    assert s.lr(500, TOTAL) == pytest.approx(0.6)
    assert s.lr(250, TOTAL) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert s.lr(TOTAL, TOTAL) == pytest.approx(0.2)


def test_plateau_waits_drops_and_finishes():
    s = Plateau(1.0, factor=10, patience=2, drops=2)
    said = [s.observe(error) for error in (50, 40, 41, 40)]  # equal is no improvement
    assert said[:3] == [None] * 3
    assert said[3] == "no improvement in 2 epochs: learning rate now 0.1 (drop 1 of 2)"
    assert s.lr(123, TOTAL) == pytest.approx(0.1)
    assert s.observe(39) is None  # improves, so the wait begins anew
    assert s.observe(39) is None
    assert "drop 2 of 2" in s.observe(39)
    assert not s.finished
    assert s.observe(39) is None
    assert "finished" in s.observe(39)
    assert s.finished
    assert s.lr(0, TOTAL) == pytest.approx(0.01)
    assert s.observe(39) is None


def test_plateau_min_delta():
    s = Plateau(1.0, patience=1, min_delta=0.5)
    assert s.observe(50) is None
    assert s.observe(49.6) is not None  # better, but not by enough
    assert s.observe(49.4) is None


def test_plateau_counts_nan_as_no_improvement():
    s = Plateau(1.0, patience=2)
    assert s.observe(math.nan) is None
    assert s.observe(math.nan) is not None
    assert s.observe(50) is None
    assert s.best == 50


def test_plateau_goes_on_from_its_state():
    a, b = Plateau(1.0, patience=2, drops=1), Plateau(1.0, patience=2, drops=1)
    for error in (50, 60, 60, 60):
        a.observe(error)
    b.load(json.loads(json.dumps(a.state())))
    assert b.lr(0, TOTAL) == a.lr(0, TOTAL) == pytest.approx(0.1)
    assert a.observe(60) == b.observe(60)
    assert a.finished
    assert b.finished


def test_fresh_plateau_state_is_json():
    s = Plateau(1.0)
    s.load(json.loads(json.dumps(s.state())))
    assert s.best is None


def test_warmup_scales_the_first_steps_of_any_schedule():
    s = lr_schedule.build("step", 1.0, warmup_steps=4, every=5)
    assert [s.lr(step, TOTAL) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.1]


def test_plateau_with_warmup():
    s, other = (lr_schedule.build("plateau", 1.0, 4, patience=1, drops=0) for _ in range(2))
    s.observe(50)
    assert not s.finished
    assert "finished" in s.observe(50)
    assert s.finished
    assert s.state()["finished"]
    other.load(s.state())
    assert other.finished


@pytest.mark.parametrize("kind", SCHEDULES)
def test_build_makes_each_kind(kind):
    options = {"every": 10} if kind == "step" else {}
    s = lr_schedule.build(kind, 0.5, warmup_steps=2, **options)
    assert s.lr(0, TOTAL) == pytest.approx(0.25, rel=0.01)
    assert s.lr(2, TOTAL) == pytest.approx(0.5, rel=0.01)
    assert s.observe(10.0) is None
    assert not s.finished
    s.load(s.state())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lr_schedule.build("expo", 0.1), r"schedule kind: expected one of .*; got 'expo'"),
        (lambda: Step(0.1), "expected steps or every"),
        (lambda: Step(0.1, steps=[1], every=2), "expected steps or every"),
        (lambda: Step(0.1, steps=[5, 3]), r"steps: expected increasing numbers, got \[5, 3\]"),
        (lambda: Exp(0.1, target_factor=0), "target_factor: expected a number > 0, got 0"),
        (lambda: DExp(0.1, levels=1), "levels: expected a whole number, at least 2; got 1"),
        (lambda: Plateau(-0.1), "lr: expected a number >= 0"),
        (lambda: Plateau(0.1, patience=0), "patience"),
        (lambda: Plateau(0.1).load({"best": 1}), "expected a state with keys"),
        (lambda: Constant(0.1).load({"best": 1}), "expected a state with keys"),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
