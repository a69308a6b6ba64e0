"""Saved models of cuda-convnet as weights.

A model is a dictionary with "model_state", in which "layers" are dictionaries (a list, later a
dictionary of them) with matrices.

    conv   (C/groups F F, K)       the rows are channels, then pixels
    local  (P Q C/groups F F, K)   the same for each place
    fc     (inputs, K)             images are C, H, W
    biases of places (K P Q), else (K)

The mean image that was subtracted is in the data's "batches.meta", with the names of the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.pickle_machine import RefusedError, text_of
from convnet.common.pickled_arrays import FLOAT_CODES, PickledArray
from convnet.common.reading import Budget, BudgetError
from convnet.exchange.cuda_convnet.convert import Imported
from convnet.exchange.cuda_convnet.pickles import FILE, load, value_at
from convnet.exchange.errors import ExchangeError
from convnet.exchange.imported_run import Preprocessing, checkpoint_state
from convnet.exchange.layouts import from_foreign
from convnet.layers import Dense, Local
from convnet.nn.net import Node
from convnet.training.checkpoint import write

GREY = 128.0  # what is subtracted of every pixel where the mean image is not known
_MODEL, _META = "a saved model", "a batches.meta"
_NO_MEAN = (
    f"a model has no mean image: a grey of {GREY:g} is subtracted in its place, which is not what "
    "it was trained with; --meta batches.meta, of its data, has the mean image"
)


def read_saved(path: Path) -> dict[str, dict[str, Any]]:
    """The layers of a saved model, by name: their dictionaries, with arrays as they are pickled.

    Raises: ExchangeError: damaged, or no model. OSError: it cannot be read.
    """
    state = load(path, _MODEL)
    try:
        layers = value_at(value_at(state, "model_state", _MODEL), "layers", _MODEL)
        listed = list(layers.values()) if isinstance(layers, dict) else layers
        if not isinstance(listed, list):
            raise RefusedError("expected layers in model_state, got none")
        return {_name(layer): layer for layer in listed}
    except RefusedError as error:
        raise ExchangeError(f"{path}: {error}") from None


def _name(layer: Any) -> str:
    name = value_at(layer, "name", "a layer")
    if not isinstance(name, str | bytes):
        raise RefusedError("expected the name of a layer, got something else")
    return text_of(name)


def weights_of(path: Path, found: Imported) -> dict[str, np.ndarray]:
    """The weights of a saved model as parameters of the net that its definition was imported as.

    Args:
        path: the model.
        found: of its definition.

    Raises: ExchangeError: a layer that is missing or has other shapes, with both.
    """
    layers, room = read_saved(path), Budget(FILE)
    weights = {}
    for node in found.net.parametric:
        for param in node.layer.params:
            name, index = found.sources[param.name]
            if name not in layers:
                raise ExchangeError(f"{path}: no layer {name} in the model, for {param.name}")
            try:
                array = _array(layers[name], index, room)
            except (RefusedError, BudgetError) as error:
                raise ExchangeError(f"{path}: {name}: {error}") from None
            try:
                weights[param.name] = _laid_out(found, node, param.name[-1], array)
            except ValueError:
                expected = f"{param.name} of {param.shape}"
                got = f"{array.shape} in {name}"
                raise ExchangeError(f"{path}: expected numbers for {expected}, got {got}") from None
    return weights


def _array(layer: Mapping[Any, Any], index: int, room: Budget) -> np.ndarray:
    """A matrix of a layer, or its biases (-1), float32."""
    value = value_at(layer, "biases" if index < 0 else "weights", "a layer")
    if index >= 0 and isinstance(value, list):
        value = value[index] if index < len(value) else None
    if not isinstance(value, PickledArray):
        raise RefusedError("expected a matrix of weights, got something else")
    return np.asarray(value.to_numpy(room, FLOAT_CODES, "numbers"), np.float32)


def _laid_out(found: Imported, node: Node, name: str, array: np.ndarray) -> np.ndarray:
    """A matrix as the layer's parameter. Raises: ValueError: it has another number of numbers."""
    layer = node.layer
    shape = next(p.shape for p in layer.params if p.name[-1] == name)
    if name == "b":
        if len(shape) == 1:
            return array.reshape(shape)
        maps = array.reshape(shape[-1], *shape[:-1])
        return np.ascontiguousarray(np.moveaxis(maps, 0, -1))
    if isinstance(layer, Dense):
        if array.shape != shape[::-1]:
            raise ValueError
        return from_foreign(found.net, node, "w", np.ascontiguousarray(array.T))
    if isinstance(layer, Local):
        p, q, k, r, s, c = shape
        return np.ascontiguousarray(array.reshape(p, q, c, r, s, k).transpose(0, 1, 5, 3, 4, 2))
    k, r, s, c = shape
    return np.ascontiguousarray(array.reshape(c, r, s, k).transpose(3, 1, 2, 0))


@dataclass(frozen=True)
class Meta:
    """What a batches.meta says.

    Attributes:
        path: of the file.
        mean: the mean image, float32 [C H W], 0 to 255.
        classes: names of the classes; empty where there are none.
    """

    path: Path
    mean: np.ndarray
    classes: tuple[str, ...]

    def side(self, channels: int) -> int:
        """Height and width of the mean image. Raises: ExchangeError: it is no square."""
        side = int((self.mean.size // channels) ** 0.5)
        if side * side * channels != self.mean.size:
            raise ExchangeError(
                f"{self.path}: data_mean: expected a square image of {channels} channels, got "
                f"{self.mean.size} numbers"
            )
        return side


def read_meta(path: Path) -> Meta:
    """The batches.meta of cuda-convnet's data.

    Raises: ExchangeError: damaged, or no mean image in it. OSError: it cannot be read.
    """
    table = load(path, _META)
    try:
        pickled = value_at(table, "data_mean", _META)
        if not isinstance(pickled, PickledArray):
            raise RefusedError("expected data_mean as an array, got something else")
        mean = pickled.to_numpy(Budget(FILE), FLOAT_CODES, "numbers").astype(np.float32).reshape(-1)
        if not mean.size or not np.isfinite(mean).all():
            raise RefusedError("expected numbers in data_mean, got none, or some not finite")
        names = table.get("label_names", table.get(b"label_names"))
    except (RefusedError, BudgetError) as error:
        raise ExchangeError(f"{path}: {error}") from None
    known = isinstance(names, list) and all(isinstance(name, str | bytes) for name in names)
    return Meta(path, mean, tuple(text_of(name) for name in names) if known else ())


def write_checkpoint(path: Path, model: Path, found: Imported, meta: Meta | None = None) -> str:
    """Writes a saved model's weights as a checkpoint, for `train --init`, `predict` and `eval`.

    Args:
        path: the checkpoint; model: the saved model; found: of its definition.
        meta: of its data; None: a grey of 128 takes the place of the mean image.

    Returns: what to know of its preprocessing, one line.
    Raises: ExchangeError: as `weights_of`, or a mean image of another size.
        OSError: it cannot be written.
    """
    height, width, channels = found.image
    mean, said = np.full((1, 1, channels), GREY, np.float32), _NO_MEAN
    classes = [f"class {number}" for number in range(found.outputs)]
    if meta is not None:
        if meta.mean.size != height * width * channels:
            raise ExchangeError(
                f"{meta.path}: data_mean: expected {height * width * channels} numbers, for images "
                f"of {height}x{width}x{channels} (--size), got {meta.mean.size}"
            )
        mean = np.ascontiguousarray(meta.mean.reshape(channels, height, width).transpose(1, 2, 0))
        said = f"the mean image is that of {meta.path}"
        if len(set(meta.classes)) == len(classes):
            classes = list(meta.classes)
        else:
            said += f"; it names {len(meta.classes)} classes, and the net has {len(classes)}"
    how = Preprocessing((height, width), found.cfg.augment.crop, mean, found.cfg.data.scale)
    cfg = how.applied(found.cfg, channels)
    origin = {"format": "cuda-convnet"}
    state, statistics = checkpoint_state(cfg, found.image, how, classes, origin)
    write(path, state, {**weights_of(model, found), **statistics})
    return said
