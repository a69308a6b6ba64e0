"""The layers, and the names that configurations use for them."""

from convnet.layer import Layer
from convnet.layers.activation import (
    Abs,
    Activation,
    BReLU,
    DReLU,
    LinearUnit,
    Log,
    Logistic,
    ReLU,
    SoftReLU,
    Sqrt,
    Square,
    Tanh,
)
from convnet.layers.conv import Conv
from convnet.layers.dense import Dense
from convnet.layers.dropout import Dropout
from convnet.layers.local import Local
from convnet.layers.loss import Loss, SoftmaxXent
from convnet.layers.lrn import LRN
from convnet.layers.pool import AvgPool, MaxPool
from convnet.layers.shape import Concat, Flatten, Sum
from convnet.layers.weighted import Weighted

LAYER_TYPES: dict[str, type[Layer]] = {
    "conv": Conv,
    "local": Local,
    "dense": Dense,
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "lrn": LRN,
    "relu": ReLU,
    "tanh": Tanh,
    "logistic": Logistic,
    "abs": Abs,
    "softrelu": SoftReLU,
    "square": Square,
    "sqrt": Sqrt,
    "log": Log,
    "brelu": BReLU,
    "linear": LinearUnit,
    "drelu": DReLU,
    "dropout": Dropout,
    "flatten": Flatten,
    "sum": Sum,
    "concat": Concat,
    "softmax": SoftmaxXent,
}

__all__ = [
    "LAYER_TYPES",
    "LRN",
    "Abs",
    "Activation",
    "AvgPool",
    "BReLU",
    "Concat",
    "Conv",
    "DReLU",
    "Dense",
    "Dropout",
    "Flatten",
    "LinearUnit",
    "Local",
    "Log",
    "Logistic",
    "Loss",
    "MaxPool",
    "ReLU",
    "SoftReLU",
    "SoftmaxXent",
    "Sqrt",
    "Square",
    "Sum",
    "Tanh",
    "Weighted",
]
