"""Imports definitions of Caffe with weights drawn at random, and compares with PyTorch; a table.

    pip install torch
    git clone https://github.com/BVLC/caffe
    python tests/stress/caffe_definitions.py caffe/models/bvlc_*/{deploy,train_val}.prototxt

Nothing is fetched. PyTorch has Caffe's arithmetic: sizes of pools rounded up and clipped, `alpha`
of norms divided by the window. Inputs are a batch of two, drawn at random.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import torch
from foreign_files import caffemodel
from torch.nn import functional

from convnet.evaluation.evaluate import open_run
from convnet.exchange.caffe.importer import import_caffe
from convnet.exchange.caffe.layers import type_of
from convnet.exchange.caffe.prototxt import Block, read_prototxt
from convnet.nn.net import Net

Weights = dict[str, tuple[np.ndarray, ...]]
_NOTHING = {"Data", "Input", "Accuracy", "Silence"}  # layers that compute nothing here


def main() -> None:
    """Prints a line for each definition."""
    print("| definition | layers with weights | parameters | logits |\n|---|---|---|---|")
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            print(_row(Path(name), Path(folder)), flush=True)


def _row(definition: Path, folder: Path) -> str:
    model = folder / "random.caffemodel"
    weights: Weights = {}
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 50, _shape(definition))).float()
    with torch.no_grad():
        expected = scores(definition, x, weights).numpy()
    model.write_bytes(caffemodel(weights, old=False))
    found = import_caffe(definition, model, folder / "run")
    rgb = np.ascontiguousarray(x.numpy()[:, ::-1].transpose(0, 2, 3, 1))
    logits = _logits(open_run(found.run, "cpu").net, rgb)
    error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
    name = f"{definition.parent.name}/{definition.name}"
    return f"| `{name}` | {found.layers} | {found.parameters:,} | {error:.1e} |"


def _shape(definition: Path) -> tuple[int, int, int, int]:
    """Of a batch of two."""
    net = read_prototxt(definition)
    layers = [*net.all("layer", Block), *net.all("layers", Block)]
    dims = [int(each) for each in net.all("input_dim", int)]
    for layer in layers:
        dims = dims or [int(n) for n in layer.block("input_param").block("shape").all("dim", int)]
    crop = max(layer.block("transform_param").one("crop_size", 0) for layer in layers)
    channels, height, width = dims[1:] or (3, crop, crop)
    return 2, channels, height, width


def _logits(net: Net, x: np.ndarray) -> np.ndarray:
    loss = next(node for node in net.nodes if node.name == net.result)
    return net.forward(x, str(loss.inputs[0]))


def scores(definition: Path, x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """What goes into the softmax; the weights that are drawn for it are put into `weights`."""
    net, generator = read_prototxt(definition), torch.Generator().manual_seed(0)
    tops = {"data": x}
    for layer in [*net.all("layer", Block), *net.all("layers", Block)]:
        kind = type_of(layer)
        if kind in _NOTHING:
            continue
        inputs = [tops[name] for name in layer.all("bottom") if name in tops]
        if kind.startswith("Softmax"):
            return inputs[0]
        if kind in ("Convolution", "InnerProduct"):
            w, b = _drawn(layer, kind, inputs[0], generator)
            weights[layer.one("name", "")] = (w.numpy(), b.numpy())
            result = _weighted(layer, kind, inputs[0], w, b)
        else:
            result = _PLAIN[kind](layer, *inputs)
        tops |= dict.fromkeys(layer.all("top"), result)
    raise ValueError(f"{definition}: expected a softmax, got none")


def _drawn(layer: Block, kind: str, x: torch.Tensor, generator: torch.Generator) -> Any:
    """Weights under which the size of numbers stays what it is, and biases."""
    block = layer.block("convolution_param" if kind == "Convolution" else "inner_product_param")
    units = block.one("num_output", 0)
    if kind == "Convolution":
        side = block.one("kernel_size", 0)
        shape: tuple[int, ...] = (units, x.shape[1] // block.one("group", 1), side, side)
    else:
        shape = (units, x[0].numel())
    scale = (2 / np.prod(shape[1:])) ** 0.5
    return torch.randn(shape, generator=generator) * scale, torch.randn(units, generator=generator)


def _weighted(layer: Block, kind: str, x: torch.Tensor, w: Any, b: Any) -> torch.Tensor:
    if kind == "InnerProduct":
        return functional.linear(x.flatten(1), w, b)
    block = layer.block("convolution_param")
    stride, pad, groups = (
        block.one(key, n) for key, n in (("stride", 1), ("pad", 0), ("group", 1))
    )
    return functional.conv2d(x, w, b, stride, pad, 1, groups)


def _pool(layer: Block, x: torch.Tensor) -> torch.Tensor:
    block = layer.block("pooling_param")
    size, stride, pad = (
        block.one(k, n) for k, n in (("kernel_size", 1), ("stride", 1), ("pad", 0))
    )
    pool = functional.max_pool2d if block.one("pool", "MAX") == "MAX" else functional.avg_pool2d
    return pool(x, size, stride, pad, ceil_mode=True)


def _norm(layer: Block, x: torch.Tensor) -> torch.Tensor:
    block = layer.block("lrn_param")
    alpha, beta, k = (
        float(block.one(key, n)) for key, n in (("alpha", 1.0), ("beta", 0.75), ("k", 1.0))
    )
    return functional.local_response_norm(x, block.one("local_size", 5), alpha, beta, k)


_PLAIN: dict[str, Callable[..., torch.Tensor]] = {
    "ReLU": lambda layer, x: functional.relu(x),
    "Dropout": lambda layer, x: x,
    "Concat": lambda layer, *x: torch.cat(x, 1),
    "Pooling": _pool,
    "LRN": _norm,
}

if __name__ == "__main__":
    main()
