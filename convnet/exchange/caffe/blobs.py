"""Caffe's binary files: weights by layer, and mean images.

Source: Caffe, src/caffe/proto/caffe.proto, of which these numbers of fields are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet.common.reading import Budget, BudgetError, Limit, read_bytes
from convnet.exchange.errors import ExchangeError
from convnet.exchange.wire import FIELDS, WireError, fields, varints

_FILE = Limit(1 << 31, "bytes in a file of Caffe")
_RANK = 8


class _Fields(NamedTuple):
    """Numbers of fields: of layers in a net; of name and blobs in a layer."""

    layers: int
    name: int
    blobs: int


_NEW, _V1 = _Fields(100, 1, 7), _Fields(2, 4, 6)  # NetParameter.layer and .layers


def read_caffemodel(path: Path) -> dict[str, list[np.ndarray]]:
    """The blobs of each layer that has some, float32, by the layers' names.

    Raises: ExchangeError: damaged, or no weights in it. OSError: it cannot be read.
    """
    try:
        data, budget = memoryview(read_bytes(path, _FILE)), Budget(FIELDS)
        found: dict[str, list[np.ndarray]] = {}
        for number, value in fields(data, budget):
            for kind in (_NEW, _V1):
                if number == kind.layers and isinstance(value, memoryview):
                    name, blobs = _layer(value, kind, budget)
                    found |= {name: blobs} if blobs else {}
    except (WireError, BudgetError) as error:
        raise ExchangeError(f"{path}: damaged, or not of Caffe: {error}") from None
    if not found:
        raise ExchangeError(f"{path}: expected weights of layers, got none")
    return found


def read_mean(path: Path) -> np.ndarray:
    """The image in a .binaryproto file, float32 [C, H, W].

    Raises: ExchangeError: damaged, or no image. OSError: it cannot be read.
    """
    try:
        blob = _blob(memoryview(read_bytes(path, _FILE)), Budget(FIELDS))
    except (WireError, BudgetError) as error:
        raise ExchangeError(f"{path}: damaged, or not of Caffe: {error}") from None
    image = blob.reshape(blob.shape[-3:]) if math.prod(blob.shape[:-3]) == 1 else blob
    if image.ndim != 3:
        raise ExchangeError(f"{path}: expected one image, got shape {blob.shape}")
    return image


def _layer(data: memoryview, kind: _Fields, budget: Budget) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for number, value in fields(data, budget):
        if number == kind.name and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif number == kind.blobs and isinstance(value, memoryview):
            blobs.append(_blob(value, budget))
    return name, blobs


def _blob(data: memoryview, budget: Budget) -> np.ndarray:
    """A BlobProto: its shape, of four numbers in old files, and as many float32 or float64."""
    old, shape, parts = {}, None, []
    for number, value in fields(data, budget):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number in (5, 8) and isinstance(value, memoryview):
            size = 4 if number == 5 else 8
            if len(value) % size:
                raise WireError(f"expected numbers of {size} bytes, got {len(value)} bytes")
            parts.append(np.frombuffer(value, f"<f{size}").astype(np.float32))
        elif number == 7 and isinstance(value, memoryview):
            shape = _shape(value, budget)
    if shape is None:
        shape = tuple(old.get(number, 1) for number in (1, 2, 3, 4))
    flat = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if len(shape) > _RANK or math.prod(shape) != flat.size:
        raise WireError(f"expected numbers for the shape {shape[:_RANK]}, got {flat.size}")
    return flat.reshape(shape)


def _shape(data: memoryview, budget: Budget) -> tuple[int, ...]:
    found: list[int] = []
    for number, value in fields(data, budget):
        if number == 1:
            found += [value] if isinstance(value, int) else varints(value)
        if len(found) > _RANK:
            raise WireError(f"expected at most {_RANK} dimensions, got more")
    return tuple(found)
