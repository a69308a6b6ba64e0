"""Initial weights: distribution, dtype, determinism, errors."""

import numpy as np
import pytest

from convnet.layers import initializers

SHAPE, FAN_IN, FAN_OUT = (50, 4, 5, 20), 400, 1000


def test_gaussian_has_the_standard_deviation(rng):
    w = initializers.gaussian(rng, SHAPE, FAN_IN, FAN_OUT, std=0.02)
    assert w.dtype == np.float32
    assert w.shape == SHAPE
    assert abs(w.mean()) < 4 * 0.02 / np.sqrt(w.size)
    assert w.std() == pytest.approx(0.02, rel=0.03)
    assert np.abs(w).max() > 3 * 0.02  # tails, unlike a uniform distribution


def test_uniform_has_the_standard_deviation_and_bounds(rng):
    w = initializers.uniform(rng, SHAPE, FAN_IN, FAN_OUT, std=0.02)
    assert w.dtype == np.float32
    assert w.std() == pytest.approx(0.02, rel=0.03)
    assert np.abs(w).max() <= 0.02 * np.sqrt(3) * 1.0001


def test_xavier_and_he_scale_with_the_fans(rng):
    xavier = initializers.xavier(rng, SHAPE, FAN_IN, FAN_OUT)
    assert xavier.std() == pytest.approx(np.sqrt(2 / 1400), rel=0.03)
    assert np.abs(xavier).max() <= np.sqrt(6 / 1400) * 1.0001
    assert initializers.he(rng, SHAPE, FAN_IN, FAN_OUT).std() == pytest.approx(
        np.sqrt(2 / 400), rel=0.03
    )


def test_constant(rng):
    b = initializers.constant(rng, (7,), FAN_IN, FAN_OUT, 1.5)
    assert b.dtype == np.float32
    assert (b == 1.5).all()
    assert b.shape == (7,)


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_same_seed_same_weights(name):
    def draw(seed):
        return initializers.weights(name, np.random.default_rng(seed), (3, 4), 4, 3, 0.01)

    np.testing.assert_array_equal(draw(5), draw(5))
    assert (draw(5) != draw(6)).any()


def test_weights_takes_a_function(rng):
    w = initializers.weights(
        lambda rng, shape, fan_in, fan_out: np.full(shape, fan_in), rng, (2,), 9, 1, 0.0
    )
    assert w.dtype == np.float32
    assert (w == 9).all()


def test_weights_names_what_is_wrong(rng):
    with pytest.raises(ValueError, match=r"init: expected one of .*he; got 'hee'"):
        initializers.weights("hee", rng, (2,), 1, 1, 0.01)
    with pytest.raises(ValueError, match=r"init: expected shape \(2,\), got \(3,\)"):
        initializers.weights(lambda *_: np.zeros(3), rng, (2,), 1, 1, 0.01)
