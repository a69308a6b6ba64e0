"""Configurations of training runs: frozen dataclasses, which `convnet.config.load` reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from convnet.common.typecheck import ConfigError
from convnet.config.reading import setting
from convnet.config.toml_text import to_toml


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        source: the format of the data; "given": `convnet.train` was given the sets themselves.
        path: a folder or file; empty: $CONVNET_DATA, the system's data sets, the user's cache, the
            packaged sample.
        size: (height, width) in pixels of the images of a folder or of shards; (0, 0) where all of
            a folder have one size.
        resize: how images get that size: "crop": the shorter side is scaled to it and the centre
            taken; "pad": the longer side is, and the rest filled with the colour of the edges;
            "stretch": both sides are, whatever becomes of the proportions.
        val_fraction: part of a folder, or of shards, without train/ and val/ that is held out,
            in (0, 1).
        copies: which images of such a folder are copies of one another, and so on one side:
            "same": files with the same content; "similar": also images that look alike (needs
            imagehash).
        bad_files: what becomes of files of a folder that cannot be decoded.
        mean: what is subtracted: the mean image, one mean per channel, or nothing.
        scale: multiplies the difference; above 0; one number, or one for each channel.
        workers: processes that decode images that do not fit in memory (0: threads of the training
            process; "auto": by the number of CPUs); changes no result.
    """

    source: Literal[
        "fashion-mnist", "mnist", "cifar10", "cifar100", "folder", "webdataset", "given"
    ] = "fashion-mnist"
    path: str = ""
    size: tuple[int, int] = setting((0, 0), low=0, high=4096)
    resize: Literal["crop", "pad", "stretch"] = "crop"
    val_fraction: float = setting(0.1, above=0, below=1)
    copies: Literal["same", "similar"] = "same"
    bad_files: Literal["error", "skip"] = "error"
    mean: Literal["image", "channel", "none"] = "image"
    scale: float | tuple[float, ...] = setting(1 / 256, above=0)
    workers: int | Literal["auto"] = setting("auto", low=0, high=1024)


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied.

    Attributes:
        crop: (height, width) in pixels, cut at random places in training and from the centre
            otherwise; 0: the whole image.
        pad: pixels outside the image at which a crop may begin.
        mirror: flip half of the images.
        scale: (smallest, largest) size at which an image is shown, as a factor; 1 is its own.
        rotate: largest turn to either side, in degrees.
        colour_noise: standard deviation of the PCA noise (paper, section 4.1: 0.1).
    """

    crop: tuple[int, int] = setting((0, 0), low=0, high=4096)
    pad: int = setting(0, low=0, high=1024)
    mirror: bool = False
    scale: tuple[float, float] = setting((1.0, 1.0), low=0.1, high=10)
    rotate: float = setting(0.0, low=0, high=180)
    colour_noise: float = setting(0.0, low=0)


@dataclass(frozen=True)
class LayerConfig:
    """One node of a net.

    Attributes:
        name: of the node.
        type: of the layer, a key of `convnet.layers.LAYER_TYPES`, or "module:Class" of one's own.
        inputs: names of the nodes that it reads; None: the node above.
        share: a node whose parameters it uses; None: its own.
        options: keyword arguments of the layer's class.
        kind: the class; it is not part of the file.
    """

    name: str
    type: str
    inputs: tuple[str, ...] | None = None
    share: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class NetConfig:
    """The net: a function in `convnet.models`, or a list of layers.

    Attributes:
        model: name of the function, or "module:function" of one's own; empty where there are
            layers.
        options: its keyword arguments.
        layers: the nodes, from input to loss.
        init: a run or checkpoint from whose weights the net starts where they fit; or empty.
        lr_mult: factors of the learning rates of layers, by name, at least 0; 0 freezes one.
        function: the model's; it is not part of the file.
    """

    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerConfig, ...] = ()
    init: str = ""
    lr_mult: Mapping[str, float] = field(default_factory=dict, metadata={"low": 0})
    function: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes.

    Attributes:
        kind: of the schedule, a key of `convnet.optim.lr_schedule.SCHEDULES`.
        warmup_steps: steps over which the rate grows from near zero.
        options: the keys of that kind.
    """

    kind: str = "constant"
    warmup_steps: int = setting(0, low=0)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupConfig:
    """Parameters with a momentum or a schedule of their own.

    Attributes:
        params: names or patterns: "conv1.b", "*.b".
        momentum: in [0, 1); None: as all others.
        schedule: any but plateau; None: as all others.
    """

    params: tuple[str, ...] = ()
    momentum: float | None = setting(None, low=0, below=1)
    schedule: ScheduleConfig | None = None


@dataclass(frozen=True)
class SGDConfig:
    """The update rule of the paper, section 5.

    Attributes:
        lr: the learning rate at first, above 0.
        momentum: in [0, 1).
        weight_decay: of weights, at least 0; biases have none unless their layer says so.
        groups: parameters that are exceptions.
    """

    lr: float = setting(0.01, above=0)
    momentum: float = setting(0.9, low=0, below=1)
    weight_decay: float = setting(0.0005, low=0)
    groups: tuple[GroupConfig, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """The run itself.

    Attributes:
        batch: images per step, of all processes together.
        epochs: passes over the training data.
        sampling: "shuffle": an epoch shows every image once; "balanced": as many images, and as
            many of each class, so that those of small classes come several times.
        class_weights: factors of the loss of the images of each class in training: "none";
            "balanced", the inverse of how many there are; a table by name, in which 1 may be left
            out; or a list in the order of the classes. They are scaled to a mean of 1 over the
            training images.
        best: by what the best epoch is found: the highest top-1 or the lowest loss in validation.
        patience: epochs after the best one until the run ends early (0: it never does).
        checkpoint_steps: steps between checkpoints, besides those at the end of an epoch (0: only
            those).
        keep: how many of the newest checkpoints are kept, besides the best; at least 2.
        log_steps: steps that a line of metrics.jsonl sums up.
        threads: of the CPU (0: all cores).
        tensorboard: also write event files for TensorBoard.
        report: write report.html into the run's folder when the run is over.
        precision: of products (see `convnet.ops`), but for layers with one of their own; with
            "bf16" also of what is stored: activations and their gradients.
    """

    batch: int = setting(128, low=1)
    epochs: int = setting(10, low=1)
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    class_weights: Literal["none", "balanced"] | tuple[float, ...] | Mapping[str, float] = setting(
        "none", low=0
    )
    best: Literal["val_top1", "val_loss"] = "val_top1"
    patience: int = setting(0, low=0)
    checkpoint_steps: int = setting(500, low=0)
    keep: int = setting(2, low=2)
    log_steps: int = setting(50, low=1)
    threads: int = setting(0, low=0, high=1024)
    tensorboard: bool = False
    report: bool = True
    precision: Literal["fp32", "ffma", "tf32", "bf16"] = "fp32"


@dataclass(frozen=True)
class StepConfig:
    """How a step runs; changes no result.

    Attributes:
        graph: on GPUs as CUDA graphs: "auto" where that can be, "off" never, "force" or else an
            error.
        keep_gradients: leave the gradients of parameters in `Parameter.grad`, which takes memory.
    """

    graph: Literal["auto", "off", "force"] = "auto"
    keep_gradients: bool = False


@dataclass(frozen=True)
class Config:
    """A whole run; docs/configs.md describes every key.

    Attributes:
        name: of the run, and part of its folder's name.
        seed: of initial weights, data order, augmentation and dropout; 0 to 2^63 - 1.
        data, augment, net, sgd, schedule, train, step: the tables.
        origin: the file it came from, for messages; it is not part of the file.
        folder: where code of one's own is looked for first; neither is this.
    """

    name: str = "run"
    seed: int = setting(1, low=0, high=2**63 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    net: NetConfig = field(default_factory=NetConfig)
    sgd: SGDConfig = field(default_factory=SGDConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    step: StepConfig = field(default_factory=StepConfig)
    origin: str = field(default="configuration", compare=False)
    folder: Path | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values.

        Returns: dicts, lists and values, which `load_config` reads back to an equal Config.
        """
        table = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        del table["origin"], table["folder"]
        return {key: _plain(value) for key, value in table.items()}

    def to_toml(self) -> str:
        """The whole configuration, defaults included, as TOML text.

        Raises:
            ConfigError: a path in it is not UTF-8, as TOML is.
        """
        text = to_toml(self.to_dict())
        try:
            text.encode()
        except UnicodeEncodeError as error:
            line = text[: error.start].rpartition("\n")[2] + text[error.start :].partition("\n")[0]
            raise ConfigError(
                f"{self.origin}: expected text in UTF-8, which config.toml can hold, got {line!a}"
            ) from None
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, NetConfig):
        rest: dict[str, Any] = {"init": value.init} if value.init else {}
        rest |= {"lr_mult": dict(value.lr_mult)} if value.lr_mult else {}
        if value.layers:
            return {**rest, "layers": [_plain(layer) for layer in value.layers]}
        return {"model": value.model, "options": dict(value.options), **rest}
    if isinstance(value, (ScheduleConfig, LayerConfig)):
        own = (item.name for item in dataclasses.fields(value) if item.compare)
        table = {name: getattr(value, name) for name in own}
        options = table.pop("options")
        return {key: _plain(item) for key, item in {**table, **options}.items() if item is not None}
    if dataclasses.is_dataclass(value):  # None and () stand for keys that are not there
        items = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {key: _plain(item) for key, item in items.items() if item not in (None, ())}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
