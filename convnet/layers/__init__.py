"""The layers, and the names that configurations use for them."""

from convnet.common.deprecated import renamed_members
from convnet.common.distribution import check_package
from convnet.layers.activation import (
    Abs,
    Activation,
    Affine,
    BReLU,
    DReLU,
    Log,
    ReLU,
    Sigmoid,
    Softplus,
    Sqrt,
    Square,
    Tanh,
)
from convnet.layers.bias import Bias
from convnet.layers.blur import Blur
from convnet.layers.conv import Conv
from convnet.layers.dense import Dense
from convnet.layers.dropout import Dropout
from convnet.layers.layer import Layer
from convnet.layers.local import Local
from convnet.layers.loss import BinaryCrossEntropy, Loss, Softmax, SoftmaxCrossEntropy, SumSquares
from convnet.layers.lrn import LRN
from convnet.layers.mapnorm import ContrastNorm, MapNorm
from convnet.layers.merge import Concat, Max, Sum
from convnet.layers.nailbed import Nailbed
from convnet.layers.parametric import ParametricLayer
from convnet.layers.pool import AvgPool, MaxAbsPool, MaxPool, SumPool
from convnet.layers.reshape import Crop, Flatten, FlattenCHW, Slice, UnflattenCHW

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
    "sigmoid": Sigmoid,
    "abs": Abs,
    "softplus": Softplus,
    "square": Square,
    "sqrt": Sqrt,
    "log": Log,
    "brelu": BReLU,
    "affine": Affine,
    "drelu": DReLU,
    "blur": Blur,
    "nailbed": Nailbed,
    "dropout": Dropout,
    "flatten": Flatten,
    "flatten_chw": FlattenCHW,
    "unflatten_chw": UnflattenCHW,
    "crop": Crop,
    "slice": Slice,
    "sum": Sum,
    "max": Max,
    "concat": Concat,
    "probabilities": Softmax,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "sumsquares": SumSquares,
}

__getattr__ = renamed_members(
    __name__,
    {
        "Weighted": "ParametricLayer",
        "Logistic": "Sigmoid",
        "SoftReLU": "Softplus",
        "LinearUnit": "Affine",
        "Planes": "FlattenCHW",
        "Image": "UnflattenCHW",
        "SoftmaxXent": "SoftmaxCrossEntropy",
        "BinaryXent": "BinaryCrossEntropy",
    },
)

__all__ = ["LAYER_TYPES", "Activation", "Layer", "Loss", "ParametricLayer"]
__all__ += [layer.__name__ for layer in LAYER_TYPES.values()]
