"""The net of the paper, section 3.5 and figure 2; exact numbers and variants in its options."""

from collections.abc import Sequence
from typing import Any

from convnet.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.models.scaled import scaled
from convnet.nn.net import Net, Node


def alexnet(
    in_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    filters: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
    width: float = 1.0,
    groups: int = 2,
    lrn: bool = True,
    overlap: bool = True,
    dropout: float = 0.5,
    sixth: bool = False,
    without: Sequence[str] = (),
    init: str = "gaussian",
    bias: float = 1.0,
    **net_options: Any,
) -> Net:
    """Five convolutions and three dense layers; the defaults are the paper's net.

    Args:
        in_shape, classes: 224 and 227 both give 55 x 55 after conv1, which rounds up.
        filters, hidden, width: of conv1 to conv5; of fc6 and fc7; what multiplies `filters`.
        groups: the paper's two GPUs, in conv2, conv4, conv5 and the norms; 1 for a single tower.
        lrn, overlap: response normalization; pools 3/2 or, without overlap, 2/2.
        dropout: probability in fc6 and fc7; 0 for none.
        sixth: another convolution like conv5 after the last pool (paper, section 6).
        without: convolutions to leave out, such as ["conv3"] (section 7).
        init, bias: initial weights (N(0, 0.01)), and biases of conv2, 4, 5, fc6 and fc7.
        net_options: device, seed, trace, precision; see `Net`.

    Returns: a `Net` with a loss.
    Raises: ValueError for sizes that do not fit.

    Source: paper, section 3.5 and figure 2; sections 6 and 7 for the variants.
    """
    k = scaled(filters, width, groups, 5)
    norms, size = (1, 2) if lrn else (), 3 if overlap else 2
    start: dict[str, Any] = {"init": init, "bias_init": bias}
    convs = {
        1: Conv(k[0], 11, stride=4, rounding="ceil", init=init),
        2: Conv(k[1], 5, pad=2, groups=groups, **start),
        3: Conv(k[2], 3, pad=1, init=init),
        4: Conv(k[3], 3, pad=1, groups=groups, **start),
        5: Conv(k[4], 3, pad=1, groups=groups, **start),
    }
    nodes = []
    for i, conv in convs.items():
        if f"conv{i}" not in without:
            nodes += [Node(f"conv{i}", conv), Node(f"relu{i}", ReLU())]
        nodes += [Node(f"lrn{i}", LRN(groups=groups))] if i in norms else []
        nodes += [Node(f"pool{i}", MaxPool(size, 2))] if i in (1, 2, 5) else []
    if sixth:
        last = Conv(k[4], 3, pad=1, groups=groups, **start)
        nodes += [Node("conv6", last), Node("relu_conv6", ReLU())]
    for i in (6, 7):
        nodes += [Node(f"fc{i}", Dense(hidden, **start)), Node(f"relu{i}", ReLU())]
        nodes += [Node(f"drop{i}", Dropout(dropout))] if dropout else []
    nodes += [Node("fc8", Dense(classes, init=init)), Node("softmax", SoftmaxCrossEntropy())]
    return Net(nodes, in_shape, **net_options)
