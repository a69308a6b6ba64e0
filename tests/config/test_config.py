"""Configurations: strictness, overrides, presets, and writing what was read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from convnet.common.typecheck import convert, describe
from convnet.config import Config, ConfigError, load_config, presets
from convnet.config.toml_text import to_toml


def message(table: Any, *overrides: str) -> str:
    """The error that a configuration gives; one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(table, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_preset_loads_and_survives_writing() -> None:
    assert {"fashion-mnist", "mnist", "cifar10-quick", "folder"} <= set(presets())
    for name, text in presets().items():
        cfg = load_config(name)
        assert cfg.name == name
        assert text
        assert load_config(tomllib.loads(cfg.to_toml())) == cfg


def test_defaults_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[net]\nmodel = "fashion_mnist"\n')
    table = tomllib.loads(load_config(path).to_toml())
    assert table["name"] == "a"
    assert table["sgd"] == {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}
    assert table["train"]["batch"] == 128


def test_file_dict_and_config_give_the_same(tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path / "tiny.toml", tmp_path)
    from_file = load_config(path)
    assert load_config(tiny.config(tmp_path)) == from_file == load_config(str(path))
    assert load_config(from_file) == from_file
    assert isinstance(from_file, Config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sgdd": {}}, 'sgdd: unknown key; did you mean "sgd"?'),
        ({"sgd": {"momentun": 0.9}}, 'sgd.momentun: unknown key; did you mean "momentum"?'),
        ({"sgd": {"lr": "fast"}}, 'sgd.lr: expected a number, got "fast"'),
        ({"sgd": {"lr": True}}, "sgd.lr: expected a number, got true"),
        ({"sgd": {"lr": 0}}, "sgd.lr: expected a value > 0, got 0"),
        ({"sgd": {"lr": float("nan")}}, "sgd.lr: expected a finite number, got nan"),
        ({"sgd": {"lr": 10**400}}, "sgd.lr: expected a finite number, got 1000"),
        ({"sgd": {"momentum": 1.0}}, "sgd.momentum: expected a value >= 0 and < 1, got 1.0"),
        ({"train": {"batch": 1.5}}, "train.batch: expected an integer, got 1.5"),
        ({"train": {"batch": 0}}, "train.batch: expected a value >= 1, got 0"),
        ({"train": {"keep": 1}}, "train.keep: expected a value >= 2, got 1"),
        ({"seed": -1}, "seed: expected a value >= 0"),
        ({"name": "a/b"}, 'name: expected a name fit for a folder, got "a/b"'),
        ({"augment": {"crop": [1, 2, 3]}}, "augment.crop: expected a list of 2 integers"),
        ({"augment": {"crop": 28}}, "augment.crop: expected a list of 2 integers, got 28"),
        ({"data": {"source": "imagenet"}}, 'data.source: expected one of "fashion-mnist", '),
        ({"data": {"val_fraction": 1}}, "data.val_fraction: expected a value > 0 and < 1"),
        ({"schedule": {"kind": "plato"}}, 'unknown schedule "plato"; did you mean "plateau"?'),
        ({"schedule": {"every": 5}}, "schedule.every: unknown key (known: drops, factor"),
        ({"schedule": {"patience": 0}}, "schedule: patience: expected a whole number"),
        ({"schedule": {"warmup_steps": -1}}, "schedule.warmup_steps: expected a value >= 0"),
        ({"net": {"model": "alexnett"}}, 'net.model: unknown model "alexnett"; did you mean'),
        ({"net": {"model": "small", "options": {"widht": 3}}}, 'did you mean "width"?'),
        (
            {"net": {"model": "small", "options": {"classes": 3}}},
            "net.options.classes: unknown key",
        ),
        ({"net": {}}, "net: expected either a model or [[net.layers]]"),
        ({"net": 3}, "net: expected a table, got 3"),
        ({"net": {"layers": []}}, "net.layers: expected [[net.layers]] tables"),
    ],
)
def test_bad_values_name_the_key(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = tiny.write_config(tmp_path / "bad.toml", tmp_path, **changes)
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert expected in text


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"type": "conv"}, "net.layers[0].name: missing"),
        ({"name": "a"}, "net.layers[0].type: missing"),
        ({"name": "a", "type": "Conv"}, 'unknown layer type "Conv"; did you mean "conv"?'),
        ({"name": "a", "type": "conv", "size": 3}, "net.layers[0] (a).filters: missing"),
        (
            {"name": "a", "type": "conv", "filters": 4, "size": 3, "strid": 2},
            'net.layers[0] (a).strid: unknown key; did you mean "stride"?',
        ),
        (
            {"name": "a", "type": "conv", "filters": "4", "size": 3},
            'net.layers[0] (a).filters: expected an integer, got "4"',
        ),
        (
            {"name": "a", "type": "conv", "filters": 4, "size": [3, 3, 3]},
            "size: expected an integer or a list of 2 integers, got [3, 3, 3]",
        ),
        (
            {"name": "a", "type": "conv", "filters": 4, "size": 3, "init": 5},
            "init: expected a string, got 5",
        ),
        (
            {"name": "a", "type": "conv", "filters": 0, "size": 3},
            "net.layers[0] (a): filters: expected a whole number, at least 1",
        ),
        ({"name": "a", "type": "relu", "inputs": 3}, "inputs: expected a list of strings, got"),
    ],
)
def test_bad_layers_name_the_layer(tmp_path: Path, layer: dict[str, Any], expected: str) -> None:
    assert expected in message(tiny.config(tmp_path, net={"layers": [layer]}))


def test_layer_options_inputs_and_share_are_kept(tmp_path: Path) -> None:
    layers = [
        {"name": "a", "type": "conv", "filters": 4, "size": [3, 5], "std": 1},
        {
            "name": "b",
            "type": "conv",
            "filters": 4,
            "size": [3, 5],
            "inputs": "input",
            "share": "a",
        },
        {"name": "c", "type": "sum", "inputs": ["a", "b"]},
    ]
    a, b, c = load_config(tiny.config(tmp_path, net={"layers": layers})).net.layers
    assert a.options == {"filters": 4, "size": (3, 5), "std": 1.0}
    assert (a.inputs, b.inputs, c.inputs) == (None, ("input",), ("a", "b"))
    assert (a.share, b.share) == (None, "a")


def test_overrides(tmp_path: Path) -> None:
    overrides = [
        "sgd.lr=1e-3",
        "train.epochs = 7",
        "augment.crop=[4, 6]",
        "data.source=cifar10",
        'name="quoted name"',
        "net.layers.conv1.filters=5",
        "net.layers.1.name=other",
        "augment.mirror=true",
    ]
    cfg = load_config(tiny.config(tmp_path), overrides)
    assert (cfg.sgd.lr, cfg.train.epochs, cfg.augment.crop) == (0.001, 7, (4, 6))
    assert (cfg.data.source, cfg.name, cfg.augment.mirror) == ("cifar10", "quoted name", True)
    assert cfg.net.layers[0].options["filters"] == 5
    assert cfg.net.layers[1].name == "other"


def test_overriding_the_kind_clears_the_keys_of_the_kind_before(tmp_path: Path) -> None:
    table = tiny.config(tmp_path, schedule={"warmup_steps": 5})
    cfg = load_config(table, ["schedule.kind=step", "schedule.every=10"])
    assert (cfg.schedule.kind, cfg.schedule.warmup_steps) == ("step", 5)
    assert cfg.schedule.options == {"every": 10}
    assert load_config(table, ["net.model=small", "net.options.width=4"]).net.options == {
        "width": 4
    }
    assert load_config(table, ["schedule.kind=plateau"]).schedule.options["patience"] == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sgd.lr", '--set sgd.lr: expected key=value, for example "sgd.lr=0.1"'),
        ("=3", "expected key=value"),
        ("sgd..lr=3", "expected key=value"),
        ("sgd.lr=1O", 'sgd.lr: expected a number, got "1O"'),
        ("sgd.rate=1", "sgd.rate: unknown key"),
        ("seed.x=1", "seed is a value, not a table"),
        ("net.layers.conv9.filters=1", 'no member "conv9"; did you mean "conv1"?'),
        ("net.layers.conv1=1", "set keys of one member, not the member itself"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in message(tiny.config(tmp_path), override)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "absent.toml")
    assert 'did you mean "fashion-mnist"?' in message("fashion-mnits")
    assert "no such file or preset" in message(tmp_path)
    folder = tmp_path / "a.toml"
    folder.mkdir()
    assert "expected a TOML file, got a folder" in message(folder)
    broken = tmp_path / "b.toml"
    broken.write_text("[sgd\nlr = 1\n")
    assert "not valid TOML" in message(broken)
    assert "line 1" in message(broken)
    broken.write_bytes(b"name = \xff")
    assert "not UTF-8" in message(broken)


def test_overriding_leaves_the_given_dict_alone(tmp_path: Path) -> None:
    table = tiny.config(tmp_path)
    load_config(table, ["sgd.lr=7", "net.layers.conv1.filters=99"])
    assert table == tiny.config(tmp_path)


_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.one_of(st.integers(-9, 9), st.text()), max_size=3),
)
_TABLES = st.recursive(
    st.dictionaries(st.text(max_size=5), _VALUES, max_size=4),
    lambda tables: st.one_of(
        st.dictionaries(st.text(max_size=5), tables, max_size=3),
        st.dictionaries(st.text(max_size=5), st.lists(tables, min_size=1, max_size=3), max_size=2),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(_TABLES)
def test_toml_text_reads_back_equal(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_toml_text_refuses_what_toml_cannot_hold() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        to_toml({"a": None})


def test_conversions() -> None:
    assert convert(3, float) == 3.0
    assert isinstance(convert(3, float), float)
    assert convert([1, 2], tuple[int, int]) == (1, 2)
    assert convert(1, int | float) == 1
    assert isinstance(convert(1, int | float), int)
    assert convert(None, int | None) is None
    assert describe(int | tuple[int, int]) == "an integer or a list of 2 integers"
