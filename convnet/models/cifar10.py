"""cuda-convnet's net for CIFAR-10 that takes 80 seconds to train."""

from __future__ import annotations

from typing import Any

from convnet.layers import AvgPool, Conv, Dense, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node


def cifar10_quick(
    in_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    init: str = "gaussian",
    **net_options: Any,
) -> Net:
    """Three convolutions with pools, two dense layers; no normalization, no dropout.

    Args:
        in_shape: (H, W, C).
        classes: number of outputs.
        init: "gaussian" with cuda-convnet's standard deviations, from which the loss takes a few
            hundred steps to start falling; "he" or "xavier" learn at once.
        net_options: device, seed, trace, precision; see `Net`.

    Returns: a `Net` with a loss.
    Raises: ValueError for sizes that do not fit.

    Source: cuda-convnet, layers-80sec.cfg.
    """
    nodes = [
        Node("conv1", Conv(32, 5, pad=2, init=init, std=0.0001)),
        Node("pool1", MaxPool(3, 2)),
        Node("relu1", ReLU()),
        Node("conv2", Conv(32, 5, pad=2, init=init, std=0.01)),
        Node("relu2", ReLU()),
        Node("pool2", AvgPool(3, 2)),
        Node("conv3", Conv(64, 5, pad=2, init=init, std=0.01)),
        Node("relu3", ReLU()),
        Node("pool3", AvgPool(3, 2)),
        Node("fc64", Dense(64, init=init, std=0.1)),
        Node("relu4", ReLU()),
        Node("fc10", Dense(classes, init=init, std=0.1)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    return Net(nodes, in_shape, **net_options)
