"""Configurations read from TOML files, presets, dicts and overrides.

Reading is strict. An unknown key, a wrong type and a value out of range are each a `ConfigError`
that names the file, the dotted key, what was expected and what was found.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from convnet.common.own_code import OwnCodeError, find, is_own
from convnet.common.reading import TEXT, read_text
from convnet.common.typecheck import ConfigError, brief, did_you_mean, shown
from convnet.config.overrides import override
from convnet.config.reading import Place, Reader, Table, section
from convnet.config.renamed import rename
from convnet.config.schema import Config, GroupConfig, LayerConfig, NetConfig, ScheduleConfig
from convnet.config.toml_text import TomlError, from_toml

LAYER_WORDS = ("name", "type", "inputs", "share")  # of [[net.layers]]; the rest belong to the layer
# What a model gets from the data and the command.
MODEL_GETS = {"in_shape", "classes", "device", "devices", "seed", "trace", "precision"}


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
    folder: Path | None = None,
) -> Config:
    """Reads and checks a configuration.

    Args:
        source: a TOML file, the name of a preset, a dict of the same structure, or a Config.
        overrides: texts like "sgd.lr=0.1"; the value is TOML, and a bare word is a string.
            "schedule.kind=..." and "net.model=..." first clear the keys of the kind before.
        saved: a run has written it; old names in it are read without a note.
        folder: where files of one's own code are looked for first; None: beside the file.

    Returns: the configuration, with a default for every key that is not given.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or a value is wrong.
    """
    table, origin = _read(source)
    rename(table, origin, saved)
    for text in overrides:
        override(table, text)
        rename(table, origin, saved)
    return _config(table, origin, folder or _folder_of(source, origin))


def _folder_of(source: Any, origin: str) -> Path:
    """The folder of the file that a configuration came from; else the current one."""
    beside = Path(origin).parent if Path(origin).suffix == ".toml" else Path()
    return source.folder or beside if isinstance(source, Config) else beside


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


def _config(table: Table, origin: str, folder: Path) -> Config:
    readers: dict[type, Reader] = {NetConfig: functools.partial(_net, folder=folder)}
    readers |= {GroupConfig: _group, ScheduleConfig: _schedule}
    cfg: Config = section(Config, table, Place(origin), readers)
    small, large = cfg.augment.scale
    if small > large:
        got = shown(list(cfg.augment.scale))
        raise Place(origin, "augment.scale").error(f"expected [smallest, largest], got {got}")
    if "net" not in table:
        raise Place(origin, "net").error("missing; name a model or list [[net.layers]]")
    name = table.get("name", Path(origin).stem)
    if not name or any(char in name for char in "/\\\0") or name.startswith("."):
        raise Place(origin, "name").error(f"expected a name fit for a folder, got {shown(name)}")
    return dataclasses.replace(cfg, name=name, origin=origin, folder=folder)


def _net(table: Table, place: Place, folder: Path) -> NetConfig:
    from convnet import models  # they import the compiled backends

    def layer(table: Table, place: Place) -> LayerConfig:
        return _layer(table, place, folder)

    if ("model" in table) == ("layers" in table):
        place.known(table, [item.name for item in dataclasses.fields(NetConfig) if item.compare])
        raise place.error("expected either a model or [[net.layers]]")
    net: NetConfig = section(NetConfig, table, place, {LayerConfig: layer})
    options = place.at("options")
    if "layers" in table:
        if not net.layers:
            raise place.at("layers").error("expected [[net.layers]] tables")
        if "options" in table:
            raise options.error("only a model takes options")
        return net
    if is_own(net.model):
        model = _own(net.model, place.at("model"), folder)
    else:
        model = models.MODELS[place.at("model").name(net.model, "model", models.MODELS)]
    arguments = options.arguments(net.options, model, MODEL_GETS)
    return dataclasses.replace(net, options=arguments, function=model)


def _own(name: str, place: Place, folder: Path) -> Any:
    """Code that a key names. Raises: ConfigError: it is not allowed, or not there."""
    try:
        return find(name, folder)
    except OwnCodeError as error:
        raise place.error(str(error)) from None


def _layer(table: Table, place: Place, folder: Path) -> LayerConfig:
    from convnet.layers import LAYER_TYPES, Layer

    for word in ("name", "type"):
        if word not in table:
            raise place.at(word).error("missing")
    name = place.at("name").convert(table["name"], str)
    kind = place.at("type").convert(table["type"], str)
    place = Place(place.origin, f"{place.key} ({brief(name)})")
    there = Place(place.origin, f"{place.key}: type")
    if is_own(kind):
        made = _own(kind, there, folder)
        if not (isinstance(made, type) and issubclass(made, Layer)):
            raise there.error(f'"{brief(kind)}" is no class of layers')
    else:
        made = LAYER_TYPES[there.name(kind, "layer type", LAYER_TYPES)]
    inputs = table.get("inputs")
    words = {"inputs": [inputs] if isinstance(inputs, str) else inputs, "share": table.get("share")}
    rest = {word: value for word, value in table.items() if word not in LAYER_WORDS}
    options = place.arguments(rest, made)
    try:
        made(**options)
    except ValueError as error:
        raise place.error(str(error)) from None
    table = {"name": name, "type": kind, **words, "options": options}
    layer: LayerConfig = section(LayerConfig, table, place)
    return dataclasses.replace(layer, kind=made)


def _group(table: Table, place: Place) -> GroupConfig:
    group: GroupConfig = section(GroupConfig, table, place, {ScheduleConfig: _schedule})
    if group.schedule is not None and group.schedule.kind == "plateau":
        raise place.at("schedule.kind").error("plateau is for [schedule] only")
    if not group.params:
        raise place.at("params").error("missing; name some, as conv1.b")
    return group


def _schedule(table: Table, place: Place) -> ScheduleConfig:
    from convnet.optim import lr_schedule

    own = {word: table[word] for word in ("kind", "warmup_steps") if word in table}
    plain: ScheduleConfig = section(ScheduleConfig, own, place)
    kind = place.at("kind").name(plain.kind, "schedule", lr_schedule.SCHEDULES)
    rest = {word: value for word, value in table.items() if word not in own}
    options = place.arguments(rest, lr_schedule.SCHEDULES[kind], {"base"})
    try:
        lr_schedule.build(kind, 0.01, plain.warmup_steps, **options)
    except ValueError as error:
        raise place.error(str(error)) from None
    return dataclasses.replace(plain, options=options)
