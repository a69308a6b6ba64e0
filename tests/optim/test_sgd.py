"""The update rule against its formula in float64, and its settings."""

import numpy as np
import pytest
import reference

import convnet.training.update_ratios
from convnet.layers.layer import Parameter
from convnet.models import small
from convnet.optim.sgd import SGD
from convnet.training.update_ratios import update_ratios


def parameter(backend, rng, shape, **multipliers):
    data = backend.asarray(rng.standard_normal(shape).astype(np.float32))
    return Parameter("w", data, **multipliers)


def put_gradient(backend, param, grad):
    param.grad = backend.asarray(grad)


def test_three_steps_follow_the_rule(backend, rng):
    params = [
        parameter(backend, rng, (5, 3)),
        parameter(backend, rng, (7,), lr_mult=2.0, decay_mult=0.0),
        parameter(backend, rng, (2, 2, 2), lr_mult=0.5, decay_mult=3.0),
    ]
    expected = [(backend.to_host(p.data).astype(np.float64), np.zeros(p.shape)) for p in params]
    sgd = SGD(params, lr=0.1, momentum=0.8, weight_decay=0.01)
    for step in range(3):
        sgd.lr = 0.1 / (step + 1)
        for index, p in enumerate(params):
            grad = rng.standard_normal(p.shape).astype(np.float32)
            put_gradient(backend, p, grad)
            w, velocity = expected[index]
            expected[index] = reference.sgd_update(
                w, velocity, grad, p.lr_mult, p.decay_mult, sgd.lr, 0.8, 0.01
            )
        sgd.update()
    for p, (w, velocity) in zip(params, expected, strict=True):
        np.testing.assert_allclose(backend.to_host(p.data), w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(backend.to_host(p.velocity), velocity, rtol=1e-5, atol=1e-6)


def test_lr_mult_0_freezes_a_moving_parameter(backend, rng):
    p = parameter(backend, rng, (4,))
    put_gradient(backend, p, np.ones(4, np.float32))
    sgd = SGD([p], lr=0.1)
    sgd.update()
    before, velocity = backend.to_host(p.data).copy(), backend.to_host(p.velocity).copy()
    assert velocity.any()
    p.lr_mult = 0.0
    sgd.update()
    np.testing.assert_array_equal(backend.to_host(p.data), before)
    np.testing.assert_array_equal(backend.to_host(p.velocity), velocity)


def test_a_parameter_without_a_gradient_is_an_error(backend, rng):
    p = parameter(backend, rng, (4,))
    with pytest.raises(RuntimeError, match="w: there is no gradient"):
        SGD([p], lr=0.1).update()


def test_zeroed_gradient_reads_as_zero(backend, rng):
    p = parameter(backend, rng, (4,))
    put_gradient(backend, p, np.ones(4, np.float32))
    p.zero_grad()
    assert not backend.to_host(p.grad).any()


def test_memory_is_taken_when_first_used(rng):
    p = Parameter("w", np.zeros(4, np.float32))
    assert p.grad is None
    assert not p.has_velocity
    assert p.velocity.shape == (4,)
    assert p.has_velocity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr: expected a number >= 0, got -1.0"),
        ({"lr": float("nan")}, "lr: expected a finite number"),
        ({"momentum": 1.0}, "momentum: expected a number >= 0 and < 1, got 1.0"),
        ({"weight_decay": "much"}, "weight_decay: expected a finite number, got 'much'"),
    ],
)
def test_errors_name_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        SGD([], **settings)


def test_update_ratios(rng, monkeypatch):
    """The change of the weights in the last step, over the weights; and nothing is changed."""
    monkeypatch.setattr(
        convnet.training.update_ratios, "_CHUNK", 7
    )  # so that several pieces are summed
    net = small(in_shape=(24, 24, 3), width=4, hidden=8, device="cpu", seed=2)
    net.params[0].lr_mult = 0.0  # conv1 is frozen
    assert update_ratios(net) == {}
    sgd = SGD(net.params, lr=0.1)
    x, labels = rng.standard_normal((4, 24, 24, 3)).astype(np.float32), np.arange(4)
    net.train_step(x, labels, sgd)
    before = net.state()
    net.train_step(x, labels, sgd)
    after = net.state()
    ratios = update_ratios(net)
    assert list(ratios) == ["conv2", "conv3", "conv4", "fc5", "fc6"]
    for name, ratio in ratios.items():
        old, new = (state[f"{name}.w"].astype(np.float64) for state in (before, after))
        assert ratio == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(new), rel=1e-4)
    assert all(np.array_equal(after[name], array) for name, array in net.state().items())
    net.params[-2].data[...] = 0.0  # fc6.w: nothing to compare with
    assert list(update_ratios(net)) == ["conv2", "conv3", "conv4", "fc5"]
