"""convnet: hand-written CUDA kernels for convolutional nets, with Python bindings.

>>> import convnet
>>> result = convnet.train("fashion-mnist")            # a preset, a TOML file, a dict or a Config
>>> net = convnet.load(result.run_dir)                 # the best weights of a run
>>> y = convnet.ops.conv_fprop(x, w, b, stride=4)      # the operations, without any net
"""

__version__ = "0.1.0"
__distribution__ = "convnet-kernels"  # see convnet.distribution

from convnet import backend, data, layers, models, ops
from convnet.backend import DeviceError
from convnet.config import Config, ConfigError, load_config
from convnet.data import DataError
from convnet.divergence import DivergedError
from convnet.evaluate import load
from convnet.layer import Layer, Parameter
from convnet.net import Net, Node
from convnet.sgd import SGD
from convnet.train import TrainResult, train

__all__ = [
    "SGD",
    "Config",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DivergedError",
    "Layer",
    "Net",
    "Node",
    "Parameter",
    "TrainResult",
    "backend",
    "data",
    "layers",
    "load",
    "load_config",
    "models",
    "ops",
    "train",
]
