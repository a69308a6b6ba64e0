"""A small net in the manner of the paper, for 28x28 images."""

from __future__ import annotations

from typing import Any

from convnet.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node


def fashion_mnist(
    in_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    lrn: bool = True,
    dropout: float = 0.5,
    **net_options: Any,
) -> Net:
    """Three convolutions and two dense layers: ReLU, response normalization, overlapping pools,
    dropout.

    Args:
        in_shape: (H, W, C).
        classes: number of outputs.
        lrn: whether to normalise after the first two convolutions.
        dropout: probability to drop an output of the hidden dense layer; 0 for none.
        net_options: device, seed, trace, precision; see `Net`.

    Returns: a `Net` with a loss.
    Raises: ValueError for sizes that do not fit.
    """

    def norm(name: str) -> list[Node]:
        return [Node(name, LRN(alpha=1e-3))] if lrn else []

    nodes = [
        Node("conv1", Conv(32, 5, pad=2, init="he")),
        Node("relu1", ReLU()),
        Node("pool1", MaxPool(3, 2)),
        *norm("lrn1"),
        Node("conv2", Conv(64, 3, pad=1, init="he")),
        Node("relu2", ReLU()),
        Node("pool2", MaxPool(3, 2)),
        *norm("lrn2"),
        Node("conv3", Conv(128, 3, pad=1, init="he")),
        Node("relu3", ReLU()),
        Node("fc4", Dense(256, init="he")),
        Node("relu4", ReLU()),
        *([Node("drop4", Dropout(dropout))] if dropout else []),
        Node("fc5", Dense(classes, init="xavier")),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    return Net(nodes, in_shape, **net_options)
