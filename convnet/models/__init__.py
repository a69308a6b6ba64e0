"""Nets as functions: each returns a `Net`, and takes in_shape, classes, device, seed, trace and
precision besides its own options."""

from collections.abc import Callable

from convnet.models.alexnet import alexnet
from convnet.models.cifar10 import cifar10_quick
from convnet.models.fashion_mnist import fashion_mnist
from convnet.models.small import small
from convnet.models.torchvision import alexnet_torchvision
from convnet.nn.net import Net

# By the name that a configuration's `net.model` takes.
MODELS: dict[str, Callable[..., Net]] = {
    "alexnet": alexnet,
    "alexnet_torchvision": alexnet_torchvision,
    "cifar10_quick": cifar10_quick,
    "fashion_mnist": fashion_mnist,
    "small": small,
}

__all__ = ["MODELS", "alexnet", "alexnet_torchvision", "cifar10_quick", "fashion_mnist", "small"]
