"""Configurations in words from before."""

from __future__ import annotations

from typing import Any

import pytest

from convnet.cli.main import main
from convnet.common.deprecated import RenamedWarning
from convnet.config import ConfigError, load_config

END = {"name": "loss", "type": "softmax_cross_entropy"}


def of(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"net": {"layers": list(layers)}}


OLD = of(
    {"name": "a", "type": "planes"},
    {"name": "b", "type": "image", "channels": 1},
    {"name": "c", "type": "dense", "units": 9},
    {"name": "d", "type": "logistic"},
    {"name": "e", "type": "softrelu"},
    {"name": "f", "type": "linear", "a": 2.0},
    {"name": "g", "type": "bce"},
)
NEW = ["flatten_chw", "unflatten_chw", "dense", "sigmoid", "softplus", "affine"]


def test_old_types_are_read_with_a_note() -> None:
    with pytest.warns(RenamedWarning) as notes:
        cfg = load_config(OLD)
    assert [layer.type for layer in cfg.net.layers] == [*NEW, "binary_cross_entropy"]
    said = [str(note.message) for note in notes]
    assert len(said) == 6
    assert said[2] == 'configuration: net.layers[3]: type "logistic" is called "sigmoid" now'
    assert load_config(cfg.to_dict()) == cfg  # what is written has the names of today
    assert load_config(OLD, saved=True) == cfg  # no note, as warnings are errors here


def test_softmax_was_the_loss_and_is_refused() -> None:
    old = of({"name": "fc", "type": "dense", "units": 3}, {"name": "out", "type": "softmax"})
    with pytest.raises(
        ConfigError, match=r'net.layers\[1\]: type: expected "softmax_cross_entropy", the loss .*'
    ):
        load_config(old)
    assert load_config(old, saved=True).net.layers[1].type == "softmax_cross_entropy"


def test_math_is_called_precision() -> None:
    table = of({"name": "fc", "type": "dense", "units": 3, "math": "tf32"}, END)
    with pytest.warns(RenamedWarning, match=r"net.layers\[0\].math is called precision now"):
        cfg = load_config(table)
    assert cfg.net.layers[0].options == {"units": 3, "precision": "tf32"}
    for source in (cfg, cfg.to_dict() | {"train": {"precision": "ffma"}}):
        with pytest.warns(RenamedWarning, match=r"configuration: train\.math is called precision"):
            assert load_config(source, ["train.math=bf16"]).train.precision == "bf16"
    for given, words in (("bf16", []), ("fp32", ["train.math=tf32"])):  # the later one counts
        source = table | {"train": {"math": given}}
        with pytest.warns(RenamedWarning):
            cfg = load_config(source, [*words, "train.precision=ffma"])
        assert cfg.train.precision == "ffma"
    old = load_config(table | {"train": {"math": "ffma"}}, saved=True)
    assert old.train.precision == "ffma"
    with pytest.raises(ConfigError, match=r"train\.precision: expected one of"):
        load_config(table | {"train": {"math": 3}}, saved=True)


@pytest.mark.parametrize("kept", [True, False])
def test_fuse_update_is_the_opposite_of_keep_gradients(kept: bool) -> None:
    table = {**of(END), "step": {"fuse_update": not kept}}
    with pytest.warns(RenamedWarning, match="fuse_update is called keep_gradients, with the opp"):
        assert load_config(table).step.keep_gradients is kept
    assert load_config(table, saved=True).step.keep_gradients is kept
    with pytest.warns(RenamedWarning):
        cfg = load_config(load_config(of(END)), [f"step.fuse_update={not kept}".lower()])
    assert cfg.step.keep_gradients is kept
    with pytest.raises(ConfigError, match=r"step\.keep_gradients: expected true or false, got 3"):
        load_config(table | {"step": {"fuse_update": 3}}, saved=True)


def test_the_command_says_what_is_called_otherwise(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "old.toml"
    cfg = load_config(
        of({"name": "a", "type": "sigmoid"}, {"name": "b", "type": "dense", "units": 10}, END)
    )
    file.write_text(cfg.to_toml().replace('"sigmoid"', '"logistic"'))
    assert main(["summary", str(file), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert (
        said.err
        == f'convnet: note: {file}: net.layers[0]: type "logistic" is called "sigmoid" now\n'
    )
    assert "sigmoid" in said.out
