"""Weights as here, and as PyTorch, Caffe and ONNX lay them out.

Filters are KRSC here and KCRS there. Where an image becomes a row, it is H, W, C here and C, H, W
there, so that the columns of the dense layer above are permuted. Numbers are moved, never changed.
"""

from __future__ import annotations

import numpy as np

from convnet.layers import Activation, Conv, Dense, Dropout, Flatten, Layer
from convnet.layers.graph import INPUT
from convnet.nn.net import Net, Node

Shape = tuple[int, ...]

_KEEP_ORDER = (Activation, Dropout, Flatten)  # layers that leave elements where they are in memory


def parameters(layer: Layer) -> dict[str, Shape]:
    """The shapes of a layer's parameters, "w" and "b", as they are here."""
    return {param.name.rpartition(".")[2]: param.shape for param in layer.params}


def foreign_shape(layer: Layer, name: str) -> Shape:
    """The shape that a parameter has there."""
    shape = parameters(layer)[name]
    if name == "w" and type(layer) is Conv:
        k, r, s, c = shape
        return (k, c, r, s)
    return shape


def image_of_row(net: Net, node: Node) -> Shape | None:
    """(H, W, C) of the image that a dense layer has for its row, where the order matters.

    Args:
        net: in which the node is.
        node: with a dense layer.

    Returns: None where what feeds it is a row already in an order of its own, or one pixel.
    """
    by_name = {each.name: each for each in net.nodes}
    source = str(node.inputs[0]) if node.inputs else INPUT
    shape = net.in_shape if source == INPUT else net.shapes[source]
    while len(shape) == 1 and source != INPUT and isinstance(by_name[source].layer, _KEEP_ORDER):
        source = str(by_name[source].inputs[0])  # type: ignore[index]
        shape = net.in_shape if source == INPUT else net.shapes[source]
    return tuple(shape) if len(shape) == 3 and shape[0] * shape[1] > 1 else None


def from_foreign(net: Net, node: Node, name: str, values: np.ndarray) -> np.ndarray:
    """A parameter that the other program laid out, as it is here.

    Args:
        net, node: of the parameter.
        name: "w" or "b".
        values: of `foreign_shape`.
    """
    if name == "w" and type(node.layer) is Conv:
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    if name == "w" and isinstance(node.layer, Dense) and (image := image_of_row(net, node)):
        height, width, channels = image
        rows = values.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(rows).reshape(values.shape)
    return np.ascontiguousarray(values)


def to_foreign(net: Net, node: Node, name: str, values: np.ndarray) -> np.ndarray:
    """The inverse of `from_foreign`."""
    if name == "w" and type(node.layer) is Conv:
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if name == "w" and isinstance(node.layer, Dense) and (image := image_of_row(net, node)):
        rows = values.reshape(-1, *image).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(rows).reshape(values.shape)
    return np.ascontiguousarray(values)
