"""The layers, and the names that configurations use for them."""

from convnet.common.distribution import check_package
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
from convnet.layers.bias import Bias
from convnet.layers.conv import Conv
from convnet.layers.crop import Crop, Image, Planes, Slice
from convnet.layers.dense import Dense
from convnet.layers.dropout import Dropout
from convnet.layers.layer import Layer
from convnet.layers.local import Local
from convnet.layers.loss import Loss, SoftmaxXent
from convnet.layers.losses import BinaryXent, SumSquares
from convnet.layers.lrn import LRN
from convnet.layers.mapnorm import ContrastNorm, MapNorm
from convnet.layers.max import Max
from convnet.layers.pool import AvgPool, MaxAbsPool, MaxPool, SumPool
from convnet.layers.shape import Concat, Flatten, Sum
from convnet.layers.softmax import Softmax
from convnet.layers.weighted import Weighted

check_package()  # another project's `convnet`, where it is installed over this one, comes here

LAYER_TYPES: dict[str, type[Layer]] = {
    "conv": Conv,
    "local": Local,
    "dense": Dense,
    "bias": Bias,
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "sumpool": SumPool,
    "maxabspool": MaxAbsPool,
    "lrn": LRN,
    "rnorm": MapNorm,
    "cnorm": ContrastNorm,
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
    "planes": Planes,
    "image": Image,
    "crop": Crop,
    "slice": Slice,
    "sum": Sum,
    "max": Max,
    "concat": Concat,
    "probabilities": Softmax,
    "softmax": SoftmaxXent,
    "bce": BinaryXent,
    "sumsquares": SumSquares,
}

__all__ = [
    "LAYER_TYPES",
    "LRN",
    "Abs",
    "Activation",
    "AvgPool",
    "BReLU",
    "Bias",
    "BinaryXent",
    "Concat",
    "ContrastNorm",
    "Conv",
    "Crop",
    "DReLU",
    "Dense",
    "Dropout",
    "Flatten",
    "Image",
    "LinearUnit",
    "Local",
    "Log",
    "Logistic",
    "Loss",
    "MapNorm",
    "Max",
    "MaxAbsPool",
    "MaxPool",
    "Planes",
    "ReLU",
    "Slice",
    "SoftReLU",
    "Softmax",
    "SoftmaxXent",
    "Sqrt",
    "Square",
    "Sum",
    "SumPool",
    "SumSquares",
    "Tanh",
    "Weighted",
]
