"""The state of a step, as the devices have it."""

import numpy as np
from nets import chain, data, make

import convnet.backend
from convnet.ops.step_state import StepState
from convnet.optim.sgd import SGD


def test_words(backend):
    state = StepState([backend])
    state.write(2**40 + 5, 7, (0.5, 0.25, 0.125))
    words = np.array(backend.to_host(state.on(backend)))
    assert words.tolist()[:3] == [5, 256, 7]
    assert words[3:6].view(np.float32).tolist() == [0.5, 0.25, 0.125]
    assert words[6:].tolist() == [0] * 6


def test_rates_stay_where_only_the_step_is_given(backend):
    state = StepState([backend])
    state.write(1, 1, (0.5, 0.25, 0.125))
    state.write(1, 2)
    words = np.array(backend.to_host(state.on(backend)))
    assert words[2] == 2
    assert words[3:6].view(np.float32).tolist() == [0.5, 0.25, 0.125]


def test_the_host_does_not_take_back_an_abort(backend):
    state = StepState([backend])
    state.write(1, 1)
    assert not state.aborted
    backend.put(state.on(backend)[6:7], np.array([9], np.uint32))
    state.write(1, 2)
    assert state.aborted


def test_every_device_has_a_copy():
    devices = convnet.backend.get_all("cpu:0,cpu:1")
    state = StepState(devices)
    state.write(3, 4)
    for device in devices:
        assert state.on(device).owner is device
        assert np.array(state.on(device))[:3].tolist() == [3, 0, 4]


def test_a_net_trains_by_the_state(backend, rng):
    """Rates that change from step to step, and masks that do: as the update rule on the host."""
    x, labels = data(rng)
    net, other = (make(chain, backend.name, seed=3) for _ in range(2))
    sgd = SGD(net.params, lr=0.05)
    plain = SGD(other.params, lr=0.05)
    for lr in (0.05, 0.05, 0.01, 0.002):
        sgd.lr = plain.lr = lr
        net.train_step(x, labels, sgd)
        other.gradients(x, labels)
        with convnet.backend.use(other.backend):
            plain.update()
        other.step += 1
    for name, array in net.state().items():
        np.testing.assert_array_equal(other.state()[name], array)


def test_the_host_clears_what_was_noted_and_nothing_else(backend):
    state = StepState([backend])
    state.write(1, 4, (0.5, 0.25, 0.125))
    before = np.array(backend.to_host(state.on(backend)))
    state.note_diverged(backend, 9)
    assert state.diverged == 9
    assert np.array(backend.to_host(state.on(backend)))[7:9].tolist() == [9, 5]
    state.clear_diverged()
    assert state.diverged == 0
    np.testing.assert_array_equal(backend.to_host(state.on(backend)), before)
