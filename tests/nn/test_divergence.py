"""A NaN that enters anywhere ends training at that step, names its place, and reaches no weight."""

from __future__ import annotations

import numpy as np
import pytest
from nets import (
    GRAPHS,
    IN_SHAPE,
    chain,
    conv,
    data,
    dense,
    every_graph,
    make,
    pool_first,
    shared,
    two_losses,
)

import convnet
from convnet.layers import ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD
from convnet.training.data_parallel import Parallel

MODES = ["program", "layers"]
every_mode = pytest.mark.parametrize("mode", MODES)


def begun(graph, backend="cpu", mode="program", steps=3, **options):
    """A net that has made some steps, its optimiser, and the batch."""
    net = make(graph, backend, seed=1, trace=mode == "program", **options)
    sgd = SGD(net.params, lr=0.01)
    batch = data(np.random.default_rng(5))
    for _ in range(steps):
        assert np.isfinite(net.train_step(*batch, sgd))
    return net, sgd, batch


def diverges(net, sgd, batch):
    """The error of a step that must not succeed, and what may not have changed."""
    with pytest.raises(convnet.DivergedError) as caught:
        net.train_step(*batch, sgd)
    return caught.value


def all_finite(net):
    return all(np.isfinite(array).all() for array in net.state().values())


def spoiled(batch, place=(2, 3, 4, 1), value=np.nan):
    x, labels = batch
    x = x.copy()
    x[place] = value
    return x, labels


# ---- in the data --------------------------------------------------------------------------------


@every_mode
@every_graph
def test_in_the_data(backend, graph, mode):
    net, sgd, batch = begun(graph, backend, mode)
    error = diverges(net, sgd, spoiled(batch))
    assert error.node == "input"
    assert "the data hold NaN or infinity" in str(error)
    assert error.parameter in {param.name for param in net.params}
    assert all_finite(net)
    assert net.diverged is error


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_in_the_data(backend, value):
    net, sgd, batch = begun(chain, backend)
    assert diverges(net, sgd, spoiled(batch, value=value)).node == "input"
    assert all_finite(net)


@every_graph
def test_it_shows_in_what_is_returned(backend, graph):
    """Other methods than train_step raise nothing: the NaN is in what they return."""
    net, _, batch = begun(graph, backend)
    x, labels = spoiled(batch)
    assert np.isnan(net.predict(x)[2]).all()
    assert np.isfinite(np.delete(net.predict(x), 2, axis=0)).all()
    losses, ranks = net.evaluate(x, labels)
    assert np.isnan(losses).tolist() == [case == 2 for case in range(len(x))]
    assert ranks[2] == net.classes - 1
    assert np.isnan(net.training_loss(x, labels))
    assert np.isnan(net.gradients(x, labels))
    assert np.isnan(net.backend.to_host(net.params[0].grad)).any()


# ---- in a parameter -----------------------------------------------------------------------------


def parameters(graph):
    return [param.name for param in make(graph).params]


@pytest.mark.parametrize(
    ("graph", "name"), [(graph, name) for graph in GRAPHS for name in parameters(graph)]
)
def test_in_a_parameter(graph, name):
    """Of every layer, in its last element: it is named, and what predict returns is not finite."""
    net, sgd, batch = begun(graph)
    by_name = {param.name: param for param in net.params}
    by_name[name].data.reshape(-1)[-1] = np.nan
    early = name.startswith("early")  # the branch of another loss
    assert early or np.isnan(net.predict(batch[0])).any()
    error = diverges(net, sgd, batch)
    assert error.node == name.partition(".")[0]
    assert f"{name} holds NaN or infinity" in str(error)
    spread = [key for key, array in net.state().items() if not np.isfinite(array).all()]
    assert spread == [name]


def test_in_a_frozen_parameter():
    net, sgd, batch = begun(chain)
    by_name = {param.name: param for param in net.params}
    for name in ("conv1.w", "conv1.b", "conv2.w", "conv2.b"):
        by_name[name].lr_mult = 0.0
    by_name["conv1.w"].data[0] = np.nan
    error = diverges(net, sgd, batch)
    assert error.node == "conv1"
    assert error.parameter == "fc6.b"


# ---- from the arithmetic ------------------------------------------------------------------------


def test_the_layer_where_it_overflows_is_named(backend):
    net, sgd, batch = begun(chain, backend)
    net.params[2].data[...] = 3e38  # conv2.w
    error = diverges(net, sgd, batch)
    assert error.node == "conv2"
    assert "first in node conv2, whose output is not finite" in str(error)
    assert all_finite(net)


def test_a_rate_that_is_too_large():
    net, sgd, batch = begun(chain)
    sgd.lr = 3e38

    def steps():
        for _ in range(9):
            net.train_step(*batch, sgd)

    with pytest.raises(convnet.DivergedError, match=r"the update of .* is not finite"):
        steps()
    assert all_finite(net)


def test_the_last_in_the_net_is_the_first_in_the_backward_pass(backend):
    """A NaN between two layers comes up in the one below it first."""

    class Spoils(ReLU):
        def bprop(self, saved, dy):
            return np.full_like(dy, np.nan), []

    def graph():
        return [
            Node("one", dense(6)),
            Node("two", dense(6)),
            Node("spoils", Spoils()),
            Node("three", dense(5)),
            Node("softmax", SoftmaxCrossEntropy()),
        ]

    net = Net(graph(), IN_SHAPE, device="cpu", trace=False)
    error = diverges(net, SGD(net.params), data(np.random.default_rng(0)))
    assert error.parameter == "two.b"
    assert error.node == "spoils"
    assert "first in node spoils, whose gradients are not finite" in str(error)


# ---- afterwards ---------------------------------------------------------------------------------


@every_mode
def test_nothing_more_is_trained_until_weights_are_loaded(backend, mode):
    net, sgd, batch = begun(chain, backend, mode)
    kept = net.state()
    done = net.step
    diverges(net, sgd, spoiled(batch))
    assert net.step == done
    after = net.state()
    error = diverges(net, sgd, batch)
    assert "the net has diverged" in str(error)
    assert error.node == "input"
    assert net.step == done
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, after[name])
    net.predict(batch[0])
    net.load_state({"fc6.b": kept["fc6.b"]}, strict=False)
    diverges(net, sgd, batch)
    net.load_state(kept)
    net.step = done
    other, other_sgd, _ = begun(chain, backend, mode)
    assert net.train_step(*batch, sgd) == other.train_step(*batch, other_sgd)
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


def test_steps_that_nobody_looked_at_change_nothing():
    """What a loop relies on that waits for a GPU now and then: the first is still noted."""
    net, sgd, batch = begun(chain)
    net.start_step(*spoiled(batch), sgd)
    after, step = net.state(), net.step
    for _ in range(3):
        net.start_step(*batch, sgd)
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, after[name])
    with pytest.raises(convnet.DivergedError, match=f"in step {step} is not finite;"):
        net.finish_steps()
    assert net.diverged is not None


# ---- other kinds of steps -----------------------------------------------------------------------


@pytest.mark.parametrize("graph", [chain, pool_first, shared, two_losses])
def test_on_two_devices(graph):
    net = Net(graph(), IN_SHAPE, seed=3, devices=["cpu:0", "cpu:1"])
    sgd = SGD(net.params)
    batch = data(np.random.default_rng(1))
    for _ in range(3):
        net.train_step(*batch, sgd)
    kept = net.state()
    error = diverges(net, sgd, spoiled(batch))
    assert error.node == "input"
    assert all_finite(net)
    net.load_state(kept)
    assert np.isfinite(net.train_step(*batch, sgd))
    state = net.state()
    name = next(iter(state))
    state[name].reshape(-1)[0] = np.nan
    net.load_state(state)
    error = diverges(net, sgd, batch)
    assert error.node == name.partition(".")[0]
    assert f"{name}@0 holds NaN" in str(error)


def test_rates_of_its_own(backend):
    """Parameters that have a momentum of their own."""
    net, sgd, batch = begun(chain, backend)
    for param in net.params:
        param.rates.momentum = 0.5
    assert diverges(net, sgd, spoiled(batch)).node == "input"
    assert all_finite(net)


class Own(SGD):
    """Another update rule, which counts how often it is asked."""

    asked = 0

    def update(self, state=None):
        self.asked += 1
        for param in self.params:
            param.data[...] -= 0.1 * param.grad


def test_an_update_rule_of_ones_own():
    net, _, batch = begun(chain)
    sgd = Own(net.params)
    before = net.params[0].data.copy()
    for _ in range(4):
        net.train_step(*batch, sgd)
        assert not np.array_equal(net.params[0].data, before)
        before = net.params[0].data.copy()
    assert sgd.asked == 4
    assert diverges(net, sgd, spoiled(batch)).node == "input"
    assert sgd.asked == 4
    assert all_finite(net)


def test_an_optimiser_alone(backend):
    net, sgd, batch = begun(chain, backend)
    net.gradients(*spoiled(batch))
    for _ in range(2):
        with pytest.raises(convnet.DivergedError, match=r"the update of fc6\.b is not finite"):
            sgd.update()
    assert all_finite(net)
    net.gradients(*batch)
    sgd.update()


class Two:
    """Stands for two ranks: what this one says, and the other."""

    rank, size = 0, 2

    def __init__(self, other):
        self.other = other

    def share(self, count):
        return 0, count

    def start_sum(self, flat):
        if self.other is not None:
            flat[-1] = np.nan
        return lambda: True

    def wait(self, done, what):
        assert done()

    def each(self, value):
        return [value, self.other if not isinstance(value, tuple) else value]


def ranks_step(parallel, net, batch):
    parallel.train_step(*batch, SGD(net.params), len(batch[0]))
    list(parallel.results())


def test_another_rank_names_the_place():
    from convnet.nn.divergence import Origin

    net = make(chain)
    parallel = Parallel(net, Two(Origin("input", "the data hold NaN or infinity")))
    batch = data(np.random.default_rng(1))
    with pytest.raises(convnet.DivergedError) as caught:
        ranks_step(parallel, net, batch)
    assert caught.value.node == "input"
    assert all_finite(net)
    with pytest.raises(convnet.DivergedError, match="the net has diverged"):
        ranks_step(parallel, net, batch)


# ---- looking -------------------------------------------------------------------------------------


def test_check_finite_of_a_batch(backend):
    net, _, batch = begun(chain, backend)
    before = net.state()
    assert net.check_finite(*batch) is None
    assert net.check_finite(*spoiled(batch)) == "input"
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="labels"):
        net.check_finite(batch[0])


def test_conv_kinds_are_covered():
    """Strided, grouped, with a ReLU inside, by Winograd and directly: NaN comes out."""
    for filters, size, stride in [(8, 3, 1), (6, 5, 2), (5, 1, 1)]:
        net = make(lambda f=filters, s=size, t=stride: [
            Node("c", conv(f, s, stride=t, relu=True)), Node("fc", dense(5)),
            Node("softmax", SoftmaxCrossEntropy())])  # fmt: skip
        x = data(np.random.default_rng(0))[0]
        net.params[1].data[-1] = np.nan
        assert np.isnan(net.predict(x)).all()
