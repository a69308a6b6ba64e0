"""The graph of a net: what is refused, in one line that names it, and the order of nodes."""

import pytest
from nets import CLASSES, IN_SHAPE, chain, data, train

from convnet.layers import Conv, Dense, ReLU, SoftmaxCrossEntropy, Sum
from convnet.nn.net import Net, Node

END = [Node("fc", Dense(CLASSES)), Node("softmax", SoftmaxCrossEntropy())]
twice = Conv(4, 3)


def named(**layers):
    """Nodes of these names, each after the one before it."""
    return [Node(name, layer) for name, layer in layers.items()]


def conv():
    return Conv(4, 3)


WRONG_GRAPHS = [
    ([], "at least one node"),
    ([*named(a=conv()), *named(a=ReLU())], "node 'a': two nodes have this name, number 1 and 2"),
    ([Node("a.b", conv()), *END], r"node 1: expected a name of letters.*got 'a\.b'"),
    ([Node("input", conv()), *END], "got 'input'"),
    ([Node("a", "conv"), *END], "node 'a': expected a Layer, got str"),
    (["a", *END], "node 1: expected a Node, got str"),
    (named(a=twice, b=twice), "node 'b': its layer object is also that of node 'a'"),
    # inputs
    (
        [*named(conv1=conv()), Node("r", ReLU(), "conv"), *END],
        'node .r.: unknown input .conv.; did you mean "conv1"',
    ),
    ([Node("r", ReLU(), "zzz"), *END], r"unknown input 'zzz' \(known: fc, input, r, softmax\)"),
    (named(a=conv(), s=Sum()), "node 's': expected two inputs or more, got a"),
    (
        [*named(a=conv()), Node("r", ReLU(), ("a", "input"))],
        "node 'r': expected one input, got a, input",
    ),
    ([Node("a", ReLU(), ()), *END], "node 'a': expected one input, got none"),
    ([Node("a", ReLU(), "c"), *named(b=ReLU(), c=ReLU())], "cycle: a -> b -> c -> a"),
    ([Node("a", ReLU(), "a"), *END], "cycle: a -> a"),
    # outputs
    (
        [*named(a=conv(), dead=ReLU()), Node("fc", Dense(5), "a"), END[1]],
        "node 'dead': its output is used by no node",
    ),
    (
        [Node("a", conv()), Node("b", conv(), "input")],
        "nodes 'a', 'b': a net without a loss has one output",
    ),
    ([*END, *named(after=ReLU())], "node 'after': input 'softmax' is a loss"),
    # sharing
    ([Node("a", conv(), share="b"), *END], "node 'a': share: unknown node 'b'"),
    (
        [Node("a", conv()), Node("b", conv(), share="a"), *END],
        r"node 'b': share: expected parameters .*3, 3, 4.*got .*3, 3, 2",
    ),
    (
        [Node("a", Dense(4)), Node("b", Dense(4), share="a"), Node("c", Dense(4), share="b"), *END],
        "node 'c': share: node 'b' itself shares the parameters of 'a'",
    ),
    # sizes
    (
        [*named(a=conv(), b=Conv(4, 9)), *END],
        r"node 'b' \(Conv\) cannot take its input 'a' of shape \(6, 5, 4\): .*height of at most 6",
    ),
    (
        [*named(a=conv()), Node("s", Sum(), ("a", "input")), *END],
        r"node 's' \(Sum\) cannot take its input 'a' of shape \(6, 5, 4\) "
        r"and 'input' of shape \(8, 7, 2\): expected inputs of one shape",
    ),
    (
        named(a=conv(), softmax=SoftmaxCrossEntropy()),
        r"node 'softmax' \(SoftmaxCrossEntropy\) cannot take its input 'a' "
        r"of shape \(6, 5, 4\): .*flatten",
    ),
]


@pytest.mark.parametrize(("nodes", "message"), WRONG_GRAPHS)
def test_wrong_graphs_are_named(nodes, message):
    with pytest.raises(ValueError, match=message) as error:
        Net(nodes, IN_SHAPE, device="cpu")
    assert "\n" not in str(error.value)


def test_nodes_may_come_in_any_order(rng):
    nodes = [
        Node("softmax", SoftmaxCrossEntropy(), "fc"),
        Node("fc", Dense(CLASSES), "conv"),
        Node("conv", Conv(4, 3), "input"),
    ]
    net = Net(nodes, IN_SHAPE, device="cpu")
    assert [node.name for node in net.nodes] == ["conv", "fc", "softmax"]
    train(net, *data(rng), steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: expected a whole number, at least 0; got -1"),
        ({"in_shape": (8, 0, 2)}, "in_shape: expected a whole number, at least 1; got 0"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Net(chain(), **{"in_shape": IN_SHAPE, "device": "cpu"} | options)
