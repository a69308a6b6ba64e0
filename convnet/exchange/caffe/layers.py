"""What each layer of Caffe is here: nodes of a configuration.

Sizes of convolutions are rounded down, of pools up and clipped, `alpha` of norms is divided by the
window, dropout is inverted, and images that become rows are C, H, W: so is the net made here.
Source: Caffe, src/caffe/proto/caffe.proto and src/caffe/layers/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from convnet.common.typecheck import brief, did_you_mean
from convnet.exchange.caffe.prototxt import Block
from convnet.layers import LAYER_TYPES
from convnet.layers.graph import INPUT

Shape = tuple[int, ...]

# The names of types before 2014 (`layers`), where they are not the new ones in capitals.
_V1_TYPES = {"INNER_PRODUCT": "InnerProduct", "SOFTMAX_LOSS": "SoftmaxWithLoss"}
_DATA = {"Data", "ImageData", "Input", "HDF5Data", "MemoryData", "WindowData", "DummyData"}
_LOSSES = {"Softmax", "SoftmaxWithLoss"}
_IGNORED = {"Accuracy", "Silence"}
_NAME = 80  # characters of a layer's name that a node keeps


class Graph:
    """The nodes so far.

    Args:
        in_shape: (H, W, C) of the input.

    Attributes:
        nodes: tables of `[[net.layers]]`.
        tops: Caffe's names of what layers give -> the node and its shape; None for labels.
        sources: node -> Caffe's layer, of nodes that have weights.
        loss: what the softmax takes, once there was one.
    """

    def __init__(self, in_shape: Shape) -> None:
        self.in_shape = in_shape
        self.nodes: list[dict[str, Any]] = []
        self.tops: dict[str, tuple[str, Shape] | None] = {}
        self.sources: dict[str, str] = {}
        self.loss: tuple[str, Shape] | None = None

    def add(
        self, layer: Block, kind: str, inputs: list[tuple[str, Shape]], **options: Any
    ) -> tuple[str, Shape]:
        """Adds a node; returns its name and the shape of its output."""
        base = re.sub(r"[^A-Za-z0-9_/-]", "_", layer.one("name", ""))[:_NAME] or kind
        taken, name, number = {INPUT, *(node["name"] for node in self.nodes)}, base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        try:
            made = LAYER_TYPES[kind](**options)
            made.sizes_only = True
            shapes = [shape for _, shape in inputs]
            given = shapes if made.multi_input else shapes[0]
            shape = tuple(made.setup(given, np.random.default_rng(0)))
        except ValueError as error:
            raise layer.error(base, str(error)) from None
        sources = [source for source, _ in inputs]
        self.nodes.append({"name": name, "type": kind, "inputs": sources, **options})
        if made.params:
            self.sources[name] = layer.one("name", "")
        return name, shape

    def inputs(self, layer: Block, least: int = 1, most: int = 1) -> list[tuple[str, Shape]]:
        """The outputs that a layer reads, but for labels."""
        found = []
        for name in layer.all("bottom"):
            if name not in self.tops:
                known = did_you_mean(name, self.tops)
                raise layer.error("bottom", f'no layer above gives "{brief(name)}"{known}')
            found += [each for each in (self.tops[name],) if each is not None]
        if not least <= len(found) <= most:
            raise layer.error("bottom", f"expected {least} of them, got {len(found)}")
        return found


Translate = Callable[[Graph, Block], tuple[str, Shape]]


def type_of(layer: Block) -> str:
    """The type of a layer, in today's spelling."""
    kind: str = layer.one("type", "")
    if kind in _V1_TYPES:
        return _V1_TYPES[kind]
    names = {name.upper(): name for name in (*_TYPES, *_DATA, *_LOSSES, *_IGNORED, "Split")}
    return names.get(kind.replace("_", ""), kind)


def add_layer(graph: Graph, layer: Block) -> None:
    """Adds what a layer is here, and remembers what it gives.

    Raises: ExchangeError: a layer that there is none like here, or options that it has not.
    """
    kind, tops = type_of(layer), layer.all("top")
    if kind in _DATA:
        for number, top in enumerate(tops):
            graph.tops[top] = (INPUT, graph.in_shape) if number == 0 else None
        return
    if kind in _IGNORED:
        return
    if kind in _LOSSES:
        graph.loss = graph.inputs(layer)[0]
        graph.tops |= dict.fromkeys(tops)
        return
    if kind == "Split":
        graph.tops |= dict.fromkeys(tops, graph.inputs(layer)[0])
        return
    if kind not in _TYPES:
        raise layer.error(
            "type", f'no layer here is like "{brief(kind)}"{did_you_mean(kind, _TYPES)}'
        )
    if any(param.one("name", "") for param in layer.all("param", Block)):
        raise layer.error("param", "weights that layers share by name are not carried over")
    graph.tops |= dict.fromkeys(tops, _TYPES[kind](graph, layer))


# ---- layers with weights -------------------------------------------------------------------------


def _pair(block: Block, name: str, default: int, stem: str = "") -> list[int]:
    """A size for rows and columns: `pad`, or `pad_h` and `pad_w`."""
    both = block.all(name, int)
    if len(both) > 2:
        raise block.error(name, f"expected one number or two, got {len(both)}")
    sides = [*both, *both][:2] if both else [default, default]
    stem = stem or name
    return [block.one(f"{stem}_{side}", sides[at]) for at, side in enumerate("hw")]


def _learned(layer: Block, block: Block) -> dict[str, Any]:
    """The initial weights and multipliers of a layer with weights."""
    options: dict[str, Any] = {"bias": block.one("bias_term", True)}
    filler, bias = block.block("weight_filler"), block.block("bias_filler")
    if filler.one("type", "") == "gaussian":
        options["std"] = float(filler.one("std", 1.0))
    elif filler.one("type", "") == "xavier":
        options["init"] = "xavier"
    if options["bias"] and bias.one("value", 0.0):
        options["bias_init"] = float(bias.one("value", 0.0))
    params = layer.all("param", Block)
    rates = [param.one("lr_mult", 1.0) for param in params] or layer.all("blobs_lr", float)
    decays = [param.one("decay_mult", 1.0) for param in params] or layer.all("weight_decay", float)
    for name, values in (("lr", rates), ("decay", decays)):
        for kind, value in zip("wb", values, strict=False):
            if kind == "w" or options["bias"]:
                options[f"{kind}_{name}"] = float(value)
    return options


def _convolution(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block = layer.block("convolution_param")
    if set(block.all("dilation", int)) - {1}:
        raise layer.error("dilation", "filters with gaps are not carried over")
    options = {
        "filters": block.one("num_output", 0),
        "size": _pair(block, "kernel_size", 0, "kernel"),
        "stride": _pair(block, "stride", 1),
        "pad": _pair(block, "pad", 0),
        "groups": block.one("group", 1),
    }
    return graph.add(layer, "conv", graph.inputs(layer), **options, **_learned(layer, block))


def _inner_product(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block = layer.block("inner_product_param")
    if block.one("axis", 1) != 1 or block.one("transpose", False):
        raise layer.error("inner_product_param", "axis and transpose are not carried over")
    options = {"units": block.one("num_output", 0), **_learned(layer, block)}
    return graph.add(layer, "dense", graph.inputs(layer), **options)


# ---- layers without weights ----------------------------------------------------------------------


def _pooling(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block, inputs = layer.block("pooling_param"), graph.inputs(layer)
    kind = block.one("pool", "MAX")
    if kind not in ("MAX", "AVE"):
        raise layer.error("pool", f"{brief(kind)} is not carried over; MAX and AVE are")
    size, pad = _pair(block, "kernel_size", 0, "kernel"), _pair(block, "pad", 0)
    if block.one("global_pooling", False):
        size = [*inputs[0][1][:2]]
    if any(pad) and kind == "AVE":
        raise layer.error(
            "pad", "Caffe counts zeros around the image in averages; not carried over"
        )
    options = {"size": size, "stride": _pair(block, "stride", 1), "pad": pad}
    rounding = "floor" if block.one("round_mode", "CEIL") == "FLOOR" else "ceil"
    name = "maxpool" if kind == "MAX" else "avgpool"
    return graph.add(layer, name, inputs, **options, rounding=rounding)


def _lrn(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block = layer.block("lrn_param")
    options = {"n": block.one("local_size", 5), "alpha_mode": "mean"}
    options |= {name: float(block.one(name, default)) for name, default in _LRN.items()}
    within = block.one("norm_region", "ACROSS_CHANNELS") == "WITHIN_CHANNEL"
    if within:
        options["k"] = 1.0  # Caffe reads `k` across channels only
    return graph.add(layer, "rnorm" if within else "lrn", graph.inputs(layer), **options)


_LRN = {"alpha": 1.0, "beta": 0.75, "k": 1.0}


def _relu(graph: Graph, layer: Block) -> tuple[str, Shape]:
    if layer.block("relu_param").one("negative_slope", 0.0):
        raise layer.error("negative_slope", "leaky ReLUs are not carried over")
    return graph.add(layer, "relu", graph.inputs(layer))


def _plain(kind: str) -> Translate:
    """A layer without options."""
    return lambda graph, layer: graph.add(layer, kind, graph.inputs(layer))


def _dropout(graph: Graph, layer: Block) -> tuple[str, Shape]:
    drop = float(layer.block("dropout_param").one("dropout_ratio", 0.5))
    return graph.add(layer, "dropout", graph.inputs(layer), drop=drop, mode="inverted")


def _flatten(graph: Graph, layer: Block) -> tuple[str, Shape]:
    inputs = graph.inputs(layer)
    return graph.add(layer, "flatten_chw", inputs) if len(inputs[0][1]) == 3 else inputs[0]


def _power(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block = layer.block("power_param")
    if block.one("power", 1.0) != 1.0:
        raise layer.error("power", "powers other than 1 are not carried over")
    numbers = {"a": float(block.one("scale", 1.0)), "b": float(block.one("shift", 0.0))}
    return graph.add(layer, "affine", graph.inputs(layer), **numbers)


def _concat(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block, inputs = layer.block("concat_param"), graph.inputs(layer, 1, 64)
    if block.one("axis", 1) != 1 or block.one("concat_dim", 1) != 1:
        raise layer.error("axis", "only channels are concatenated here")
    return graph.add(layer, "concat", inputs) if len(inputs) > 1 else inputs[0]


def _eltwise(graph: Graph, layer: Block) -> tuple[str, Shape]:
    block, inputs = layer.block("eltwise_param"), graph.inputs(layer, 2, 64)
    kind = block.one("operation", "SUM")
    if kind not in ("SUM", "MAX"):
        raise layer.error("operation", f"{brief(kind)} is not carried over; SUM and MAX are")
    coeffs = [float(each) for each in block.all("coeff", float)]
    options = {"coeffs": coeffs} if coeffs and kind == "SUM" else {}
    return graph.add(layer, kind.lower(), inputs, **options)


_TYPES: dict[str, Translate] = {
    "Convolution": _convolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "LRN": _lrn,
    "ReLU": _relu,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Power": _power,
    "Concat": _concat,
    "Eltwise": _eltwise,
    "TanH": _plain("tanh"),
    "Sigmoid": _plain("sigmoid"),
    "AbsVal": _plain("abs"),
    "BNLL": _plain("softplus"),
}


def is_for_training(layer: Block) -> bool:
    """Whether a layer is in the net of the training phase only."""
    phases = [rule.one("phase", "") for rule in layer.all("include", Block)]
    return bool(phases) and "TEST" not in phases
