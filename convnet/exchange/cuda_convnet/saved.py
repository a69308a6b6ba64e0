"""Saved models of cuda-convnet: pickles of Python 2, read as data.

A model is a dictionary with "model_state", in which "layers" are dictionaries (a list, later a
dictionary of them) with matrices. Beside it stand objects of cuda-convnet's own classes, which are
inert here: nothing is imported, constructed or called. A file may be a zip file with the pickle as
its entry "data".

    conv   (C/groups F F, K)       the rows are channels, then pixels
    local  (P Q C/groups F F, K)   the same for each place
    fc     (inputs, K)             images are C, H, W
    biases of places (K P Q), else (K)
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convnet.common.pickle_machine import (
    Machine,
    Operations,
    PickledObject,
    RefusedError,
    counted,
    text_of,
)
from convnet.common.pickled_arrays import ARRAY_NAMES, FLOAT_CODES, PickledArray
from convnet.common.reading import Budget, BudgetError, Limit, read_bytes
from convnet.exchange.cuda_convnet.convert import Imported
from convnet.exchange.errors import ExchangeError
from convnet.exchange.layouts import from_foreign, weighted
from convnet.layers import Dense, Local
from convnet.nn.net import Node
from convnet.training.checkpoint import write

FILE = Limit(1 << 32, "bytes in a saved model")
_OPERATIONS = Limit(20_000_000, "operations in a saved model")  # it keeps the cost of each batch


class _Inert(PickledObject):
    """Stands for an object of any class, and holds nothing."""

    def __new__(cls, *_: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass


class _SavedMachine(Machine):
    """Runs the pickle of a saved model: what it names besides arrays is inert."""

    dispatch = Operations(
        Machine.dispatch
        | {
            code: counted(pickle._Unpickler.dispatch[code])
            for code in (pickle.NEWOBJ[0], pickle.OBJ[0], pickle.INST[0])
        }
    )

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, ARRAY_NAMES, size, "", _OPERATIONS)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for an array, or an inert object."""
        return self.known.get(f"{module}.{name}"[:200], _Inert)


def read_saved(path: Path) -> dict[str, dict[str, Any]]:
    """The layers of a saved model, by name: their dictionaries, with arrays as they are pickled.

    Raises: ExchangeError: damaged, or no model. OSError: it cannot be read.
    """
    content = read_bytes(path, FILE)
    try:
        if content[:4] == b"PK\x03\x04":
            content = _unzipped(content)
        state = _SavedMachine(io.BytesIO(content), len(content)).load()
        layers = _at(_at(state, "model_state"), "layers")
        listed = list(layers.values()) if isinstance(layers, dict) else layers
        if not isinstance(listed, list):
            raise RefusedError("expected layers in model_state, got none")
        return {_name(layer): layer for layer in listed}
    except (RefusedError, BudgetError) as error:
        raise ExchangeError(f"{path}: {error}") from None
    except Exception as error:  # the machine raises nearly anything on damaged pickles
        why = " ".join(str(error).split())[:100]
        got = f"one that cannot be read ({type(error).__name__}: {why})"
        raise ExchangeError(f"{path}: expected a saved model, got {got}") from None


def _unzipped(content: bytes) -> bytes:
    """The entry "data" of a zip file; models shrink little, so that more is refused."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.getinfo("data").file_size > 20 * len(content):
            raise RefusedError("expected a model of up to 20 times the zip file, got more")
        return archive.read("data")


def _at(table: Any, key: str) -> Any:
    """The value of a key, which Python 2 wrote as bytes."""
    for name in (key, key.encode()):
        if isinstance(table, dict) and name in table:
            return table[name]
    raise RefusedError(f"expected a saved model with {key}, got another pickle")


def _name(layer: Any) -> str:
    name = _at(layer, "name")
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
    for node in weighted(found.net):
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
    value = _at(layer, "biases" if index < 0 else "weights")
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


def write_checkpoint(path: Path, model: Path, found: Imported) -> None:
    """Writes a saved model's weights as a checkpoint, for `convnet train --init`.

    Args:
        path: the checkpoint; model: the saved model; found: of its definition.

    Raises: ExchangeError: as `weights_of`. OSError: it cannot be written.
    """
    state = {
        "step": 0,
        "epoch": 0,
        "config": found.cfg.to_dict(),
        "imported": {"format": "cuda-convnet"},
    }
    write(path, state, weights_of(model, found))
