"""Layer definitions and parameters in cuda-convnet's format, for tests of the importer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convnet.exchange.cuda_convnet.convert import Imported, import_files
from convnet.nn.net import Net
from convnet.training.nets import build_net

Layers = dict[str, dict[str, Any]]

DATA = {"type": "data", "dataIdx": 0}
LABELS = {"type": "data", "dataIdx": 1}
RATES = {"epsW": 0.001, "epsB": 0.002, "momW": 0.9, "momB": 0.9, "wc": 0.004}
COST = {"coeff": 1}


def text(sections: Layers) -> str:
    """The sections as a file."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


def rates_for(layers: Layers) -> Layers:
    """The usual parameters for all layers that need some."""
    found: Layers = {}
    for name, keys in layers.items():
        kind = str(keys.get("type", ""))
        if kind in ("fc", "conv", "local"):
            found[name] = dict(RATES)
        elif kind in ("rnorm", "cnorm", "cmrnorm"):
            found[name] = {"scale": 0.001, "pow": 0.75}
        elif kind.startswith("cost."):
            found[name] = dict(COST)
    return found


def write(folder: Path, layers: Layers | str, params: Layers | str | None = None) -> list[Path]:
    """The two files."""
    params = rates_for(layers) if params is None and isinstance(layers, dict) else params or {}
    paths = [folder / "layers.cfg", folder / "params.cfg"]
    for path, sections in zip(paths, (layers, params), strict=True):
        content = text(sections) if isinstance(sections, dict) else sections
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return paths


def imported(
    folder: Path, layers: Layers | str, params: Layers | str | None = None, **options: Any
) -> Imported:
    """What the importer makes of them."""
    return import_files(*write(folder, layers, params), **options)


def fc(inputs: str, outputs: int = 10, **keys: Any) -> dict[str, Any]:
    return {"type": "fc", "inputs": inputs, "outputs": outputs, "initW": 0.05, **keys}


def conv(inputs: str, channels: int, filters: int = 4, **keys: Any) -> dict[str, Any]:
    usual = {"channels": channels, "filters": filters, "filterSize": 3, "padding": 1}
    return {"type": "conv", "inputs": inputs, **usual, "initW": 0.2, "sumWidth": 4, **keys}


def pool(inputs: str, channels: int, kind: str = "max", **keys: Any) -> dict[str, Any]:
    usual = {"pool": kind, "channels": channels, "sizeX": 3, "stride": 2}
    return {"type": "pool", "inputs": inputs, **usual, **keys}


def ended(layers: Layers, last: str, **keys: Any) -> Layers:
    """With data and labels before, and ten classes, a softmax and its cost after."""
    return {
        "data": dict(DATA),
        "labels": dict(LABELS),
        **layers,
        "fc10": fc(last, **keys),
        "probs": {"type": "softmax", "inputs": "fc10"},
        "logprob": {"type": "cost.logreg", "inputs": "labels,probs"},
    }


def cifar(folder: Path, count: int = 40, classes: int = 10) -> Path:
    """Images in CIFAR-10's binary version: each class has a colour and a bar of its own."""
    root = folder / "cifar-10-batches-bin"
    root.mkdir(parents=True)
    rng = np.random.default_rng(5)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        labels = np.arange(count) % classes
        images = rng.integers(0, 100, (count, 3, 32, 32))
        for image, label in zip(images, labels, strict=True):
            image[label % 3] += 60
            image[:, 3 * label : 3 * label + 3] += 90
        rows = np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1)
        (root / name).write_bytes(rows.astype(np.uint8).tobytes())
    words = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse")
    (root / "batches.meta.txt").write_text("\n".join([*words, "ship", "truck"]) + "\n")
    return root


def quick() -> tuple[Layers, Layers]:
    """The net for CIFAR-10 that takes 80 seconds (SEMANTICS: 145,578 parameters)."""
    layers = ended(
        {
            "conv1": conv("data", 3, 32, filterSize=5, padding=2, initW=0.0001),
            "pool1": pool("conv1", 32, neuron="relu", start=0, outputsX=0),
            "conv2": conv("pool1", 32, 32, filterSize=5, padding=2, initW=0.01, neuron="relu"),
            "pool2": pool("conv2", 32, "avg"),
            "conv3": conv("pool2", 32, 64, filterSize=5, padding=2, initW=0.01, neuron="relu"),
            "pool3": pool("conv3", 64, "avg"),
            "fc64": fc("pool3", 64, initW=0.1, neuron="relu"),
        },
        "fc64",
        initW=0.1,
    )
    params = rates_for(layers)
    for name in ("fc64", "fc10"):
        params[name]["wc"] = ".03"
    return layers, params


def imagenet() -> tuple[Layers, Layers]:
    """cuda-convnet2's net for ImageNet on one GPU (61,100,840 parameters, 714.2 M products)."""
    wide = {"filterSize": 3, "padding": 1, "initW": 0.03}
    layers: Layers = {
        "data": DATA,
        "labvec": LABELS,
        "conv1": conv("data", 3, 64, filterSize=11, padding=0, stride=4, initW=0.01, gpu=0),
        "rnorm1": {"type": "cmrnorm", "inputs": "conv1", "channels": 64, "size": 5},
        "pool1": pool("rnorm1", 64, neuron="relu"),
        "conv2": conv("pool1", 64, 192, filterSize=5, padding=2, initB=1, neuron="relu"),
        "rnorm2": {"type": "cmrnorm", "inputs": "conv2", "channels": 192, "size": 5},
        "pool2": pool("rnorm2", 192),
        "conv3": conv("pool2", 192, 384, **wide, neuron="relu"),
        "conv4": conv("conv3", 384, 256, **wide, initB=1, neuron="relu"),
        "conv5": conv("conv4", 256, 256, **wide, initB=1),
        "pool3": pool("conv5", 256, neuron="relu"),
        "fc4096a": fc("pool3", 4096, initB=1, neuron="relu"),
        "dropout1": {"type": "dropout2", "inputs": "fc4096a"},
        "fc4096b": fc("dropout1", 4096, initB=1, neuron="relu"),
        "dropout2": {"type": "dropout2", "inputs": "fc4096b"},
        "fc1000": fc("dropout2", 1000, initB=-7),
        "probs": {"type": "softmax", "inputs": "fc1000"},
        "logprob": {"type": "cost.logreg", "inputs": "labvec,probs"},
    }
    params = rates_for(layers)
    for keys in params.values():
        if "epsW" in keys:
            keys["epsW"] = "dexp[base=0.01;tgtFactor=250;numSteps=4]"
            keys["epsB"] = "dexp[base=0.02;tgtFactor=10;numSteps=2]"
            keys |= {"wc": 0.0005, "wball": "0.00", "updatePeriod": 1}
        if "scale" in keys:
            keys |= {"scale": 0.0001, "minDiv": 2}
    params |= {"dropout1": {"enable": "true"}, "dropout2": {"enable": "true"}}
    params["logprob"]["topk"] = 5
    return layers, params


def built(found: Imported, **options: Any) -> Net:
    """The net of what was imported, for CIFAR's images."""
    return build_net(found.cfg, (32, 32, 3), None, options.pop("device", "cpu"), **options)


def nodes(found: Imported) -> dict[str, Any]:
    """The layers of the configuration, by name."""
    return {layer.name: layer for layer in found.cfg.net.layers}


def remarks(found: Imported, kind: str = "changes") -> str:
    """The report's lines of a kind."""
    return "\n".join(map(str, getattr(found.report, kind)))
