"""What of its configuration a run keeps when it is resumed, and what may change."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from paths import ROOT
from resumed import config
from runs import assert_same_end, newest

from convnet.config import Config, ConfigError, load_config
from convnet.training.checkpoint import (
    CheckpointError,
    read,
    write,
)
from convnet.training.resume import Decision, decision
from convnet.training.train import TrainResult, train

pytestmark = pytest.mark.usefixtures("default_signals")


def test_resuming_a_finished_run_does_nothing_and_more_epochs_go_on(
    data: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    longer = tmp_path / "longer"
    train(config(data), device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    before = tiny.metrics(run_dir)
    again = train(resume=run_dir, device="cpu", quiet=True)
    assert again.status == "done"
    assert again.net.step == 10
    assert again.final == again.best
    assert tiny.metrics(run_dir) == before
    train(resume=run_dir, device="cpu", epochs=2, quiet=True)
    assert load_config(run_dir / "config.toml").train.epochs == 2
    train(config(data), device="cpu", run_dir=longer, epochs=2, quiet=True)
    assert_same_end(run_dir, longer)


# What may not change, as --set and as an edit of config.toml; the last word names the value before.
KEPT = [
    ("seed=9", "3"),
    ("train.batch=8", "16"),
    ("data.scale=1.0", "0.00390625"),
    ("data.mean=channel", '"image"'),
    ("augment.pad=2", "1"),
    ("augment.crop=[7, 8]", r"\[8, 8\]"),
    ("augment.mirror=true", "false"),
    ("data.resize=pad", '"crop"'),
    ("train.sampling=balanced", '"shuffle"'),
    ("net.layers.conv1.filters=4", "8"),
    ("net.layers.fc2.init=he", '"xavier"'),
    ("net.init=elsewhere", "not given"),
    ("net.lr_mult.conv1=0", "not given"),
]


# What may, and what is said about it.
TAKEN = [
    ("sgd.lr=0.01", "warning: sgd.lr: it was 0.05, and is 0.01 now; from here on the run is not"),
    ("sgd.weight_decay=0.1", "warning: sgd.weight_decay: it was 0.0005, and is 0.1 now; from"),
    ("schedule.patience=2", "warning: schedule.patience: it was 1, and is 2 now; from here on"),
    ("schedule.kind=cosine", 'warning: schedule.kind: it was "plateau", and is "cosine" now; from'),
    (
        "train.precision=ffma",
        'warning: train.precision: it was "fp32", and is "ffma" now; from here on',
    ),
    (
        "train.class_weights=balanced",
        'warning: train.class_weights: it was "none", and is "balanced" now; from here on',
    ),
    ("train.epochs=4", "changed   train.epochs: it was 2, and is 4 now"),
    ("train.log_steps=5", "changed   train.log_steps: it was 3, and is 5 now"),
    ("train.keep=4", "changed   train.keep: it was 2, and is 4 now"),
    ("data.workers=0", 'changed   data.workers: it was "auto", and is 0 now'),
    ("step.graph=off", 'changed   step.graph: it was "auto", and is "off" now'),
    ("name=other", 'changed   name: it was "tiny", and is "other" now'),
    ("train.threads=2", "changed   device: it was cpu: "),
]


def resumed_with(override: str, how: str, run_dir: Path, **options: Any) -> TrainResult:
    """Resumes with a value given by --set, in config.toml, or in a configuration of its own."""
    begun_with = load_config(run_dir / "config.toml")
    changed = load_config(begun_with, [override])
    if how == "config.toml":
        (run_dir / "config.toml").write_text(changed.to_toml())
        return train(resume=run_dir, device="cpu", **options)
    if how == "cfg":
        return train(changed, resume=run_dir, device="cpu", **options)
    return train(resume=run_dir, device="cpu", overrides=[override], **options)


@pytest.mark.parametrize("how", ["--set", "config.toml", "cfg"])
@pytest.mark.parametrize(("override", "before"), KEPT)
def test_what_makes_it_that_run_is_kept(
    begun: Path, tmp_path: Path, override: str, before: str, how: str
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    key = override.partition("=")[0]
    text = rf"{key}: the run in .* was begun with {before}, got .*; a resumed run keeps it: give it"
    with pytest.raises(ConfigError, match=text):
        resumed_with(override, how, run_dir, quiet=True)
    assert newest(run_dir).name == newest(begun).name
    if how != "config.toml":
        assert (run_dir / "config.toml").read_text() == (begun / "config.toml").read_text()


@pytest.mark.parametrize("how", ["--set", "config.toml", "cfg"])
@pytest.mark.parametrize(("override", "said"), TAKEN)
def test_what_may_change_is_said(
    begun: Path,
    tmp_path: Path,
    override: str,
    said: str,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    wanted = load_config(load_config(run_dir / "config.toml"), [override])
    resumed_with(override, how, run_dir)
    out, err = capsys.readouterr()
    assert said in (err if said.startswith("warning") else out)
    assert (said in out) != said.startswith("warning")
    log = (run_dir / "log.txt").read_text()
    assert said in log
    assert load_config(run_dir / "config.toml") == wanted
    assert read(newest(run_dir)).state["config"] == wanted.to_dict()


def test_the_same_values_are_not_a_change(
    begun: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also comments in config.toml stay, and a configuration without the path of the data does."""
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    text = "# mine\n" + (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").write_text(text)
    cfg = {**config(data), "data": {"source": "mnist"}}
    cfg["train"] = {**cfg["train"], "epochs": 2}
    assert train(cfg, resume=run_dir, device="cpu").status == "done"
    out, err = capsys.readouterr()
    assert "changed" not in out + err
    assert err == ""
    assert (run_dir / "config.toml").read_text() == text


def test_first_weights_need_not_be_named_again(begun: Path, data: Path, tmp_path: Path) -> None:
    cfg, run_dir = config(data), tmp_path / "run"
    train(cfg, init=begun, device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    train(cfg, resume=run_dir, device="cpu", epochs=2, quiet=True)
    assert load_config(run_dir / "config.toml").net.init == str(begun)


def test_longer_runs_are_a_warning_where_the_schedule_spans_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = {**config(data), "schedule": {"kind": "cosine"}}
    train(cfg, device="cpu", run_dir=tmp_path / "run", epochs=1, quiet=True)
    train(resume=tmp_path / "run", device="cpu", epochs=2, quiet=True)
    assert "warning: train.epochs: it was 1, and is 2 now; from" in capsys.readouterr().err


def test_every_key_has_a_decision_and_is_documented() -> None:
    cfg = Config()
    keys = set()
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            own = (inner for inner in dataclasses.fields(value) if inner.compare)
            keys |= {f"{field.name}.{inner.name}" for inner in own}
        elif field.compare:  # the others are no keys of the file
            keys.add(field.name)
    page = (ROOT / "docs" / "configs.md").read_text()
    table = page.partition("## Resuming")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    found: dict[str, int] = {}
    for number, row in enumerate(rows):
        for word in re.findall(r"`([^`]+)`", row.split("|")[1]):
            table_name, _, star = word.partition(".*")
            names = [key for key in keys if key.startswith(f"{table_name}.")]
            found |= dict.fromkeys(names if star == "" and ".*" in word else [word], number)
    order = [Decision.KEPT, Decision.STEERS, Decision.FREE]
    assert found == {key: order.index(decision(key, cfg)) for key in keys}


def test_a_checkpoint_of_another_version(begun: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(begun, tmp_path / "run"))
    there = read(newest(run_dir))
    state = {**there.state, "config": {**there.state["config"], "later": 1}, "version": "9.9"}
    write(there.path, state, there.arrays)
    with pytest.raises(CheckpointError, match=r"written by convnet 9.9: configuration: later: unk"):
        train(resume=run_dir, device="cpu", quiet=True)


def test_a_finished_run_leaves_its_configuration_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train(config(data), device="cpu", run_dir=run_dir, epochs=1, quiet=True)
    text = (run_dir / "config.toml").read_text()
    train(resume=run_dir, device="cpu", overrides=["sgd.lr=0.5", "train.log_steps=2"], quiet=True)
    assert (
        "warning: the run has finished: nothing is trained, and config.toml stays as it was "
        "(not taken: sgd.lr, train.log_steps)"
    ) in capsys.readouterr().err
    assert (run_dir / "config.toml").read_text() == text
    train(resume=run_dir, device="cpu")
    assert "nothing is trained; --epochs N trains on" in capsys.readouterr().out
    train(resume=run_dir, device="cpu", epochs=2, overrides=["sgd.lr=0.5"], quiet=True)
    assert load_config(run_dir / "config.toml").sgd.lr == 0.5
    assert read(newest(run_dir)).state["epoch"] == 2
    text = (run_dir / "config.toml").read_text()
    train(resume=run_dir, device="cpu", epochs=1, quiet=True)
    assert "(not taken: train.epochs)" in capsys.readouterr().err
    assert (run_dir / "config.toml").read_text() == text


def test_more_drops_go_on_where_a_plateau_had_ended(data: Path, tmp_path: Path) -> None:
    cfg = {**config(data), "schedule": {"kind": "plateau", "patience": 1, "drops": 0}}
    cfg["train"] = {**cfg["train"], "epochs": 60}
    run_dir = tmp_path / "run"
    first = train(cfg, device="cpu", run_dir=run_dir, quiet=True)
    assert first.net.step < 600
    assert train(resume=run_dir, device="cpu", quiet=True).net.step == first.net.step
    more = train(resume=run_dir, device="cpu", overrides=["schedule.drops=1"], quiet=True)
    assert more.net.step > first.net.step
