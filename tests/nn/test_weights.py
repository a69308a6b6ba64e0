"""Parameters and velocities, saved and loaded."""

import numpy as np
import pytest
from nets import chain, data, make, shared, train


def test_state_round_trip_goes_on_to_the_bit(backend, rng):
    x, labels = data(rng)
    one, two = make(chain, backend, seed=1), make(chain, backend, seed=1)
    train(one, x, labels, steps=2)
    state, step = one.state(), one.step
    kept = {name: array.copy() for name, array in state.items()}
    expected = train(one, x, labels, steps=2)
    for name, array in kept.items():
        np.testing.assert_array_equal(state[name], array)  # a copy, not what training changes
    two.load_state(state)
    two.step = step
    assert train(two, x, labels, steps=2) == expected
    for name, array in one.state().items():
        np.testing.assert_array_equal(two.state()[name], array)


def test_state_names(backend):
    state = make(shared, backend).state()
    names = ["c1.w", "c1.w:velocity", "c1.b", "c1.b:velocity", "fc.w", "fc.w:velocity", "fc.b"]
    assert list(state) == [*names, "fc.b:velocity"]
    assert not state["fc.w:velocity"].any()
    assert state["fc.w"].any()


def test_state_without_velocities_starts_them_at_zero(backend, rng):
    net = make(chain, backend)
    train(net, *data(rng), steps=1)
    weights = {name: array for name, array in net.state().items() if "velocity" not in name}
    net.load_state(weights)
    state = net.state()
    assert not any(state[name + ":velocity"].any() for name in weights)


def test_load_state_lists_what_does_not_fit(backend):
    net = make(chain, backend)
    before = net.state()
    state = {name: array + 1 for name, array in before.items()}
    del state["conv2.w"]
    state["conv9.w"] = state["conv1.w"]
    state["fc5.b"] = np.zeros(3, np.float32)
    state["fc6.w"] = state["fc6.w"].astype(np.float64)
    with pytest.raises(ValueError, match="the state is not of this net") as error:
        net.load_state(state)
    for part in (
        "missing conv2.w",
        "unexpected conv9.w",
        "fc5.b: expected shape (9,), got (3,)",
        "fc6.w: expected float32, got float64",
    ):
        assert part in str(error.value)
    for name, array in before.items():
        np.testing.assert_array_equal(net.state()[name], array)
    problems = net.load_state(state, strict=False)
    assert len(problems) == 4
    after = net.state()
    np.testing.assert_array_equal(after["conv1.w"], before["conv1.w"] + 1)
    np.testing.assert_array_equal(after["fc5.b"], before["fc5.b"])
    np.testing.assert_array_equal(after["conv2.w"], before["conv2.w"])
