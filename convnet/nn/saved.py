"""Nets as values: saved to a file, copied, pickled.

A net is its nodes (each a class with the options that make it), what it was made for, and its
state. In a file the classes are names, in a pickle references; no array but the state is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.own_code import find, is_own, shown_name
from convnet.common.reading import parse_json
from convnet.common.tensor_header import read_header, read_tensors, write_tensors
from convnet.common.typecheck import brief, did_you_mean
from convnet.layers import LAYER_TYPES
from convnet.layers.graph import Node
from convnet.layers.layer import Layer
from convnet.layers.options import options_of

KEY = "convnet_net"  # of the metadata, in which the net is JSON
_FORMAT = 1
_RATES = {"w_lr", "w_decay", "b_lr", "b_decay"}  # options that parameters have too, and may change
_TYPE_NAMES = {layer: name for name, layer in LAYER_TYPES.items()}


@dataclass(frozen=True)
class NodeTable:
    """A node without its arrays.

    Attributes:
        name, inputs, share: as of `Node`.
        layer: its class; options: what makes it.
    """

    name: str
    layer: type[Layer]
    options: Mapping[str, Any]
    inputs: tuple[str, ...]
    share: str | None = None

    def node(self) -> Node:
        """A new node."""
        return Node(self.name, self.layer(**self.options), self.inputs, self.share)


def tables(nodes: Any) -> list[NodeTable]:
    """The nodes of a net as tables; multipliers of parameters are those that they have now.

    Raises: ValueError: a layer that does not keep an argument as an attribute.
    """
    found = []
    for node in nodes:
        options = options_of(node.layer)
        for param in node.layer.params:
            short = param.name.rpartition(".")[2]
            for key, value in (
                (f"{short}_lr", param.lr_mult),
                (f"{short}_decay", param.decay_mult),
            ):
                if key in _RATES and hasattr(node.layer, key) and getattr(node.layer, key) != value:
                    options[key] = value
        found.append(
            NodeTable(node.name, type(node.layer), options, tuple(node.inputs), node.share)
        )
    return found


def type_name(layer: type[Layer]) -> str:
    """The name of a layer's class in configurations and files: "conv", or "module:Class"."""
    return _TYPE_NAMES.get(layer) or shown_name(layer)


def class_of(name: str, folder: Path | None = None) -> type[Layer]:
    """The class of a layer by its name.

    Args:
        name: a key of `LAYER_TYPES`, or "module:Class"; folder: where its file is looked for first.

    Raises: ValueError: there is none, or code is not allowed.
    """
    if not is_own(name):
        if name not in LAYER_TYPES:
            raise ValueError(f'unknown layer type "{brief(name)}"{did_you_mean(name, LAYER_TYPES)}')
        return LAYER_TYPES[name]
    found = find(name, folder)
    if not (isinstance(found, type) and issubclass(found, Layer)):
        raise ValueError(f'"{brief(name)}": expected a class of layers, got another thing')
    return found


def plain(table: NodeTable) -> dict[str, Any]:
    """A table as `[[net.layers]]` has it.

    Raises: ValueError: an option that is no plain value, such as a function for initial weights.
    """
    rest = {"inputs": list(table.inputs)} | ({"share": table.share} if table.share else {})
    try:
        options = json.loads(json.dumps(dict(table.options)))
    except TypeError as error:
        raise ValueError(f"node {table.name!r}: an option that cannot be saved: {error}") from None
    return {"name": table.name, "type": type_name(table.layer), **rest, **options}


def save(path: Path, facts: Mapping[str, Any], nodes: Any, state: Mapping[str, np.ndarray]) -> None:
    """Writes a net to a file.

    Args:
        path: the file; facts: in_shape, seed, precision and step; nodes: of the net; state: of it.

    Raises: ValueError: as `plain`. OSError: it cannot be written.
    """
    held = {name: np.ascontiguousarray(array) for name, array in sorted(state.items())}
    text = json.dumps({"format": _FORMAT, **facts, "nodes": [plain(t) for t in tables(nodes)]})
    write_tensors(path, {KEY: text}, held)


def is_net(path: Path) -> bool:
    """Whether a file is one of `save`."""
    try:
        return KEY in read_header(path)[0]
    except ValueError:
        return False


def read(
    path: Path,
) -> tuple[dict[str, Any], list[NodeTable], dict[str, np.ndarray]]:
    """The facts, the nodes and the state in a file.

    Args:
        path: the file, beside which code of one's own is looked for first.

    Raises: ValueError: damaged, of a later version, or with code that is not allowed. OSError: it
    cannot be read.
    """
    metadata, arrays = read_tensors(path)
    try:
        facts = parse_json(metadata[KEY])
        if (version := facts.pop("format")) > _FORMAT:
            raise ValueError(f"format {version} was written by a later convnet")
        nodes = [_table(entry, path.parent) for entry in facts.pop("nodes")]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: a damaged net ({type(error).__name__}: {error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return facts, nodes, arrays


def _table(entry: dict[str, Any], folder: Path) -> NodeTable:
    options = dict(entry)
    name, kind = str(options.pop("name")), str(options.pop("type"))
    inputs, share = tuple(map(str, options.pop("inputs"))), options.pop("share", None)
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    return NodeTable(name, class_of(kind, folder), options, inputs, share)
