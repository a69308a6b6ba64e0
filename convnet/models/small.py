"""A small net in the manner of the paper, for colour images of about 64x64."""

from __future__ import annotations

from typing import Any

from convnet.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node


def small(
    in_shape: tuple[int, int, int] = (64, 64, 3),
    classes: int = 10,
    width: int = 32,
    hidden: int = 256,
    dropout: float = 0.5,
    **net_options: Any,
) -> Net:
    """Four convolutions and two dense layers, for a few thousand images of one's own.

    Args:
        in_shape: (H, W, C), at least 15 x 15.
        classes: number of outputs.
        width: filters of the first convolution; the later ones have 2, 3 and 3 times as many.
        hidden: units of the hidden dense layer.
        dropout: probability to drop one of them, and one of its inputs; 0 for none.
        net_options: device, seed, trace, precision; see `Net`.

    Returns: a `Net` with a loss.
    Raises: ValueError for sizes that do not fit.
    """

    def drop(name: str) -> list[Node]:
        return [Node(name, Dropout(dropout))] if dropout else []

    nodes = [
        Node("conv1", Conv(width, 5, stride=2, pad=2, init="he")),
        Node("relu1", ReLU()),
        Node("lrn1", LRN(alpha=1e-3)),
        Node("pool1", MaxPool(3, 2)),
        Node("conv2", Conv(2 * width, 3, pad=1, init="he")),
        Node("relu2", ReLU()),
        Node("lrn2", LRN(alpha=1e-3)),
        Node("pool2", MaxPool(3, 2)),
        Node("conv3", Conv(3 * width, 3, pad=1, init="he")),
        Node("relu3", ReLU()),
        Node("conv4", Conv(3 * width, 3, pad=1, init="he")),
        Node("relu4", ReLU()),
        Node("pool4", MaxPool(3, 2)),
        *drop("drop4"),
        Node("fc5", Dense(hidden, init="he")),
        Node("relu5", ReLU()),
        *drop("drop5"),
        Node("fc6", Dense(classes, init="xavier")),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    return Net(nodes, in_shape, **net_options)
