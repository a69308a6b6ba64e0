"""Configurations of training runs: frozen dataclasses, read from TOML and written back.

Reading is strict. An unknown key, a wrong type and a value out of range are each a `ConfigError`
that names the file, the dotted key, what was expected and what was found.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from convnet.common.reading import TEXT, read_text
from convnet.common.typecheck import (
    ConfigError,
    arguments,
    brief,
    did_you_mean,
    expect_table,
    known_keys,
    section,
    shown,
    typed,
    value_of,
)
from convnet.config.overrides import override
from convnet.config.renamed import rename
from convnet.config.toml_text import TomlError, from_toml, to_toml

LAYER_WORDS = ("name", "type", "inputs", "share")  # of [[net.layers]]; the rest belong to the layer
# What a model gets from the data and the command.
MODEL_GETS = {"in_shape", "classes", "device", "devices", "seed", "trace", "precision"}


def _setting(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> Any:
    """A field with limits: low and high are allowed values themselves, above and below are not."""
    limits = {"low": low, "above": above, "high": high, "below": below}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    `source` names the format; `path` a folder or file (empty: $CONVNET_DATA, the system's data
    sets, the user's cache, the packaged sample). `size` (height, width) is for folders of
    images: the shorter side is scaled to it and the centre taken; `val_fraction` is held out
    where there are no train/ and val/ folders; `bad_files` says what becomes of files that cannot
    be decoded. `mean` says what is subtracted: an image, one value a channel, or nothing; `scale`
    multiplies the difference.
    `workers` is how many processes decode images that do not fit in memory (0: threads of the
    training process; "auto": by the number of CPUs); it changes no result.
    """

    source: Literal["fashion-mnist", "mnist", "cifar10", "cifar100", "folder"] = "fashion-mnist"
    path: str = ""
    size: tuple[int, int] = _setting((0, 0), low=0, high=4096)
    val_fraction: float = _setting(0.1, above=0, below=1)
    bad_files: Literal["error", "skip"] = "error"
    mean: Literal["image", "channel", "none"] = "image"
    scale: float = _setting(1 / 256, above=0)
    workers: int | Literal["auto"] = _setting("auto", low=0, high=1024)


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied.

    `crop` (height, width; 0 for the whole image) is cut at random when training and from the
    centre otherwise; `pad` lets it start that many pixels outside; `mirror` flips half of the
    images; `colour_noise` is the standard deviation of the PCA noise (paper, section 4.1: 0.1).
    """

    crop: tuple[int, int] = _setting((0, 0), low=0, high=4096)
    pad: int = _setting(0, low=0, high=1024)
    mirror: bool = False
    colour_noise: float = _setting(0.0, low=0)


@dataclass(frozen=True)
class LayerConfig:
    """One node of a net: `inputs` are names of nodes (None: the node above), `share` is a node
    whose parameters it uses, `options` are the keyword arguments of the layer class `type`."""

    name: str
    type: str
    inputs: tuple[str, ...] | None = None
    share: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetConfig:
    """The net: a function in `convnet.models` with its options, or a list of layers.

    `init` is a run, or a checkpoint, whose weights it starts from where they fit; `lr_mult`
    multiplies the learning rates of layers, by name: 0 freezes one.
    """

    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerConfig, ...] = ()
    init: str = ""
    lr_mult: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves: a kind and that kind's own keys, see
    `convnet.optim.lr_schedule`; over the first `warmup_steps` steps it grows from near zero."""

    kind: str = "constant"
    warmup_steps: int = _setting(0, low=0)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupConfig:
    """Parameters ("conv1.b", "*.b") with a momentum or a schedule of their own."""

    params: tuple[str, ...] = ()
    momentum: float | None = _setting(None, low=0, below=1)
    schedule: ScheduleConfig | None = None


@dataclass(frozen=True)
class SGDConfig:
    """The update rule of the paper, section 5; `groups` are exceptions, by parameter."""

    lr: float = _setting(0.01, above=0)
    momentum: float = _setting(0.9, low=0, below=1)
    weight_decay: float = _setting(0.0005, low=0)
    groups: tuple[GroupConfig, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """The run itself.

    `checkpoint_steps`: steps between checkpoints, besides those at the end of an epoch (0: only
    those). `keep`: checkpoints kept besides the best one. `log_steps`: steps a line of
    metrics.jsonl sums up. `threads`: CPU threads (0: all cores). `tensorboard`: also write event
    files for TensorBoard. `precision`: in which products are formed (see `convnet.ops`), but for
    layers with one of their own.
    """

    batch: int = _setting(128, low=1)
    epochs: int = _setting(10, low=1)
    checkpoint_steps: int = _setting(500, low=0)
    keep: int = _setting(2, low=2)
    log_steps: int = _setting(50, low=1)
    threads: int = _setting(0, low=0, high=1024)
    tensorboard: bool = False
    precision: Literal["fp32", "ffma", "tf32", "bf16"] = "fp32"


@dataclass(frozen=True)
class StepConfig:
    """How a step runs. `graph`: on GPUs as CUDA graphs: "auto" where that can be, "off" never,
    "force" or else an error. `fuse_update`: gradients of parameters are not kept. Neither changes a
    result.
    """

    graph: Literal["auto", "off", "force"] = "auto"
    fuse_update: bool = True


@dataclass(frozen=True)
class Config:
    """A whole run. `origin` is the file it came from, for messages; it is not part of the file."""

    name: str = "run"
    seed: int = _setting(1, low=0, high=2**63 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    net: NetConfig = field(default_factory=NetConfig)
    sgd: SGDConfig = field(default_factory=SGDConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    step: StepConfig = field(default_factory=StepConfig)
    origin: str = field(default="configuration", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and values: what `load_config` reads back to an equal Config."""
        table = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        del table["origin"]
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
        table = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        options = table.pop("options")
        return {key: _plain(item) for key, item in {**table, **options}.items() if item is not None}
    if dataclasses.is_dataclass(value):  # None and () stand for keys that are not there
        items = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {key: _plain(item) for key, item in items.items() if item not in (None, ())}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


# ---- reading ------------------------------------------------------------------------------------


def presets() -> dict[str, str]:
    """The packaged configurations: name -> the first comment line of the file."""
    found = {}
    for entry in resources.files("convnet.config").joinpath("presets").iterdir():
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").partition("\n")[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ").strip()
    return dict(sorted(found.items()))


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any] | Config,
    overrides: Iterable[str] = (),
    *,
    saved: bool = False,
) -> Config:
    """Reads and checks a configuration.

    Args:
        source: a TOML file, the name of a preset, a dict of the same structure, or a Config.
        overrides: texts like "sgd.lr=0.1"; the value is TOML, and a bare word is a string.
            "schedule.kind=..." and "net.model=..." first clear the keys of the kind before.
        saved: a run has written it; old names in it are read without a note.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or a value is wrong.
    """
    table, origin = _read(source)
    for text in overrides:
        override(table, text)
    rename(table, origin, saved)
    return _config(table, origin)


def _read(source: Any) -> tuple[dict[str, Any], str]:
    """The raw table and the name to use in messages."""
    if isinstance(source, Config):
        return source.to_dict(), source.origin
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source)), "configuration"
    text = os.fspath(source)
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        try:
            return _parse(read_text(path, TEXT), text), text
        except FileNotFoundError:
            raise ConfigError(f"{text}: no such file") from None
        except IsADirectoryError:
            raise ConfigError(f"{text}: expected a TOML file, got a folder") from None
        except OSError as error:
            raise ConfigError(f"{text}: expected a TOML file, got {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{text}: not UTF-8 text (byte {error.start})") from None
    if text not in (known := presets()):
        raise ConfigError(f'"{text}": no such file or preset{did_you_mean(text, known)}')
    packaged = resources.files("convnet.config").joinpath("presets", f"{text}.toml")
    return _parse(packaged.read_text(encoding="utf-8"), text), text


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        return from_toml(text)
    except TomlError as error:
        raise ConfigError(f"{origin}: {error}") from None


# ---- checking -----------------------------------------------------------------------------------


def _config(table: Mapping[str, Any], origin: str) -> Config:
    fields = {item.name: item for item in dataclasses.fields(Config) if item.name != "origin"}
    known_keys(table, fields, "", origin)
    sections: dict[str, Callable[[Any, str, str], Any]] = {
        "data": lambda value, key, where: section(DataConfig, value, key, where),
        "augment": lambda value, key, where: section(AugmentConfig, value, key, where),
        "net": _net,
        "sgd": _sgd,
        "schedule": _schedule,
        "train": lambda value, key, where: section(TrainConfig, value, key, where),
        "step": lambda value, key, where: section(StepConfig, value, key, where),
    }
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in sections:
            expect_table(value, key, origin)
            values[key] = sections[key](value, key, origin)
        else:
            values[key] = value_of(value, str if key == "name" else int, fields[key], key, origin)
    if "net" not in values:
        raise ConfigError(f"{origin}: net: missing; name a model or list [[net.layers]]")
    name = values.get("name", Path(origin).stem)
    if not name or any(char in name for char in "/\\\0") or name.startswith("."):
        raise ConfigError(f"{origin}: name: expected a name fit for a folder, got {shown(name)}")
    return Config(**{**values, "name": name}, origin=origin)


def _net(table: Mapping[str, Any], key: str, origin: str) -> NetConfig:
    from convnet import layers, models  # they import the compiled backends

    known_keys(table, [item.name for item in dataclasses.fields(NetConfig)], f"{key}.", origin)
    if ("model" in table) == ("layers" in table):
        raise ConfigError(f"{origin}: {key}: expected either a model or [[net.layers]]")
    start: dict[str, Any] = {"init": typed(table.get("init", ""), str, f"{key}.init", origin)}
    start["lr_mult"] = _multipliers(table.get("lr_mult", {}), f"{key}.lr_mult", origin)
    if "layers" in table:
        if "options" in table:
            raise ConfigError(f"{origin}: {key}.options: only a model takes options")
        return NetConfig(layers=_layers(table["layers"], layers.LAYER_TYPES, origin), **start)
    name = typed(table["model"], str, f"{key}.model", origin)
    if name not in models.MODELS:
        hint = did_you_mean(name, models.MODELS)
        raise ConfigError(f'{origin}: {key}.model: unknown model "{brief(name)}"{hint}')
    options = typed(table.get("options", {}), dict, f"{key}.options", origin)
    checked = arguments(options, models.MODELS[name], MODEL_GETS, f"{key}.options", origin)
    return NetConfig(model=name, options=checked, **start)


def _multipliers(table: Any, key: str, origin: str) -> dict[str, float]:
    expect_table(table, key, origin)
    found = {name: typed(value, float, f"{key}.{name}", origin) for name, value in table.items()}
    for name, value in found.items():
        if value < 0.0:
            raise ConfigError(f"{origin}: {key}.{name}: expected a value >= 0, got {value}")
    return found


def _layers(items: Any, types: Mapping[str, type], origin: str) -> tuple[LayerConfig, ...]:
    if not isinstance(items, list) or not items:
        raise ConfigError(f"{origin}: net.layers: expected [[net.layers]] tables")
    found: list[LayerConfig] = []
    for number, item in enumerate(items):
        key = f"net.layers[{number}]"
        expect_table(item, key, origin)
        for word in ("name", "type"):
            if word not in item:
                raise ConfigError(f"{origin}: {key}.{word}: missing")
        name = typed(item["name"], str, f"{key}.name", origin)
        kind = typed(item["type"], str, f"{key}.type", origin)
        key = f"{key} ({brief(name)})"
        if kind not in types:
            hint = did_you_mean(kind, types)
            raise ConfigError(f'{origin}: {key}: type: unknown layer type "{brief(kind)}"{hint}')
        inputs = item.get("inputs")
        if inputs is not None:
            inputs = typed(
                [inputs] if isinstance(inputs, str) else inputs,
                tuple[str, ...],
                f"{key}.inputs",
                origin,
            )
        rest = {word: value for word, value in item.items() if word not in LAYER_WORDS}
        options = arguments(rest, types[kind], set(), key, origin)
        try:
            types[kind](**options)
        except ValueError as error:
            raise ConfigError(f"{origin}: {key}: {error}") from None
        share = item.get("share")
        if share is not None:
            share = typed(share, str, f"{key}.share", origin)
        found.append(LayerConfig(name, kind, inputs, share, options))
    return tuple(found)


def _sgd(table: Mapping[str, Any], key: str, origin: str) -> SGDConfig:
    table, groups = dict(table), []
    items = table.pop("groups", [])
    if not isinstance(items, list):
        raise ConfigError(f"{origin}: {key}.groups: expected [[sgd.groups]] tables")
    for number, item in enumerate(items):
        here = f"{key}.groups[{number}]"
        expect_table(item, here, origin)
        rest, own = {k: v for k, v in item.items() if k != "schedule"}, None
        if "schedule" in item:
            expect_table(item["schedule"], f"{here}.schedule", origin)
            own = _schedule(item["schedule"], f"{here}.schedule", origin)
            if own.kind == "plateau":
                raise ConfigError(f"{origin}: {here}.schedule.kind: plateau is for [schedule] only")
        groups.append(dataclasses.replace(section(GroupConfig, rest, here, origin), schedule=own))
        if not groups[-1].params:
            raise ConfigError(f"{origin}: {here}.params: missing; name some, as conv1.b")
    return dataclasses.replace(section(SGDConfig, table, key, origin), groups=tuple(groups))


def _schedule(table: Mapping[str, Any], key: str, origin: str) -> ScheduleConfig:
    from convnet.optim import lr_schedule

    kind = typed(table.get("kind", "constant"), str, f"{key}.kind", origin)
    if kind not in lr_schedule.SCHEDULES:
        hint = did_you_mean(kind, lr_schedule.SCHEDULES)
        raise ConfigError(f'{origin}: {key}.kind: unknown schedule "{brief(kind)}"{hint}')
    shared = {word: table[word] for word in ("warmup_steps",) if word in table}
    plain = section(ScheduleConfig, shared, key, origin)
    rest = {word: value for word, value in table.items() if word not in ("kind", "warmup_steps")}
    options = arguments(rest, lr_schedule.SCHEDULES[kind], {"base"}, key, origin)
    try:
        lr_schedule.build(kind, 0.01, plain.warmup_steps, **options)
    except ValueError as error:
        raise ConfigError(f"{origin}: {key}: {error}") from None
    return dataclasses.replace(plain, kind=kind, options=options)
