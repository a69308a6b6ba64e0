"""Starting from another net, and learning rates by layer."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import convnet
from convnet.cli.main import main
from convnet.config import ConfigError, load_config
from convnet.data import ArrayDataset
from convnet.evaluation.evaluate import open_run
from convnet.training.checkpoint import CheckpointError, read, write
from convnet.training.train import TrainResult, train

LAYERS: list[dict[str, Any]] = tiny.config("")["net"]["layers"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    quick(data, folder)
    return folder


def quick(data: Any, run_dir: Path, **arguments: Any) -> TrainResult:
    """A short run on a folder, or on sets."""
    path = data if isinstance(data, Path) else ""
    cfg = tiny.config(path, **arguments.pop("changes", {}))
    arguments = {"epochs": 1, "data": None if path else data, **arguments}
    return train(cfg, device="cpu", run_dir=run_dir, quiet=True, **arguments)


def five_classes() -> tuple[ArrayDataset, ArrayDataset]:
    """The images of classes 0 to 4."""
    sets = []
    for count, seed in ((tiny.TRAIN, 1), (tiny.TEST, 2)):
        images, labels = tiny.images(count, seed)
        few = labels < 5
        sets.append(ArrayDataset(images[few][..., None], labels[few], list("abcde")))
    return sets[0], sets[1]


def with_layers(**changes: dict[str, Any]) -> dict[str, Any]:
    """The net of `tiny` with keys of some layers changed."""
    return {"layers": [{**layer, **changes.get(layer["name"], {})} for layer in LAYERS]}


def test_layers_that_fit_are_taken_and_the_others_named(source: Path, tmp_path: Path) -> None:
    changes = {"net": with_layers(fc2={"units": 5}), "sgd": {"lr": 1e-12}}
    result = quick(five_classes(), tmp_path / "run", init=source, changes=changes)
    held = read(source / "checkpoints" / "best.safetensors")
    by_name = {param.name: param.data for param in result.net.params}
    np.testing.assert_allclose(by_name["conv1.w"], held.arrays["conv1.w"], atol=1e-9)
    fresh = quick(five_classes(), tmp_path / "fresh", changes=changes).net.params[2].data
    np.testing.assert_allclose(by_name["fc2.w"], fresh, atol=1e-9)
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    at = next(number for number, line in enumerate(log) if line.startswith("init"))
    path = source / "checkpoints" / "best.safetensors"
    assert log[at : at + 2] == [
        f"init      {path}, step 10: took conv1",
        "          not taken, with fresh weights: fc2 (w is 5x128 here, 10x128 there)",
    ]


def test_everything_is_taken_and_the_rest_begins_anew(
    data: Path, source: Path, tmp_path: Path
) -> None:
    seen: list[Any] = []
    result = quick(data, tmp_path / "run", init=source, callbacks=[seen.append])
    assert result.net.step == 10
    held = read(source / "checkpoints" / "best.safetensors")
    first = read(tmp_path / "run" / "checkpoints" / "step-00000008.safetensors")
    assert seen[0]["step"] == 3
    assert seen[0]["loss"] < tiny.metrics(source)[0]["loss"] - 0.3
    assert not np.array_equal(first.arrays["conv1.w"], held.arrays["conv1.w"])
    table = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert table["net"]["init"] == str(source)
    assert "took conv1, fc2\n" in (tmp_path / "run" / "log.txt").read_text()
    assert open_run(tmp_path / "run").cfg.net.init == str(source)


def test_other_names_and_parts(data: Path, source: Path, tmp_path: Path) -> None:
    layers = [
        {"name": "conv1", "type": "conv", "filters": 8, "size": 3, "pad": 1, "bias": False},
        {"name": "conv2", "type": "conv", "filters": 8, "size": 3, "pad": 1},
        {"name": "pool1", "type": "maxpool", "size": 3, "stride": 2},
        {"name": "fc2", "type": "dense", "units": 10},
        {"name": "softmax", "type": "softmax_cross_entropy"},
    ]
    quick(data, tmp_path / "run", init=source, changes={"net": {"layers": layers}})
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "step 10: took fc2\n" in log
    assert "fresh weights: conv1 (no b here), conv2 (no such layer there)\n" in log
    layers = [{**layers[0], "name": "other"}, *layers[2:]]
    del layers[0]["bias"]
    quick(data, tmp_path / "run2", init=source, changes={"net": {"layers": layers}})
    log = (tmp_path / "run2" / "log.txt").read_text()
    assert "fresh weights: other (no such layer there)\n" in log
    assert "          not used, no such layer here: conv1\n" in log
    layers[0]["name"] = "conv1"
    quick(data, tmp_path / "run3", init=tmp_path / "run", changes={"net": {"layers": layers}})
    assert "conv1 (no b there)" in (tmp_path / "run3" / "log.txt").read_text()


def test_other_preparation_of_the_images_is_warned_of(
    data: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(data, tmp_path / "run", init=source, changes={"data": {"scale": 1.0}})
    assert capsys.readouterr().err == (
        f"convnet: warning: net.init: data.scale was 0.00390625 in "
        f"{source}/checkpoints/best.safetensors, and is 1.0 here\n"
    )


def test_a_resumed_run_needs_the_first_weights_only_before_its_first_checkpoint(
    data: Path, source: Path, tmp_path: Path
) -> None:
    """To the bit as without the interruption, and also where the other run is gone by then."""
    moved = tmp_path / "source"
    source_copy = _copy(source, moved)
    arguments: dict[str, Any] = {"init": source_copy, "epochs": 2}
    whole = quick(data, tmp_path / "whole", **arguments)

    run_dir = tmp_path / "early"
    quick(data, run_dir, **arguments, callbacks=[lambda record: True])
    for path in (run_dir / "checkpoints").iterdir():
        path.unlink()
    early = train(resume=run_dir, device="cpu", quiet=True)
    assert early.net.params[0].data.tobytes() == whole.net.params[0].data.tobytes()

    run_dir = tmp_path / "late"
    quick(data, run_dir, **arguments, callbacks=[lambda record: record["step"] >= 6])
    _remove(source_copy)
    late = train(resume=run_dir, device="cpu", quiet=True)
    assert late.net.params[0].data.tobytes() == whole.net.params[0].data.tobytes()


def _copy(folder: Path, to: Path) -> Path:
    (to / "checkpoints").mkdir(parents=True)
    for path in (folder / "checkpoints").iterdir():
        (to / "checkpoints" / path.name).write_bytes(path.read_bytes())
    return to


def _remove(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.unlink()


def test_a_path_is_made_absolute(
    data: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    quick(data, tmp_path / "run", changes={"net": {"layers": LAYERS, "init": source.name}})
    quick(data, tmp_path / "run2", init=source.name)
    for name in ("run", "run2"):
        assert load_config(tmp_path / name / "config.toml").net.init == str(source)


# ---- learning rates -----------------------------------------------------------------------------


def test_frozen_layers_keep_their_bits(data: Path, source: Path, tmp_path: Path) -> None:
    changes = {"net": {"layers": LAYERS, "lr_mult": {"conv1": 0}}}
    result = quick(data, tmp_path / "run", init=source, changes=changes, epochs=2)
    held = read(source / "checkpoints" / "best.safetensors").arrays
    ours = read(tmp_path / "run" / "checkpoints" / "step-00000020.safetensors").arrays
    for name in ("conv1.w", "conv1.b"):
        assert ours[name].tobytes() == held[name].tobytes()
        assert not ours[f"{name}:velocity"].any()
        assert not np.array_equal(ours[name.replace("conv1", "fc2")], held["fc2" + name[5:]])
    assert "rates     conv1 frozen\n" in (tmp_path / "run" / "log.txt").read_text()
    assert result.final is not None
    assert list(result.final["update_ratio"]) == ["fc2"]


def test_rates_are_multiplied(data: Path, tmp_path: Path) -> None:
    """One step: half the rate is half the update; and a layer's own multipliers stay."""
    rates = {"conv1": 0.5, "fc2": 3.0}
    layers = with_layers(conv1={"b_lr": 2.0})["layers"]
    one_step: dict[str, Any] = {"callbacks": [lambda record: True]}
    for name, table in (("plain", {}), ("half", rates)):
        net = {"layers": layers, "lr_mult": table}
        changes = {"net": net, "train": {"log_steps": 1}}
        quick(data, tmp_path / name, changes=changes, **one_step)
    before = convnet.training.nets.build_net(
        load_config(tiny.config(data)), (8, 8, 1), 10, "cpu"
    ).state()
    plain, half = (
        read(tmp_path / name / "checkpoints" / "step-00000001.safetensors").arrays
        for name in ("plain", "half")
    )
    for name, factor in (("conv1.w", 0.5), ("conv1.b", 0.5), ("fc2.w", 3.0)):
        updates = plain[name] - before[name], half[name] - before[name]
        np.testing.assert_allclose(updates[1], factor * updates[0], rtol=1e-3, atol=1e-7)
    multipliers = {p.name: p.lr_mult for p in open_run(tmp_path / "half").net.params}
    assert multipliers == {"conv1.w": 0.5, "conv1.b": 1.0, "fc2.w": 3.0, "fc2.b": 3.0}
    assert "rates     conv1 x 0.5, fc2 x 3\n" in (tmp_path / "half" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"conv9": 0}, 'net.lr_mult.conv9: no such layer; did you mean "conv1"?'),
        ({"relu1": 0}, "net.lr_mult.relu1: expected a layer with parameters, got relu1"),
        ({"copy": 0}, "net.lr_mult.copy: it uses the parameters of conv1; name that"),
        ({"conv1": -1}, "net.lr_mult.conv1: expected a value >= 0, got -1.0"),
        ({"conv1": "slow"}, 'net.lr_mult.conv1: expected a number, got "slow"'),
        ({"conv1": float("inf")}, "net.lr_mult.conv1: expected a finite number, got inf"),
        (3, "net.lr_mult: expected a table, got 3"),
    ],
)
def test_bad_rates(data: Path, tmp_path: Path, rates: Any, expected: str) -> None:
    copy = {**LAYERS[0], "name": "copy", "inputs": ["input"], "share": "conv1"}
    join = {"name": "join", "type": "sum", "inputs": ["conv1", "copy"]}
    net = {"layers": [LAYERS[0], copy, join, *LAYERS[1:]], "lr_mult": rates}
    with pytest.raises(ConfigError) as caught:
        quick(data, tmp_path / "run", changes={"net": net})
    assert str(caught.value).startswith("configuration: ")
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_both_survive_writing(data: Path) -> None:
    net = {"model": "small", "init": "some/run", "lr_mult": {"conv1": 0.0, "a b": 2}}
    cfg = load_config(tiny.config(data, net=net))
    assert cfg.net.lr_mult == {"conv1": 0.0, "a b": 2.0}
    assert load_config(tomllib.loads(cfg.to_toml())) == cfg
    over = load_config(cfg, ["net.lr_mult.conv2=0.1", "net.init=other"])
    assert over.net.lr_mult == {"conv1": 0.0, "a b": 2.0, "conv2": 0.1}
    assert over.net.init == "other"


# ---- bad input ----------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("convnet: error: ")
    assert error.count("\n") == 1
    return error.removeprefix("convnet: error: ").rstrip("\n")


def test_runs_that_cannot_be_used(
    data: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "tiny.toml", data)
    words = ["train", config, "--device", "cpu", "--run-dir", tmp_path / "run", "-q", "--init"]
    absent = tmp_path / "absent"
    assert refusal(capsys, *words, absent) == f"{absent}: no such run folder or checkpoint"
    assert "no checkpoint in this folder" in refusal(capsys, *words, data)

    copy = _copy(source, tmp_path / "copy")
    paths = sorted((copy / "checkpoints").iterdir())
    for path in paths:
        path.write_bytes(path.read_bytes()[:-9])
    assert main([str(word) for word in [*words, copy]]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("convnet: error: ")
    assert "damaged checkpoint" in error[-1]
    assert all("; falling back to " in line for line in error[:-1])
    assert "damaged checkpoint" in refusal(capsys, *words, paths[0])

    held = read(source / "checkpoints" / "best.safetensors")
    arrays = {f"x{name}": array for name, array in held.arrays.items() if name[0] in "cf"}
    write(tmp_path / "other.safetensors", held.state, {**held.arrays, **arrays})
    layers = with_layers(conv1={"filters": 7}, fc2={"bias": False})
    config = tiny.write_config(tmp_path / "tiny.toml", data, net=layers)
    text = refusal(capsys, *words, tmp_path / "other.safetensors")
    assert text == (
        f"{tmp_path / 'other.safetensors'}: nothing in it fits the net: "
        "conv1 (w is 7x3x3x1 here, 8x3x3x1 there), fc2 (w is 10x112 here, 10x128 there)"
    )
    assert not (tmp_path / "run").exists()


def test_not_with_resume(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--resume", source, "--init", source]
    assert refusal(capsys, *words) == ("init: cannot be given with resume: the run has its weights")
    with pytest.raises(ConfigError, match="init: cannot be given with resume"):
        train(resume=source, init=source, device="cpu")
    with pytest.raises(ConfigError, match=r"net.lr_mult.conv1: the run in .* was begun with"):
        train(resume=source, overrides=["net.lr_mult.conv1=0"], device="cpu")


def test_nothing_is_changed_by_a_refusal(data: Path) -> None:
    from convnet.training.finetune import take_weights

    net = convnet.training.nets.build_net(load_config(tiny.config(data)), (8, 8, 1), 10, "cpu")
    before = net.state()
    empty = convnet.training.checkpoint.Checkpoint({"step": 1}, {}, Path("x"))
    with pytest.raises(CheckpointError, match="nothing in it fits the net"):
        take_weights(net, empty)
    assert all(np.array_equal(before[name], array) for name, array in net.state().items())
