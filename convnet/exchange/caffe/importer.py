"""`convnet import caffe`: a definition and its weights as a run.

The net is made of the .prototxt, whether for deployment or for training; the weights of each layer
are those of the same name. Caffe's images are BGR, so that the filters over them are turned to RGB.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.typecheck import brief
from convnet.config import Config, load_config
from convnet.data.image import Resize
from convnet.exchange.caffe.blobs import read_caffemodel, read_mean
from convnet.exchange.caffe.layers import Graph, add_layer, is_for_training
from convnet.exchange.caffe.prototxt import Block, read_prototxt
from convnet.exchange.errors import ExchangeError
from convnet.exchange.imported_run import Imported, Preprocessing, class_names, write_run
from convnet.exchange.layouts import foreign_shape, from_foreign, parameters
from convnet.layers import Conv
from convnet.layers.graph import INPUT
from convnet.nn.net import Node
from convnet.training.nets import build_net

BGR_MEAN = (104.0, 117.0, 123.0)  # of ImageNet, in Caffe's order
_SIDE = 256  # to which Caffe's programs resize images


def import_caffe(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    mean: Sequence[float] | str | None = None,
    scale: float | None = None,
    size: int = 0,
    order: str = "BGR",
    classes: str = "",
    resize: Resize = "crop",
) -> Imported:
    """Reads a net of Caffe and writes a run with its weights.

    Args:
        prototxt: its definition, with `layer` or with `layers`.
        caffemodel: its weights.
        out: folder of the run; None: a dated one under runs/.
        mean: what to subtract from grey levels of 0 to 255, in the order of the net's channels: a
            number for each, or a .binaryproto file; None: what the definition says, else
            ImageNet's.
        scale: multiplies the difference; None: what the definition says, else 1.
        size: height and width to which images are resized; 0: those of the mean image, else 256,
            or the net's own where that is larger.
        order: "BGR" or "RGB", that of the net's channels.
        classes: a file with the names of the classes, a line each.
        resize: how images get their size: "crop", "pad", or "stretch", as Caffe's own tools do.

    Raises:
        ExchangeError: naming the file, and the layer and both shapes where a weight does not fit.
        OSError: a file cannot be read or written.
    """
    net_text, blobs = read_prototxt(Path(prototxt)), read_caffemodel(Path(caffemodel))
    layers = _layers(net_text)
    in_shape = _in_shape(net_text, layers)
    graph = _graph(net_text, layers, in_shape)
    transforms = [layer.block("transform_param") for layer in layers]
    image, notes = _mean(transforms, mean, in_shape[2], order)
    factor = scale or next((each.one("scale", 1.0) for each in transforms if each.items), 1.0)
    cfg, preprocessing = _config(net_text, graph, in_shape, image, factor, size)
    cfg = dataclasses.replace(preprocessing, resize=resize).applied(cfg, in_shape[2])
    net = build_net(cfg, (*preprocessing.size, in_shape[2]), None, "cpu", sizes_only=True)
    weights = {}
    for node in net.parametric:
        found = blobs.get(graph.sources[node.name], [])
        for name, values in _fitted(str(caffemodel), node, found).items():
            if name == "w" and order == "BGR" and in_shape[2] == 3 and node.inputs == (INPUT,):
                values = _turned(str(prototxt), node, values)
            weights[f"{node.name}.{name}"] = from_foreign(net, node, name, values)
    if unused := sorted(set(blobs) - set(graph.sources.values())):
        notes.append(f"weights of layers that the definition has not: {', '.join(unused)[:200]}")
    names = class_names(classes, net.classes or 0)
    origin = {"format": "caffe", "file": Path(caffemodel).name, "channels": order}
    return write_run(out, cfg, net, weights, preprocessing, names, origin, notes)


# ---- the definition ------------------------------------------------------------------------------


def _layers(net: Block) -> list[Block]:
    layers = [*net.all("layer", Block), *net.all("layers", Block)]
    if not layers:
        raise ExchangeError(f"{net.origin}: expected layers, as `layer {{ ... }}`; got none")
    return [layer for layer in layers if not is_for_training(layer)] or layers


def _in_shape(net: Block, layers: list[Block]) -> tuple[int, int, int]:
    """(H, W, C): of the input, or of the crop of its data."""
    dims = [int(each) for each in net.all("input_dim", int)]
    blocks = [
        net.block("input_shape"),
        *(each.block("input_param").block("shape") for each in layers),
    ]
    dims = next((each for each in [dims, *(block.all("dim", int) for block in blocks)] if each), [])
    if len(dims) == 4:
        return dims[2], dims[3], dims[1]
    crops = [layer.block("transform_param").one("crop_size", 0) for layer in layers]
    if not any(crops):
        raise ExchangeError(
            f"{net.origin}: expected input_dim, input_shape or a crop_size, got none: the size of "
            "the images is not known"
        )
    return max(crops), max(crops), 3


def _graph(net: Block, layers: list[Block], in_shape: tuple[int, int, int]) -> Graph:
    graph = Graph(in_shape)
    for name in net.all("input"):
        graph.tops[name] = (INPUT, in_shape)
    for layer in layers:
        add_layer(graph, layer)
    last = (graph.nodes[-1]["name"], ()) if graph.nodes else None
    scores = graph.loss or last
    if scores is None:
        raise ExchangeError(f"{net.origin}: expected layers that compute something, got none")
    loss = {"name": "loss", "type": "softmax_cross_entropy", "inputs": [scores[0]]}
    graph.nodes.append(loss)
    return graph


def _config(
    net: Block,
    graph: Graph,
    in_shape: tuple[int, int, int],
    mean: np.ndarray,
    scale: float,
    size: int,
) -> tuple[Config, Preprocessing]:
    height, width, _channels = in_shape
    of_mean = mean.shape[:2]
    sides = [
        size or (of_mean[at] if of_mean[0] > 1 else max(_SIDE, each))
        for at, each in enumerate((height, width))
    ]
    if of_mean not in ((1, 1), tuple(sides)):
        expected, got = ("x".join(map(str, each)) for each in (sides, of_mean))
        raise ExchangeError(f"mean: expected an image of {expected}, got {got}")
    name = "".join(c if c.isalnum() or c in "_-" else "-" for c in net.one("name", "")) or "caffe"
    table: dict[str, Any] = {
        "name": name[:60],
        "data": {"source": "folder", "size": sides},
        "augment": {"crop": [height, width], "mirror": True},
        "net": {"layers": graph.nodes},
    }
    return load_config(table), Preprocessing((sides[0], sides[1]), (height, width), mean, scale)


def _mean(
    transforms: list[Block], given: Sequence[float] | str | None, channels: int, order: str
) -> tuple[np.ndarray, list[str]]:
    """The mean, float32 [H, W, C] or [1, 1, C] in the order RGB; and what was assumed."""
    notes: list[str] = []
    if isinstance(given, str):
        mean = read_mean(Path(given)).transpose(1, 2, 0)
    else:
        values = list(given or ())
        for block in transforms if given is None else ():
            values = values or [float(each) for each in block.all("mean_value", float)]
        if not values:
            values = [*BGR_MEAN] if channels == 3 else [0.0] * channels
            values = values[::-1] if order == "RGB" else values
            named = next((block.one("mean_file", "") for block in transforms if block.items), "")
            image = f" in the place of {brief(named)} (--mean-file)" if named else " (--mean)"
            notes.append(f"no mean is given: {values} is subtracted{image}")
        values = values * channels if len(values) == 1 else values
        mean = np.asarray([[values]], np.float32)
    if mean.shape[2] != channels:
        raise ExchangeError(f"mean: expected {channels} channels, got {mean.shape[2]}")
    mean = mean[:, :, ::-1] if order == "BGR" and channels == 3 else mean
    return np.ascontiguousarray(mean), notes


# ---- the weights ---------------------------------------------------------------------------------


def _fitted(path: str, node: Node, blobs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """A layer's blobs by our names, in the shapes that they have to have.

    Raises: ExchangeError: there are none, or of other shapes.
    """
    names = [*parameters(node.layer)]
    if len(blobs) != len(names):
        expected = f"{len(names)} blobs of weights"
        raise ExchangeError(f"{path}: {node.name}: expected {expected}, got {len(blobs)}")
    found = {}
    for name, blob in zip(names, blobs, strict=True):
        shape = foreign_shape(node.layer, name)
        plain = tuple(side for side in blob.shape if side > 1)  # old files have four dimensions
        if blob.shape != shape and (
            math.prod(blob.shape) != math.prod(shape) or plain != tuple(s for s in shape if s > 1)
        ):
            raise ExchangeError(f"{path}: {node.name}: {name}: expected {shape}, got {blob.shape}")
        found[name] = blob.reshape(shape)
    return found


def _turned(path: str, node: Node, w: np.ndarray) -> np.ndarray:
    """Filters over BGR as filters over RGB."""
    if type(node.layer) is not Conv or node.layer.groups != 1:
        raise ExchangeError(
            f"{path}: {node.name}: expected a convolution over the image, whose channels can be "
            "turned from BGR to RGB; --order RGB leaves them as they are"
        )
    return w[:, ::-1]
