"""Nets over two devices, and how near they must be to one device's."""

import numpy as np
import pytest
from nets import CLASSES, conv, dense

import convnet.backend
from convnet.layers import (
    LRN,
    AvgPool,
    Concat,
    Dropout,
    Flatten,
    Local,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
    Sum,
    Tanh,
)
from convnet.nn.net import Node
from convnet.optim.sgd import SGD

# Largest difference between one device and two, relative to the largest element of the tensor:
# gradients are sums in another order, of at most some thousand terms (measured: 8e-7); parameters
# after 50 steps (measured: 5e-7, which is also what one changed bit of one weight comes to on one
# device). Where a difference decides which element of a pool is the largest, it grows a
# thousandfold and no bound holds; the rates and batches here keep clear of that.
GRADIENT_BOUND, TRAINING_BOUND = 4e-6, 1e-5


TWO = "cpu:0,cpu:1"


def two_of(kind):
    """The names of two devices of a kind; the test is skipped where there is one GPU only."""
    if kind == "cuda" and convnet.backend.get("cuda").module.device_count() < 2:
        pytest.skip("needs two GPUs")
    return f"{kind}:0,{kind}:1"


def flattened():
    """Dropout, a norm, Sum and Concat on flattened activations, of which a device holds pieces."""
    return [
        Node("conv1", conv(4)),
        Node("relu1", ReLU()),
        Node("pool1", AvgPool(3, 2)),
        Node("flat", Flatten()),
        Node("drop", Dropout(0.4)),
        Node("fc", dense(4 * 3 * 4), "input"),
        Node("sum", Sum(), ("drop", "fc")),
        Node("drop2", Dropout(0.2, "inverted")),
        Node("norm", LRN(n=3, alpha=0.5), "flat"),
        Node("join", Concat(), ("norm", "drop2", "flat")),
        Node("fc2", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def parameters(net):
    return {name: array for name, array in net.state().items() if ":" not in name}


def assert_close(found, expected, bound):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.isfinite(found[name]).all(), name
        largest = np.abs(array).max()
        assert np.abs(found[name] - array).max() <= bound * largest, name


def transfers(net, batch):
    """Of the calls of a step, those between devices: what travels, and the bytes."""
    traced = net.programs.trace_training((batch, *net.in_shape), SGD(net.params))
    rows = [c for c in traced.program.calls if c.op.name == "peer_copy"]
    return [
        (c.nodes[0], 4 * c["cols"] * c["src"].shape[0])
        for c in rows
        if c["src_device"] != c["dst_device"]
    ]


def uneven():
    """Nothing here can be halved: odd channels, three groups, one filter, a norm over all."""
    return [
        Node("conv1", conv(5)),
        Node("relu1", ReLU()),
        Node("lrn1", LRN(n=3, alpha=0.6)),
        Node("conv2", conv(9)),
        Node("pool2", MaxPool(3, 2)),
        Node("conv3", conv(6, groups=3)),
        Node("relu3", ReLU()),
        Node("lrn3", LRN(n=3, alpha=0.6, groups=3)),
        Node("local4", Local(9, 2, groups=3, init="he")),
        Node("drop4", Dropout(0.3)),
        Node("one", conv(1), "local4"),
        Node("join", Concat(), ("one", "local4", "drop4")),
        Node("tanh", Tanh()),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
