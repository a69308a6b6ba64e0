"""Trains layers-145 of the paper's program, as imported, beside one tower of groups and `alexnet`.

    git clone https://github.com/computerhistory/AlexNet-Source-Code
    python tests/stress/paper_program_steps.py AlexNet-Source-Code/layers [--batch 128] [--steps 2]

All start from the same weights and see the same images, drawn at random, without dropout. The
second is what the definition says, written by hand with both towers as groups: its losses are those
of the imported net but for rounding. The preset is the net as the paper prints it; the third is the
imported net after the three changes that make it that, and its losses are the preset's.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np

from convnet import SGD, Net, Node, load_config
from convnet.exchange.cuda_convnet.convert import import_files
from convnet.layers import LRN, Conv, Dense, MapNorm, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.training.nets import net_of

State = dict[str, np.ndarray]
_RATES = ("w_lr", "b_lr", "w_decay", "b_decay")


def main() -> None:
    """Prints the losses of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("layers", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    folder, rng = arguments.layers, np.random.default_rng(0)
    files = folder / "layers-145.cfg", folder / "layer-params-145.cfg"
    table = import_files(*files, crop=224).cfg.to_dict()
    for layer in table["net"]["layers"]:  # without dropout, and with the usual rates
        layer.update({"drop": 0.0} if layer["type"] == "dropout" else {})
        for rate in _RATES:
            layer.pop(rate, None)
    table["sgd"].pop("groups", None)
    norm = next(layer for layer in table["net"]["layers"] if layer["type"] == "rnorm")
    coarse = rng.integers(0, 256, (arguments.batch, 14, 14, 3)).astype(np.float32) - 128
    x = coarse.repeat(16, axis=1).repeat(16, axis=2)
    labels = rng.integers(0, 1000, arguments.batch)
    net = net_of(load_config(table), "cpu")
    towers = {name: np.array(array) for name, array in net.state().items()}
    state = joined(towers)
    preset = load_config("alexnet", ["net.options.dropout=0"])
    makers = {
        "layers-145, imported": lambda: net,
        "the same, one tower of groups": lambda: one_tower(norm),
        "layers-145, as the paper prints it": lambda: net_of(load_config(as_printed(table)), "cpu"),
        "preset alexnet": lambda: net_of(preset, "cpu"),
    }
    for name, make in makers.items():
        made = make()
        if made is not net:
            made.load_state(towers if "conv1a.w" in made.state() else state)
        sgd = SGD(made.params, lr=0.01, momentum=0.9, weight_decay=0.0005)
        losses = [made.train_step(x, labels, sgd) for _ in range(arguments.steps)]
        print(f"{name}: {', '.join(f'{loss:.6f}' for loss in losses)}", flush=True)


def as_printed(table: dict[str, Any]) -> dict[str, Any]:
    """The imported net with a ReLU before its first norm, not after; norms of the sum, not of the
    mean; and no norm within maps."""
    layers = []
    for layer in copy.deepcopy(table["net"]["layers"]):
        name, tower = layer["name"], layer["name"][-1]
        if layer["type"] == "rnorm" or name in ("pool1a_neuron", "pool1b_neuron"):
            continue
        if layer["type"] == "lrn":
            layer["alpha_mode"] = "sum"
        if name.startswith("rnorm1"):
            layers.append({"name": f"relu1{tower}", "type": "relu", "inputs": [f"conv1{tower}"]})
            layer["inputs"] = [f"relu1{tower}"]
        if name.startswith("pool2"):
            layer["inputs"] = [f"rnorm2{tower}"]
        if name.startswith("conv2") and layer["type"] == "conv":
            layer["inputs"] = [f"pool1{tower}"]
        layers.append(layer)
    return {**table, "net": {**table["net"], "layers": layers}}


def one_tower(norm: dict[str, object]) -> Net:
    """What layers-145 says, with its two towers as groups."""
    lrn = {"n": 5, "k": 2.0, "alpha": 1e-4, "groups": 2, "alpha_mode": "mean"}
    within = {key: norm[key] for key in ("n", "alpha", "k", "beta", "alpha_mode") if key in norm}
    layers = {
        "conv1": Conv(96, 11, 4, rounding="ceil"),
        "lrn1": LRN(**lrn),  # type: ignore[arg-type]
        "pool1": MaxPool(3, 2),
        "relu1": ReLU(),
        "conv2": Conv(256, 5, pad=2, groups=2),
        "relu2": ReLU(),
        "lrn2": LRN(**lrn),  # type: ignore[arg-type]
        "rnorm2": MapNorm(**within),  # type: ignore[arg-type]
        "pool2": MaxPool(3, 2),
        "conv3": Conv(384, 3, pad=1),
        "relu3": ReLU(),
        "conv4": Conv(384, 3, pad=1, groups=2),
        "relu4": ReLU(),
        "conv5": Conv(256, 3, pad=1, groups=2),
        "pool5": MaxPool(3, 2),
        "relu5": ReLU(),
        "fc6": Dense(4096),
        "relu6": ReLU(),
        "fc7": Dense(4096),
        "relu7": ReLU(),
        "fc8": Dense(1000),
        "loss": SoftmaxCrossEntropy(),
    }
    return Net([Node(*item) for item in layers.items()], (224, 224, 3), device="cpu")


def joined(state: State) -> State:
    """The weights of both towers as those of one."""
    found: State = {}
    for i in (1, 2, 4, 5):
        for kind in "wb":
            towers = [state[f"conv{i}{tower}.{kind}"] for tower in "ab"]
            found[f"conv{i}.{kind}"] = np.concatenate(towers)
    for name, pair, inputs, axis in (
        ("conv3", ("conv3a", "conv3b"), ((0, 1), (0, 1)), 3),
        ("fc6", ("fc2048a", "fc2048b"), ((0, 1), (0, 1)), 3),
        ("fc7", ("fc2048ba", "fc2048bb"), ((0, 1), (1, 0)), 1),
        ("fc8", ("fc1000",), ((0, 1),), 1),
    ):
        rows = []
        for layer, order in zip(pair, inputs, strict=True):
            parts = [state[f"{layer}/{at}.w"] for at in order]
            if name == "fc6":  # images of 128 maps, side by side
                parts = [part.reshape(-1, 6, 6, 128) for part in parts]
            rows.append(np.concatenate(parts, axis))
        weights = np.concatenate(rows)
        found[f"{name}.w"] = weights.reshape(len(weights), -1) if name != "conv3" else weights
        found[f"{name}.b"] = np.concatenate([state[f"{layer}/0.b"] for layer in pair])
    return found


if __name__ == "__main__":
    main()
