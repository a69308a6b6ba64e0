"""Nets of the layers that AlexNet does not have."""

import numpy as np

from convnet.layers import (
    Bias,
    BinaryCrossEntropy,
    Concat,
    ContrastNorm,
    Conv,
    Crop,
    Dense,
    Flatten,
    FlattenCHW,
    MapNorm,
    Max,
    MaxAbsPool,
    ReLU,
    Sigmoid,
    Slice,
    Softmax,
    SoftmaxCrossEntropy,
    Sum,
    SumPool,
    SumSquares,
    Tanh,
    UnflattenCHW,
)
from convnet.nn.net import Node

IMAGE = (7, 6, 4)


def conv(filters, **options):
    return Conv(filters, 3, pad=1, init="he", **options)


def mixed():
    """Most of them in one net, with inputs of several kinds."""
    return [
        Node("a", conv(4, bias=False)),
        Node("a_bias", Bias(tied=False)),
        Node("a_relu", ReLU()),
        Node("b", conv(4, bias=False), "input"),
        Node("b_bias", Bias()),
        Node("b_tanh", Tanh()),
        Node("weighted", Sum([0.5, -1.5]), ("a_relu", "b_tanh")),
        Node("again", Sum([1.0, 2.0, -1.0]), ("weighted", "weighted", "b_tanh")),
        Node("largest", Max(), ("again", "a_relu")),
        Node("rnorm", MapNorm(3, 0.5)),
        Node("maxabs", MaxAbsPool(3, 2), "weighted"),
        Node("cnorm", ContrastNorm(3, 0.5), "rnorm"),
        Node("total", SumPool(3, 2)),
        Node("part", Slice(1, 3)),
        Node("cut", Crop(2, 2, 1, 1)),
        Node("wide", conv(5), "maxabs"),
        Node("planes", FlattenCHW(), "wide"),
        Node("flat", Flatten(), "cut"),
        Node("join", Concat(), ("planes", "flat")),
        Node("code", Dense(18, init="he")),
        Node("image", UnflattenCHW(2)),
        Node("share", Softmax(), "code"),
        Node("image_flat", Flatten(), "image"),
        Node("both", Concat(), ("image_flat", "share")),
        Node("fc", Dense(5, init="he")),
        Node("softmax", SoftmaxCrossEntropy()),
        Node("yes_no", Dense(5, init="he"), "code"),
        Node("bce", BinaryCrossEntropy(coeff=0.3, pos_weight=2.0)),
        Node("small", SumSquares(coeff=0.01), "code"),
    ]


def auto_encoder():
    return [
        Node("code", Dense(10, init="he")),
        Node("logistic", Sigmoid()),
        Node("recon", Dense(7 * 6 * 2, init="he")),
        Node("data", Flatten(), "input"),
        Node("diff", Sum([1.0, -1.0]), ("recon", "data")),
        Node("loss", SumSquares()),
    ]


def batch(rng, count=6):
    x = rng.standard_normal((count, 7, 6, 2)).astype(np.float32)
    return x, rng.integers(0, 5, count)
