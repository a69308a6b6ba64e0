"""Nets of precision "bf16", which store activations and their gradients as bfloat16."""

from __future__ import annotations

from typing import ClassVar

import check
import mixed_nets
import nets
import numpy as np
import pytest
from two_devices import two_of

from convnet import models
from convnet.common.dtypes import stored_type
from convnet.layers.layer import Layer
from convnet.nn.memory import device_memory
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD

BFLOAT16 = stored_type("bfloat16")
KINDS = {
    "chain": (nets.chain, nets.IN_SHAPE),
    "branches": (nets.branches, nets.IN_SHAPE),
    "mixed": (mixed_nets.mixed, (7, 6, 2)),
}


def batch(in_shape, count=6):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((count, *in_shape)).astype(np.float32)
    return x, rng.integers(0, 5, count)


@pytest.fixture
def device(backend) -> str:
    return backend.name


def make(kind: str, device: str, precision="bf16", **options) -> Net:
    nodes, in_shape = KINDS[kind]
    return Net(nodes(), in_shape, device, seed=3, precision=precision, **options)


def train(net: Net, steps: int = 3) -> list[float]:
    sgd = SGD(net.params, 0.02)
    return [net.train_step(*batch(net.in_shape), sgd) for _ in range(steps)]


def same_state(one: Net, other: Net) -> None:
    states = one.state(), other.state()
    for name, values in states[0].items():
        assert values.dtype == np.float32
        check.same_bits(values, states[1][name])


@pytest.mark.parametrize("kind", KINDS)
def test_programs_have_the_bits_of_the_layers_one_by_one(device, kind):
    programs, layers = make(kind, device), make(kind, device, trace=False)
    assert train(programs) == train(layers)
    same_state(programs, layers)
    x, _ = batch(programs.in_shape)
    check.same_bits(programs.predict(x), layers.predict(x))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_as_in_float32(device, kind):
    """The losses of the first steps, within some roundings of activations."""
    half, full = train(make(kind, device)), train(make(kind, device, "fp32"))
    np.testing.assert_allclose(half, full, rtol=0.03)
    assert half != full


def test_what_it_stores(device):
    net = make("chain", device)
    assert net.stored == BFLOAT16
    table = net.program_table(4)
    convolution = next(line for line in table.splitlines() if " conv_fprop " in line)
    assert "bfloat16" in convolution
    update = next(line for line in table.splitlines() if "sgd_update" in line)
    assert "float32" in update
    assert "bfloat16" not in update


def test_the_block_of_the_papers_net_is_half_as_large():
    blocks = [
        device_memory(models.alexnet(device="cpu", sizes_only=True, precision=each), 128)[0]
        for each in ("fp32", "bf16")
    ]
    assert blocks[1].activations <= 0.55 * blocks[0].activations
    assert blocks[1].parameters == blocks[0].parameters


def test_two_devices(device):
    pair = two_of(device)
    one, two = make("chain", device), make("chain", pair)
    np.testing.assert_allclose(train(one), train(two), rtol=0.01)
    again = make("chain", pair)
    train(again)
    same_state(two, again)


def test_a_resumed_net_goes_on_to_the_bit(device):
    whole, first, second = (make("chain", device) for _ in range(3))
    losses = train(whole, 4)
    train(first, 2)
    second.load_state(first.state())
    second.step = first.step
    assert train(second, 2) == losses[2:]
    same_state(whole, second)


def test_evaluation_and_prediction_return_float32(device):
    net = make("chain", device)
    train(net)
    x, labels = batch(net.in_shape)
    full = make("chain", device, "fp32")
    full.load_state(net.state())
    probs = net.predict(x)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)  # not rounded once more
    np.testing.assert_allclose(probs, full.predict(x), atol=0.02)
    check.same_bits(net.inference(4)(x), probs)
    np.testing.assert_allclose(net.evaluate(x, labels)[0], full.evaluate(x, labels)[0], atol=0.05)


def test_gradients_at_the_input(device):
    half, full = make("branches", device), make("branches", device, "fp32")
    x, labels = batch(half.in_shape)
    found, expected = (net.input_gradient(x, labels) for net in (half, full))
    assert found.dtype == np.float32
    assert check.relative_error(found, expected) < 0.1  # some sit on the other side of a kink


def test_x_may_be_of_either_type(device):
    x, labels = batch(nets.IN_SHAPE)
    half = x.astype(BFLOAT16)
    one, other = make("chain", device), make("chain", device)
    for net, given in ((one, half), (other, half.astype(np.float32))):
        net.train_step(given, labels, SGD(net.params, 0.02))
    same_state(one, other)
    with pytest.raises(ValueError, match=r"x: expected float32 of shape .*, got bfloat16"):
        make("chain", device, "fp32").predict(half)
    with pytest.raises(ValueError, match=r"x: expected float32 or bfloat16 of shape .*got float64"):
        one.predict(x.astype(np.float64))


@pytest.mark.parametrize("trace", [True, False])
def test_layers_from_outside_work_in_float32(device, trace):
    class Doubled(Layer):
        seen: ClassVar[set] = set()

        def fprop(self, x, train):
            self.seen.add(x.dtype)
            return 2 * x, None

        def bprop(self, saved, dy):
            self.seen.add(dy.dtype)
            return 2 * dy, []

    nodes = [*nets.chain()[:2], Node("own", Doubled()), *nets.chain()[2:]]
    net = Net(nodes, nets.IN_SHAPE, device, precision="bf16", trace=trace)
    train(net, 1)
    assert Doubled.seen == {np.dtype(np.float32)}
