"""The weights that the losses of a run give to the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convnet.common.typecheck import did_you_mean
from convnet.config import Config, ConfigError
from convnet.data import Dataset
from convnet.layers import Loss, SoftmaxCrossEntropy
from convnet.nn.net import Net

_SHOWN = 6  # classes that a line names


@dataclass(frozen=True)
class ClassWeights:
    """One weight for each class, of which the mean over the training images is 1; so the learning
    rate means what it means without them, and a mean over a batch needs no sum of its weights.

    Attributes:
        values: by the number of the class; empty where all are 1.
    """

    values: tuple[float, ...] = ()

    def lines(self, classes: Sequence[str]) -> list[str]:
        """What a run prints of them: at most one line."""
        if not self.values:
            return []
        named = [f"{name} {w:.3g}" for name, w in zip(classes, self.values, strict=True)]
        more = [f"... ({len(named)} classes)"] if len(named) > _SHOWN else []
        return [f"of the loss of a class: {', '.join([*named[:_SHOWN], *more])}"]

    def put_into(self, net: Net, cfg: Config) -> None:
        """Gives them to the losses of a net.

        Raises: ConfigError: a loss that classifies and has no such weights.
        """
        for node in net.nodes if self.values else ():
            if isinstance(node.layer, SoftmaxCrossEntropy):
                node.layer.class_weights = self.values
            elif isinstance(node.layer, Loss) and node.layer.classifies:
                raise ConfigError(
                    f"{cfg.origin}: train.class_weights: expected a net that ends with "
                    f"softmax_cross_entropy, got node {node.name}, {node.layer.describe()}"
                )


def class_weights(cfg: Config, train: Dataset) -> ClassWeights:
    """The weights that a configuration asks for.

    Args:
        cfg: its `train.class_weights`.
        train: the training set.

    Raises: ConfigError: another number of weights than classes, names of none, or all of them 0.
    """
    said, classes = cfg.train.class_weights, train.classes
    counts = np.bincount(train.labels, minlength=len(classes))
    if said == "none":
        return ClassWeights()
    key = f"{cfg.origin}: train.class_weights"
    if isinstance(said, str):
        raw = 1.0 / np.maximum(counts, 1)
    elif isinstance(said, tuple):
        if len(said) != len(classes):
            raise ConfigError(
                f"{key}: expected one for each of {len(classes)} classes, got {len(said)}"
            )
        raw = np.array(said)
    else:
        for name in said:
            if name not in classes:
                raise ConfigError(f"{key}.{name}: no such class{did_you_mean(name, classes)}")
        raw = np.array([said.get(name, 1.0) for name in classes])
    mean = float(raw @ counts) / len(train)
    if mean <= 0.0:
        raise ConfigError(f"{key}: expected one above 0 of a class with images, got none")
    return ClassWeights(tuple((raw / mean).tolist()))
