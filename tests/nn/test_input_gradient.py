"""`Net.input_gradient`: against differences of the loss, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from convnet.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy, Tanh
from convnet.nn.net import Net, Node


def net(mode: str = "paper", device: str = "auto") -> Net:
    """Two readers of one node, dropout, and layers whose gradients are not constant."""
    return Net(
        [
            Node("conv1", Conv(6, 3, pad=1, init="he", bias_init=0.1)),
            Node("relu1", ReLU()),
            Node("norm1", LRN(alpha=1.0)),
            Node("pool1", MaxPool(3, 2)),
            Node("conv2", Conv(4, 3, init="he", relu=True), "pool1"),
            Node("tanh", Tanh()),
            Node("drop", Dropout(0.3, mode)),
            Node("fc", Dense(5, init="xavier")),
            Node("out", SoftmaxCrossEntropy(2.0)),
        ],
        (9, 8, 2),
        device,
        seed=3,
    )


@pytest.mark.parametrize("mode", ["paper", "inverted"])
def test_it_is_the_slope_of_the_loss(backend, rng, mode):
    one = net(mode)
    x = rng.standard_normal((3, 9, 8, 2), dtype=np.float32)
    labels = np.array([0, 4, 2])
    way = rng.standard_normal(x.shape, dtype=np.float32)
    dx = one.input_gradient(x, labels, batch=2)
    step = np.float32(2e-3)
    above, below = (one.evaluate(x + s * step * way, labels)[0].astype(float) for s in (1, -1))
    np.testing.assert_allclose((dx * way).sum((1, 2, 3)), (above - below) / (2 * step), rtol=0.03)
    np.testing.assert_array_equal(one.input_gradient(x, labels, batch=2), dx)  # nothing is drawn


def test_of_a_node_it_is_the_transpose(backend, rng):
    one = net()
    x = rng.standard_normal((2, 9, 8, 2), dtype=np.float32)
    dy = rng.standard_normal((2, 5), dtype=np.float32)
    way = rng.standard_normal(x.shape, dtype=np.float32)
    dx = one.input_gradient(x, node="fc", dy=dy)
    step = np.float32(2e-3)
    above, below = (one.forward(x + s * step * way, "fc").astype(float) for s in (1, -1))
    slope = (dy * (above - below)).sum(axis=1) / (2 * step)
    np.testing.assert_allclose((dx * way).sum((1, 2, 3)), slope, rtol=0.03)


def test_what_it_refuses():
    one, x = net(), np.zeros((2, 9, 8, 2), np.float32)
    dy = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="expected labels, or node and dy"):
        one.input_gradient(x)
    with pytest.raises(ValueError, match="expected labels, or node and dy"):
        one.input_gradient(x, [0, 1], node="fc", dy=dy)
    with pytest.raises(ValueError, match="unknown node 'fd'"):
        one.input_gradient(x, node="fd", dy=dy)
    with pytest.raises(ValueError, match="expected one that is no loss, got 'out'"):
        one.input_gradient(x, node="out", dy=dy)
    with pytest.raises(ValueError, match=r"dy: expected float32 of shape \(2, 5\), got \(2, 4\)"):
        one.input_gradient(x, node="fc", dy=dy[:, :4])


def test_a_net_over_two_devices_has_the_same_gradient(rng):
    one = net()
    two = net(device="cpu:0,cpu:1")
    two.load_state(one.state())
    x, labels = rng.standard_normal((2, *one.in_shape), dtype=np.float32), np.array([0, 4])
    expected = one.input_gradient(x, labels)
    np.testing.assert_array_equal(two.input_gradient(x, labels), expected)
    assert two.partition is not None
    assert np.abs(expected).max() > 0
