"""A net over two devices is the same net: outputs, gradients, steps, states."""

import numpy as np
import pytest
from divided import assert_equal, pair, tiny_alexnet
from nets import CLASSES, GRAPHS, chain, conv, data, dense, train
from two_devices import (
    GRADIENT_BOUND,
    TRAINING_BOUND,
    assert_close,
    flattened,
    parameters,
    two_of,
    uneven,
)

import convnet
import convnet.backend
from convnet import ops
from convnet.layers import (
    Conv,
    Dropout,
    Flatten,
    MaxPool,
    SoftmaxCrossEntropy,
    Sum,
)
from convnet.layers.loss import Loss
from convnet.nn.net import Net, Node


def on_the_input():
    """Layers without parameters right on the input, which is on the first device."""
    return [
        Node("drop0", Dropout(0.2)),
        Node("pool0", MaxPool(3, 2)),
        Node("conv1", conv(6, groups=2)),
        Node("both", Sum(), ("conv1", "conv1")),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


ALL = [*GRAPHS, uneven, flattened, on_the_input]


every_graph = pytest.mark.parametrize("graph", ALL)


def gradients(net):
    found = {param.name: np.array(net.backend.to_host(param.grad)) for param in net.params}
    if net.partition is None:
        return found
    whole = {}
    for name, split in net.partition.splits.items():
        whole[name] = np.full(split.shape, np.nan, np.float32)
        for param, first, last in split.parts:
            whole[name][split.index(first, last)] = found[param.name]
    return whole


@every_graph
def test_forward_agrees(graph, backend, rng):
    one, both = pair(graph, backend)
    assert_equal(both.state(), one.state())
    x, labels = data(rng)
    for node in one.nodes:
        found, expected = both.forward(x, node.name), one.forward(x, node.name)
        if backend.name == "vgpu":
            np.testing.assert_array_equal(found, expected, err_msg=node.name)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=node.name)
    assert both.training_loss(x, labels) == pytest.approx(one.training_loss(x, labels), rel=1e-6)


@every_graph
@pytest.mark.parametrize("trace", [True, False])
def test_gradients_agree(graph, backend, rng, trace):
    one, both = pair(graph, backend, trace=trace)
    x, labels = data(rng)
    for step in (0, 1):  # the second one finds buffers and slots used
        one.step = both.step = step
        assert both.gradients(x, labels) == pytest.approx(one.gradients(x, labels), rel=1e-6)
        assert_close(gradients(both), gradients(one), GRADIENT_BOUND)


@every_graph
def test_fifty_steps_agree(graph, rng):
    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    losses = train(one, x, labels, 50, lr=0.02)
    assert train(both, x, labels, 50, lr=0.02) == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert_close(parameters(both), parameters(one), TRAINING_BOUND)


def test_alexnet_in_small(backend, rng):
    one, both = tiny_alexnet(backend), tiny_alexnet(two_of(backend.name))
    count = 12 if backend.name == "cpu" else 2
    x = rng.standard_normal((count, *one.in_shape)).astype(np.float32)
    labels = rng.integers(0, 7, count)
    np.testing.assert_allclose(both.predict(x), one.predict(x), rtol=1e-5)
    if backend.name == "vgpu":
        np.testing.assert_array_equal(both.predict(x), one.predict(x))
    one.gradients(x, labels)
    both.gradients(x, labels)
    assert_close(gradients(both), gradients(one), GRADIENT_BOUND)
    steps = 50 if backend.name == "cpu" else 2
    train(one, x, labels, steps, lr=0.002)
    train(both, x, labels, steps, lr=0.002)
    assert_close(parameters(both), parameters(one), TRAINING_BOUND)


@every_graph
def test_two_devices_repeat_to_the_bit(graph, backend, rng):
    _, first = pair(graph, backend)
    _, second = pair(graph, backend)
    x, labels = data(rng)
    assert train(first, x, labels, 4) == train(second, x, labels, 4)
    assert_equal(first.state(), second.state())


def test_other_batches_in_between(backend, rng):
    one, both = pair(uneven, backend)
    x, labels = data(rng)
    for count in (6, 2, 5):
        one.gradients(x[:count], labels[:count])
        both.gradients(x[:count], labels[:count])
        assert_close(gradients(both), gradients(one), GRADIENT_BOUND)
    np.testing.assert_allclose(both.evaluate(x, labels, 4)[0], one.evaluate(x, labels)[0], 1e-5)


def test_dropout_masks_are_those_of_one_device(backend):
    nodes = lambda: [Node("c", Conv(7, 1)), Node("drop", Dropout(0.5)), Node("flat", Flatten()),  # noqa: E731
                     Node("fc", dense(3)), Node("softmax", SoftmaxCrossEntropy())]  # fmt: skip
    x = np.ones((5, 4, 3, 2), np.float32)
    whole = {}
    for device in (backend, two_of(backend.name)):
        net = Net(nodes(), (4, 3, 2), device, seed=9)
        net.load_state({**net.state(), "c.b": np.ones(7, np.float32)})
        net.step = 2
        net.write_state()
        names = ["drop"] if net.partition is None else net.partition.ends("drop")
        with convnet.backend.use(net.backend):
            values = net._eager.passes(net.step_nodes).forward(net.backend.asarray(x), True).values
        parts = [net.backend.to_host(values[name]) for name in names]
        whole[device] = np.concatenate([np.array(part) for part in parts], -1)
    first, second = whole.values()
    assert 0.3 < (first == 0).mean() < 0.7
    np.testing.assert_array_equal(first == 0, second == 0)


class Score(Loss):
    """A loss of a user's own, that knows nothing of blocks."""

    def setup(self, in_shape, rng):
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x, train):
        return x, None

    def loss(self, x, labels, scale, gradient):
        loss, dx, rank = ops.softmax_xent(x, labels, scale=scale)
        return loss, rank, dx


class Reverse(convnet.layers.layer.Layer):
    """Another of a user's own: the channels in the other order."""

    def setup(self, in_shape, rng):
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x, train):
        return np.ascontiguousarray(x[..., ::-1]), None

    def bprop(self, saved, dy):
        return np.ascontiguousarray(dy[..., ::-1]), []


def test_layers_that_declare_nothing(rng):
    def graph():
        return [Node("c", conv(6)), Node("turn", Reverse()), Node("fc", dense(CLASSES)),
                Node("score", Score())]  # fmt: skip

    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    np.testing.assert_array_equal(both.forward(x, "turn"), one.forward(x, "turn"))
    assert both.gradients(x, labels) == pytest.approx(one.gradients(x, labels), rel=1e-6)
    assert_close(gradients(both), gradients(one), GRADIENT_BOUND)


@every_graph
def test_states_move_between_one_and_two_devices(graph, rng):
    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    train(both, x, labels, 2)
    one.load_state(both.state())
    assert_equal(one.state(), both.state())
    one.step = both.step
    np.testing.assert_allclose(train(one, x, labels, 2), train(both, x, labels, 2), rtol=1e-5)
    _, fresh = pair(graph, convnet.backend.get("cpu"), seed=8)
    fresh.load_state(one.state())
    assert_equal(fresh.state(), one.state())


def test_a_state_that_does_not_fit(rng):
    _, both = pair(chain, convnet.backend.get("cpu"))
    before = both.state()
    wrong = {**before, "conv1.w": before["conv1.w"][:4], "more": before["fc6.b"]}
    del wrong["fc5.b"]
    with pytest.raises(ValueError, match=r"missing fc5.b; conv1.w: expected shape \(6,.*more"):
        both.load_state(wrong)
    assert_equal(both.state(), before)
    wrong["conv2.b"] = wrong["conv2.b"] + 1
    problems = both.load_state(wrong, strict=False)
    assert len(problems) == 3
    np.testing.assert_array_equal(both.state()["conv2.b"], before["conv2.b"] + 1)
    np.testing.assert_array_equal(both.state()["conv1.w"], before["conv1.w"])
