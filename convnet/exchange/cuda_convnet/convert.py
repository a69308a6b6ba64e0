"""`convnet import cuda-convnet`: a layer definition and its parameters, as a configuration.

docs/importing.md says what becomes of what. The files say nothing of the data, the size of the
batch, or how long to train: these were on cuda-convnet's command line, and are arguments here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convnet.common.typecheck import ConfigError, did_you_mean
from convnet.config import Config, load_config
from convnet.config.toml_text import to_toml
from convnet.data.sources import PUBLISHED
from convnet.exchange.cuda_convnet import costs, plain
from convnet.exchange.cuda_convnet.builder import Builder
from convnet.exchange.cuda_convnet.definition import Section, read_sections
from convnet.exchange.cuda_convnet.parametric import ParametricLayers, source_of
from convnet.exchange.cuda_convnet.rates import sgd_tables
from convnet.exchange.cuda_convnet.report import Report
from convnet.nn.net import Net
from convnet.training.nets import build_net

Shape = tuple[int, int, int]

_PARAMETRIC = ("fc", "conv", "local")
_NORMS = ("rnorm", "cnorm", "cmrnorm")
_TYPES: dict[str, plain.Translate] = {
    "data": plain.data,
    "pool": plain.pool,
    **dict.fromkeys(_NORMS, plain.norm),
    "neuron": plain.neuron,
    "softmax": plain.softmax,
    "dropout": plain.dropout,
    "dropout2": plain.dropout,
    "hs": plain.dropout,
    "blur": plain.blur,
    "nailbed": plain.nailbed,
    "eltsum": plain.eltsum,
    "eltmax": plain.eltmax,
    "concat": plain.concat,
    "pass": plain.concat,
    "crop": plain.crop,
    "cost.logreg": costs.logreg,
    "cost.ce": costs.logreg,
    "cost.crossent": costs.logreg,
    "cost.bce": costs.bce,
    "cost.dce": costs.bce,
    "cost.sum2": costs.sum2,
}
TYPES = (*_PARAMETRIC, *_TYPES)
# What nobody should carry over, and why.
_DATA_SIDE = "it varies the images and has no gradients; that is the loader's part: [augment]"
_TAGS = "it judges several tags of an image, and data sets here have one class for each"
DECLINED = {
    "treefc": "a tree of classes, which the data of its time had beside the images",
    "cost.crossent2": _TAGS,
    "cost.rflickr": _TAGS,
    "cost.msm": _TAGS,
    "cost.gsum2": "a sum of squares behind a gate, which no net of these sources uses",
    "cost.tica": "a cost without labels, which no net of these sources uses",
    "href": _DATA_SIDE,
    "resize": _DATA_SIDE,
    "rscale": _DATA_SIDE,
    "randscale": _DATA_SIDE,
    "rgb2yuv": _DATA_SIDE,
    "rgb2lab": _DATA_SIDE,
}
_END_OF_TRAINING = 1e-4  # rates of weights up to this are those of the end of training
_OLD_KEYS = {"numFilters": "filters", "numOutputs": "outputs", "subsX": "sizeX"}


@dataclass(frozen=True)
class Imported:
    """The configuration that two files were converted to.

    Attributes:
        cfg: the configuration.
        toml: the same as text, without the defaults.
        report: what to know of it.
        gpus: the GPUs that the definition names.
        net: its net: shapes alone, no weights.
        image: (H, W, C) of its data; outputs: how many classes these have.
        sources: name of a parameter -> the layer of the definition, and which of its matrices; -1
            for its biases.
    """

    cfg: Config
    toml: str
    report: Report
    gpus: list[int]
    net: Net
    image: Shape
    outputs: int
    sources: dict[str, tuple[str, int]]

    def text(self) -> str:
        """The report as text."""
        facts = [
            f"{self.cfg.name}: {len(self.cfg.net.layers)} layers, "
            f"{self.net.parameter_count:,} parameters, {self.net.macs / 1e6:,.1f} M multiply-adds "
            "forward per image"
        ]
        if len(self.gpus) > 1:
            names = ", ".join(map(str, self.gpus))
            facts.append(
                f"The definition names GPUs {names}. Here a net is divided among devices as a "
                "whole: --device cuda:0,cuda:1"
                + ("; among two at most" if len(self.gpus) > 2 else "")
            )
        return self.report.text(facts)


def import_files(
    definition: str | os.PathLike[str],
    parameters: str | os.PathLike[str],
    source: str = "",
    size: int = 256,
    crop: int = 0,
    batch: int = 128,
    epochs: int = 10,
    name: str = "",
) -> Imported:
    """Reads a layer definition and a layer parameter file.

    Args:
        definition: the layer definition file.
        parameters: the layer parameter file.
        source: `data.source` of the configuration; empty: chosen by the channels and classes of the
            net.
        size: height and width of the images of a folder, in pixels.
        crop: the side of the square that the net sees, cut out at random and mirrored in training;
            0 for the whole image.
        batch: images in a batch.
        epochs: epochs of training.
        name: name of the run; empty: that of the definition file.

    Raises:
        ConfigError: naming file, section and key.
        OSError: a file cannot be read.
    """
    report = Report()
    layers = read_sections(Path(definition), report)
    params = read_sections(Path(parameters), report)
    _check_types(layers, Path(definition))
    image, classes, source = _data(layers, source, size, report, str(definition))
    seen = (crop, crop, image[2]) if crop else image
    builder = Builder(layers, seen, classes)
    parametric = ParametricLayers(builder)
    _translate(builder, parametric, params, Path(parameters), report)
    nodes = builder.used_nodes()
    table = {
        "name": name or Path(definition).stem.replace(" ", "-").lstrip(".") or "imported",
        "seed": 1,
        "data": {"source": source, "mean": "image", "scale": 1.0},
        "augment": {"crop": [crop, crop], "mirror": True} if crop else {},
        "net": {"layers": nodes},
        **_learning(parametric, nodes, report, str(parameters)),
        "train": {"batch": batch, "epochs": epochs},
    }
    if source == "folder":
        table["data"]["size"] = [size, size]
    _assumed(report, source, image, crop, batch, epochs)
    table = {key: value for key, value in table.items() if value != {}}
    try:
        cfg = replace(load_config(table), origin=str(definition))
    except ConfigError as error:
        raise ConfigError(str(error).replace("configuration", str(definition), 1)) from None
    net = build_net(cfg, image, None, "cpu", sizes_only=True)
    text = to_toml(table)
    return Imported(cfg, text, report, builder.gpus, net, image, classes, parametric.sources)


def _check_types(layers: dict[str, Section], path: Path) -> None:
    if not layers:
        raise ConfigError(f"{path}: expected a [section] for each layer, got none")
    for section in layers.values():
        kind = section.text("type")
        if kind in DECLINED:
            raise section.error("type", f"{kind} is not carried over: {DECLINED[kind]}")
        if kind not in TYPES:
            raise section.error("type", f'unknown layer type "{kind}"{did_you_mean(kind, TYPES)}')


def _data(
    layers: dict[str, Section], source: str, size: int, report: Report, origin: str
) -> tuple[Shape, int, str]:
    """(H, W, C) of the images, the number of classes, and `data.source`."""
    classes = _outputs(layers)
    channels = _channels(layers)
    if not source:
        fits = [n for n, s in PUBLISHED.items() if (s.shape[2], s.classes) == (channels, classes)]
        source = fits[0] if fits else "folder"
        text = f"{channels} channels and {classes} classes: data.source = {source}; see --source"
        report.noted(origin, "", "", text)
    if known := PUBLISHED.get(source):
        return known.shape, known.classes, source
    return (size, size, 3), classes, source


def _channels(layers: dict[str, Section]) -> int:
    """Of the first layer that takes the data and says how many they have; else 3."""
    data = [
        n for n, s in layers.items() if s.text("type") == "data" and s.text("dataIdx", "") == "0"
    ]
    for section in layers.values():
        names = section.words("inputs", "")
        if "channels" in section and any(name in data for name in names):
            index = next(i for i, name in enumerate(names) if name in data)
            return section.integers("channels", len(names), least=1)[index]
    return 3


def _outputs(layers: dict[str, Section]) -> int:
    """Of the layer that the first cost with labels judges: its `outputs`, or 10."""
    for section in layers.values():
        if section.text("type").startswith("cost.") and section.text("type") != "cost.sum2":
            name = section.words("inputs", "")[-1]
            passed = set[str]()  # layers may name one another in a circle
            while name in layers and "outputs" not in layers[name] and name not in passed:
                passed.add(name)
                name = layers[name].words("inputs", "")[0]
            if name in layers and "outputs" in layers[name]:
                return layers[name].integer("outputs", least=1)
    return 10


def _translate(
    builder: Builder,
    parametric: ParametricLayers,
    params: dict[str, Section],
    path: Path,
    report: Report,
) -> None:
    """Adds all layers to the builder, in their order."""
    layers = builder.definition
    for section in layers.values():
        for old, new in _OLD_KEYS.items():
            section.rename(old, new)
        for word in filter(None, section.words("weightSource", "")):
            builder.taken.add(source_of(section, word))
    for name, section in layers.items():
        kind = section.text("type")
        if name not in params:
            if kind.startswith("cost."):
                raise ConfigError(f"{path}: [{name}] coeff: missing: the cost needs one")
            own = kind in _NORMS and "scale" in section and "pow" in section
            if kind in (*_PARAMETRIC, *_NORMS) and not own:
                text = f"the layer of this name (type {kind}) needs parameters"
                raise ConfigError(f"{path}: [{name}] missing: {text}")
        own_params = params.get(name) or Section(str(path), name, {}, {}, report)
        for word in filter(None, section.words("gpu", "")):
            index = section.read("gpu", word, int, "whole numbers")
            builder.gpus += [] if index in builder.gpus else [index]
        if kind in _PARAMETRIC:
            value = parametric(section, own_params)
        else:
            value = _TYPES[kind](builder, section, own_params)
        if not kind.startswith(("neuron", "data", "cost.")) and section.text("neuron", ""):
            below, text = builder.act(section, value), section.text("neuron")
            value = plain.apply_neuron(builder, section, below, f"{name}_neuron", text)
        builder.values[name] = replace(value, name=name)
        section.tell_unknown()
        own_params.tell_unknown()
    for name, section in params.items():
        if name not in layers:
            hint = did_you_mean(name, layers)
            hint = hint if "did you mean" in hint else ""
            section.ignored("", f"no layer has this name{hint}")


def _learning(
    parametric: ParametricLayers, nodes: list[dict[str, Any]], report: Report, origin: str
) -> dict[str, Any]:
    """The tables [sgd] and [schedule]; gives the nodes their multipliers."""
    names = {node["name"] for node in nodes}
    rates = {k: rate for k, rate in parametric.rates.items() if k.rpartition(".")[0] in names}
    if not rates:
        return {}
    sgd, schedule, multipliers = sgd_tables(rates)
    by_name = {node["name"]: node for node in nodes}
    for name, (lr, decay) in multipliers.items():
        node, _, word = name.rpartition(".")
        if lr != 1.0:
            by_name[node][f"{word}_lr"] = lr
        if decay != (1.0 if word == "w" else 0.0):
            by_name[node][f"{word}_decay"] = decay
    highest = max([rate.base for name, rate in rates.items() if name.endswith(".w")] or [1.0])
    if not any(rate.base > 0.0 for rate in rates.values()):
        report.noted(origin, "", "", "all learning rates are 0: nothing will be learned")
    elif highest <= _END_OF_TRAINING:
        text = (
            f"the learning rates of weights are at most {highest:g}, as at the end of training: "
            "from fresh weights next to nothing would be learned. --set sgd.lr=0.01 begins anew"
        )
        report.noted(origin, "", "", text)
    return {"sgd": sgd, "schedule": schedule} if schedule != {"kind": "constant"} else {"sgd": sgd}


def _assumed(report: Report, source: str, image: Shape, crop: int, batch: int, epochs: int) -> None:
    """Reports what the files do not say and was assumed."""
    size = "x".join(map(str, image))
    seen = f"crops of {crop}x{crop}, mirrored at random" if crop else "whole images"
    text = (
        f"not in the files, and assumed: {source} images of {size}, {seen}; batches of {batch};"
        f" {epochs} epochs. --source, --size, --crop, --batch and --epochs change them"
    )
    report.noted("", "", "", text)
    report.noted("", "", "", "pixels are 0 to 255 less the mean, as cuda-convnet fed them")
