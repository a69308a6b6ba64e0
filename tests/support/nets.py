"""Small nets that several test files run on, and data for them."""

import numpy as np
import pytest

from convnet.layers import (
    LRN,
    Abs,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Local,
    MaxPool,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    Softplus,
    Sum,
    Tanh,
)
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD

IN_SHAPE, CLASSES, BATCH = (8, 7, 2), 5, 6


def conv(filters, size=3, **options):
    return Conv(filters, size, pad=size // 2, init="he", **options)


def dense(units, **options):
    return Dense(units, init="he", **options)


def chain():
    """The paper's kind of net: every fusion there is, one after the other."""
    return [
        Node("conv1", conv(6)),
        Node("relu1", ReLU()),
        Node("lrn1", LRN(alpha=0.5, groups=2)),
        Node("pool1", MaxPool(3, 2)),
        Node("conv2", conv(8, groups=2)),
        Node("relu2", ReLU()),
        Node("conv3", conv(4)),
        Node("tanh3", Tanh(1.7, 0.6)),
        Node("fc4", dense(12)),
        Node("relu4", ReLU()),
        Node("drop4", Dropout(0.4)),
        Node("fc5", dense(9)),
        Node("relu5", ReLU()),
        Node("drop5", Dropout(0.3, "inverted")),
        Node("fc6", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def branches():
    """Fan-out of the input, a norm and a convolution; Sum and Concat; a ReLU after a Sum."""
    return [
        Node("a", conv(4)),
        Node("b", conv(4), "input"),
        Node("sum", Sum(), ("a", "b")),
        Node("relu", ReLU()),
        Node("norm", LRN(alpha=0.4)),
        Node("right", Tanh()),
        Node("left", conv(3), "norm"),
        Node("left_relu", ReLU()),
        Node("join", Concat(), ("left_relu", "norm", "right", "left")),
        Node("again", Sum(), ("join", "join")),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def residual():
    """A shortcut around two convolutions: dy of the Sum goes two ways and may not be written to."""
    return [
        Node("stem", conv(4)),
        Node("stem_relu", ReLU()),
        Node("c1", conv(4)),
        Node("r1", ReLU()),
        Node("c2", conv(4)),
        Node("t2", Tanh()),
        Node("flat", Flatten(), "stem_relu"),
        Node("flat2", Flatten(), "t2"),
        Node("sum", Sum(), ("flat", "flat2")),
        Node("r3", ReLU()),
        Node("d3", Dropout(0.2)),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def pool_first():
    """Activations that are no node's epilogue, and a mask that goes up through a Flatten."""
    return [
        Node("lrn0", LRN(alpha=0.3)),
        Node("conv1", conv(4)),
        Node("pool1", AvgPool(3, 2)),
        Node("relu1", ReLU()),
        Node("local2", Local(5, 2, init="he")),
        Node("relu2", ReLU()),
        Node("flat", Flatten()),
        Node("fc3", dense(7, relu=True)),
        Node("logistic3", Sigmoid()),
        Node("abs3", Abs()),
        Node("soft3", Softplus()),
        Node("tanh3", Tanh()),
        Node("drop3", Dropout(0.3)),
        Node("drop3b", Dropout(0.3)),
        Node("fc4", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def shared():
    """One set of weights in three places."""
    return [
        Node("c1", conv(2)),
        Node("r1", ReLU()),
        Node("c2", conv(2), share="c1"),
        Node("r2", ReLU()),
        Node("c3", conv(2), share="c1"),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def two_losses():
    return [
        Node("c1", conv(4, relu=True)),
        Node("early", dense(CLASSES), "c1"),
        Node("early_loss", SoftmaxCrossEntropy(coeff=0.3)),
        Node("c2", conv(4, relu=True), "c1"),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


GRAPHS = [chain, branches, residual, pool_first, shared, two_losses]
every_graph = pytest.mark.parametrize("graph", GRAPHS)


def make(graph, backend="cpu", **options):
    return Net(graph(), IN_SHAPE, device=backend, **options)


def data(rng, count=BATCH):
    x = rng.standard_normal((count, *IN_SHAPE)).astype(np.float32)
    return x, rng.integers(0, CLASSES, count)


def train(net, x, labels, steps=3, lr=0.05):
    sgd = SGD(net.params, lr=lr)
    return [net.train_step(x, labels, sgd) for _ in range(steps)]
