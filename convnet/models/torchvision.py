"""The net that torchvision calls AlexNet, which is not that of the paper."""

from collections.abc import Sequence
from typing import Any

from convnet.layers import Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.models.scaled import scaled
from convnet.nn.net import Net, Node


def alexnet_torchvision(
    in_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    dropout: float = 0.5,
    init: str = "he",
    hidden: int = 4096,
    width: float = 1.0,
    **net_options: Any,
) -> Net:
    """The net of the "one weird trick" paper as torchvision has it.

    It differs from the paper's: one tower of fewer filters, no response normalization, conv1 with
    a pad of 2 and sizes rounded down, dropout before fc6 and fc7 and in the inverted form.

    Args:
        in_shape, classes: of 224 x 224 images fc6 sees 6 x 6 x 256 numbers.
        dropout: probability, before fc6 and before fc7; 0 for none.
        init: initial weights, as in `Conv`.
        hidden, width: units of fc6 and fc7; what multiplies the filters of conv1 to conv5.
        net_options: device, seed, trace, precision; see `Net`.

    Returns: a `Net` with a loss.
    Raises: ValueError for sizes that do not fit.

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014;
    torchvision/models/alexnet.py.
    """
    k = scaled((64, 192, 384, 256, 256), width, 1, 5)
    convs = {
        1: Conv(k[0], 11, stride=4, pad=2, init=init),
        2: Conv(k[1], 5, pad=2, init=init),
        3: Conv(k[2], 3, pad=1, init=init),
        4: Conv(k[3], 3, pad=1, init=init),
        5: Conv(k[4], 3, pad=1, init=init),
    }
    nodes = []
    for i, conv in convs.items():
        nodes += [Node(f"conv{i}", conv), Node(f"relu{i}", ReLU())]
        nodes += [Node(f"pool{i}", MaxPool(3, 2, rounding="floor"))] if i in (1, 2, 5) else []
    for i in (6, 7):
        nodes += [Node(f"drop{i}", Dropout(dropout, "inverted"))] if dropout else []
        nodes += [Node(f"fc{i}", Dense(hidden, init=init)), Node(f"relu{i}", ReLU())]
    nodes += [Node("fc8", Dense(classes, init=init)), Node("softmax", SoftmaxCrossEntropy())]
    return Net(nodes, in_shape, **net_options)
