"""Nets as other programs compute them, written out in NCHW and float64; and a run to export."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnet.config import load_config
from convnet.exchange.imported_run import Preprocessing, write_run
from convnet.training.nets import net_of

CLASSES = ("ant", "bee", "cat")
# A conv of groups, a pool that overlaps, a second image that becomes a row, dropout inverted.
SMALL = {
    "name": "small",
    "data": {"source": "folder", "size": [10, 12]},
    "net": {
        "layers": [
            {"name": "conv1", "type": "conv", "filters": 4, "size": 3, "stride": 2, "pad": 1},
            {"name": "relu1", "type": "relu"},
            {"name": "conv2", "type": "conv", "filters": 6, "size": 3, "pad": 1, "groups": 2},
            {"name": "pool2", "type": "maxpool", "size": 3, "stride": 2, "rounding": "floor"},
            {"name": "drop", "type": "dropout", "mode": "inverted"},
            {"name": "fc3", "type": "dense", "units": 5},
            {"name": "relu3", "type": "relu"},
            {"name": "fc4", "type": "dense", "units": 3},
            {"name": "loss", "type": "softmax_cross_entropy"},
        ]
    },
}


def small_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict of `SMALL`, in torch's order and layout."""
    rng = np.random.default_rng(seed)
    shapes = {"a.0": (4, 3, 3, 3), "a.2": (6, 2, 3, 3), "b.0": (5, 24), "b.2": (3, 5)}
    found = {}
    for name, shape in shapes.items():
        found[f"{name}.weight"] = np.float32(0.3) * rng.standard_normal(shape, dtype=np.float32)
        found[f"{name}.bias"] = rng.standard_normal(shape[0], dtype=np.float32)
    return found


def small_logits(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What torch computes of `SMALL`; x: [N, 3, 10, 12]."""
    weights = {name: values.astype(np.float64) for name, values in state.items()}
    x = np.maximum(conv(x, weights["a.0.weight"], weights["a.0.bias"], 2, 1), 0)
    x = conv(x, weights["a.2.weight"], weights["a.2.bias"], 1, 1, groups=2)
    x = pool(x, 3, 2).reshape(len(x), -1)
    x = np.maximum(x @ weights["b.0.weight"].T + weights["b.0.bias"], 0)
    return x @ weights["b.2.weight"].T + weights["b.2.bias"]


def conv(x, w, b, stride=1, pad=0, groups=1):
    """Cross-correlation of NCHW and KCRS."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    parts = zip(np.split(windows, groups, 1), np.split(w, groups), strict=True)
    return (
        np.concatenate([np.einsum("nchwrs,kcrs->nkhw", *part) for part in parts], 1)
        + (b[:, None, None])
    )


def pool(x, size, stride, take=np.max):
    """A pool without pads, sizes rounded down."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    return take(windows[:, :, ::stride, ::stride], axis=(4, 5))


def softmax(logits):
    """Of each row."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _random(param, rng) -> np.ndarray:
    """Values that keep the size of what a layer gives."""
    inputs = param.size // max(param.shape[0], 1) if param.name.endswith(".w") else 1
    inputs = inputs if len(param.shape) < 6 else param.shape[3] * param.shape[4] * param.shape[5]
    scale = np.float32(1 / np.sqrt(inputs)) if inputs > 1 else np.float32(0.1)
    return scale * rng.standard_normal(param.shape, dtype=np.float32)


def random_run(folder: Path, table: dict, classes: int = 3, seed: int = 0) -> Path:
    """A run of a configuration with random weights and a mean that is not 0."""
    cfg = load_config(table)
    net = net_of(cfg, "cpu", sizes_only=True)
    rng = np.random.default_rng(seed)
    weights = {
        param.name: _random(param, rng)
        for node in net.nodes
        if node.share is None
        for param in node.layer.params
    }
    height, width, channels = net.in_shape
    mean = rng.uniform(90, 150, (height, width, channels)).astype(np.float32)
    how = Preprocessing((height, width), (0, 0), mean, 1 / 128)
    names = [f"class {number}" for number in range(classes)]
    return write_run(folder, how.applied(cfg, channels), net, weights, how, names, {}).run
