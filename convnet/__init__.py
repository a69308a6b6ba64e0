"""convnet: hand-written CUDA kernels for convolutional nets, with Python bindings.

>>> import convnet
>>> result = convnet.train("fashion-mnist")            # a preset, a TOML file, a dict or a Config
>>> net = convnet.load(result.run_dir)                 # the best weights of a run
>>> convnet.predict(result.run_dir, "images")          # what a folder of images shows
>>> y = convnet.ops.conv_fprop(x, w, b, stride=4)      # the operations, without any net
"""

from typing import TYPE_CHECKING

from convnet.common.distribution import DISTRIBUTION as __distribution__  # noqa: N811, F401
from convnet.common.distribution import VERSION as __version__  # noqa: N811, F401
from convnet.common.lazy import lazy_members

if TYPE_CHECKING:
    from convnet import backend, data, layers, models, ops
    from convnet.backend import DeviceError
    from convnet.config import Config, ConfigError, load_config
    from convnet.data import DataError
    from convnet.evaluation.evaluate import load
    from convnet.evaluation.predict import Prediction, Predictions, predict
    from convnet.layers.layer import Layer, Parameter
    from convnet.nn.net import Net, Node
    from convnet.optim.sgd import SGD, DivergedError
    from convnet.report.callback import train
    from convnet.training.train import TrainResult

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
    "Prediction",
    "Predictions",
    "TrainResult",
    "backend",
    "data",
    "layers",
    "load",
    "load_config",
    "models",
    "ops",
    "predict",
    "train",
]

__getattr__ = lazy_members(
    __name__,
    {
        "SGD": "convnet.optim.sgd",
        "Config": "convnet.config",
        "ConfigError": "convnet.config",
        "DataError": "convnet.data",
        "DeviceError": "convnet.backend",
        "DivergedError": "convnet.optim.sgd",
        "Layer": "convnet.layers.layer",
        "Net": "convnet.nn.net",
        "Node": "convnet.nn.net",
        "Parameter": "convnet.layers.layer",
        "Prediction": "convnet.evaluation.predict",
        "Predictions": "convnet.evaluation.predict",
        "TrainResult": "convnet.training.train",
        "backend": "convnet",
        "data": "convnet",
        "layers": "convnet",
        "load": "convnet.evaluation.evaluate",
        "load_config": "convnet.config",
        "models": "convnet",
        "ops": "convnet",
        "predict": "convnet.evaluation.predict",
        "train": "convnet.report.callback",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
