"""`convnet.training.train`: what a run writes, shows and returns, and how it ends."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import convnet
from convnet.config import ConfigError, load_config
from convnet.data import ArrayDataset, DataError
from convnet.evaluation.evaluate import evaluate, load
from convnet.training.callbacks import Callback
from convnet.training.checkpoint import CheckpointError, read
from convnet.training.display import StuckHint
from convnet.training.run_folder import RunError
from convnet.training.tally import Tally
from convnet.training.train import TrainResult, train
from convnet.training.trainer import Trainer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def quick(data: Path, run_dir: Path, **arguments: Any) -> TrainResult:
    changes = arguments.pop("changes", {})
    return train(
        tiny.config(data, **changes), device="cpu", run_dir=run_dir, quiet=True, **arguments
    )


def test_a_run_learns_and_leaves_everything(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result = quick(data, run_dir)
    assert result.status == "done"
    assert result.device == "cpu"
    assert result.run_dir == run_dir
    assert result.images_per_s > 0
    assert result.best is not None
    assert result.final is not None
    assert result.best["val_top1"] >= 90.0  # chance is 10
    assert result.best["val_top1"] == max(r.get("val_top1", 0) for r in result.history)

    assert load_config(run_dir / "config.toml") == load_config(tiny.config(data))
    names = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert names == {"best.safetensors", "step-00000030.safetensors", "step-00000028.safetensors"}
    assert result.checkpoint == run_dir / "checkpoints" / "step-00000030.safetensors"
    assert "done: best validation top-1" in (run_dir / "log.txt").read_text()


def test_metrics(data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == result.history
    keys = ["kind", "epoch", "step", "loss", "top1", "lr", "images_per_s", "wait"]
    for line in lines:
        epoch = line["kind"] == "epoch"
        more = ["val_loss", "val_top1", "val_top5", "update_ratio"] if epoch else []
        assert list(line) == keys + more
        assert 0 <= line["wait"] <= 100
        assert 0 <= line["top1"] <= 100
    steps = [(line["epoch"], line["step"]) for line in lines if line["kind"] == "step"]
    assert steps[:5] == [(1, 3), (1, 6), (1, 9), (1, 10), (2, 13)]
    assert [(line["epoch"], line["step"]) for line in lines if line["kind"] == "epoch"] == [
        (1, 10),
        (2, 20),
        (3, 30),
    ]
    first = lines[:4]
    weights = [3, 3, 3, 1]
    mean = sum(w * line["loss"] for w, line in zip(weights, first, strict=True)) / 10
    assert lines[4]["loss"] == pytest.approx(mean)
    assert lines[0]["loss"] == pytest.approx(math.log(10), rel=0.5)


def test_the_result_is_the_last_net_and_load_gives_the_best(data: Path, tmp_path: Path) -> None:
    result = quick(data, tmp_path / "run")
    assert result.checkpoint is not None
    last = load(result.checkpoint, device="cpu")
    for mine, theirs in zip(result.net.params, last.params, strict=True):
        assert np.array_equal(mine.data, theirs.data)
    assert last.step == 30
    best = read(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert result.best is not None
    assert best.state["best"] == result.best
    measured = evaluate(tmp_path / "run", device="cpu")
    assert measured["top1"] == result.best["val_top1"]
    assert measured["loss"] == result.best["val_loss"]
    assert measured["cases"] == tiny.TEST


def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(
    data: Path, tmp_path: Path
) -> None:
    a = quick(data, tmp_path / "a")
    b = quick(data, tmp_path / "b")
    c = quick(data, tmp_path / "c", changes={"seed": 4})
    for mine, theirs in zip(a.net.params, b.net.params, strict=True):
        assert mine.data.tobytes() == theirs.data.tobytes()
    assert tiny.metrics(tmp_path / "a") == tiny.metrics(tmp_path / "b")
    assert a.net.params[0].data.tobytes() != c.net.params[0].data.tobytes()


def test_the_first_lines(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny.config(data), device="cpu", epochs=1, run_dir=tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    starts = [line.split()[0] for line in lines[:8]]
    assert starts == ["device", "data", "160", "net", "memory", "step", "schedule", "run"]
    assert "cpu" in lines[0]
    assert str(data) in lines[1]
    assert "40 validation images, 8 x 8 x 1, 10 classes" in lines[2]
    assert re.fullmatch(
        r"memory    \d\.\d MiB \(parameters 0\.0, .*, batch 0\.0\) to train at batch 16;"
        r" [\d,.]+ MiB are free",
        lines[4],
    )
    assert "1 epochs of 10 steps of 16; lr 0.05 plateau" in lines[6]
    assert str(tmp_path / "run") in lines[7]
    step = lines[8]
    for part in ("epoch 1/1", "step  3/10", "loss ", "top-1 ", "images/s", "lr 0.05", "ETA 0:0"):
        assert part in step
    assert "validation loss" in lines[12]
    logged = (tmp_path / "run" / "log.txt").read_text().splitlines()
    ratios = r"last update / weights: conv1 \d\.\de-\d+, fc2 \d\.\de-\d+"
    assert re.fullmatch(ratios, logged.pop(13))  # in the log alone
    assert logged == lines


def test_quiet_prints_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(data, tmp_path / "run", epochs=1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_default_folders_have_date_and_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [train(tiny.config(data), device="cpu", epochs=1, quiet=True).run_dir for _ in range(2)]
    assert len(set(runs)) == 2
    assert all(run.parent.name == "runs" and "-tiny" in run.name for run in runs)


def test_paths_of_data_are_made_absolute(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny.config(""), device="cpu", data="data", epochs=1, run_dir="run", quiet=True)
    table = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert table["data"]["path"] == str(data)


def sets(count: int = 64) -> tuple[ArrayDataset, ArrayDataset]:
    images, labels = tiny.images(count, 5)
    one = ArrayDataset(images[..., None], labels, [str(k) for k in range(10)])
    return one, one


def test_data_as_objects(tmp_path: Path) -> None:
    result = train(
        tiny.config(""), device="cpu", data=sets(), epochs=1, run_dir=tmp_path / "r", quiet=True
    )
    assert result.net.step == 4
    measured = evaluate(tmp_path / "r", data=sets())
    assert measured["cases"] == 64


def test_callbacks_see_every_line_and_can_stop(data: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def stop(record: dict[str, Any]) -> bool:
        seen.append(record)
        return record["step"] >= 13

    result = quick(data, tmp_path / "run", callbacks=[stop])
    assert result.status == "stopped"
    assert seen == result.history
    assert result.net.step == 13
    assert quick(data, tmp_path / "whole").status == "done"
    done = train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert done.status == "done"
    assert tiny.metrics(tmp_path / "run") == tiny.metrics(tmp_path / "whole")


def test_a_callback_is_told_of_the_beginning_the_steps_and_the_end(
    data: Path, tmp_path: Path
) -> None:
    class Follower(Callback):
        def __init__(self) -> None:
            self.told: list[str] = []

        def begin(self, trainer: Trainer) -> None:
            self.told.append(f"begin {trainer.net.step}")

        def step(self) -> None:
            self.told.append("step")

        def __call__(self, record: dict[str, Any]) -> bool:
            self.told.append(f"{record['kind']} {record['step']}")
            return bool(record["step"] == 6)

        def end(self) -> None:
            self.told.append("end")

    follower = Follower()
    assert quick(data, tmp_path / "run", callbacks=[follower]).status == "stopped"
    steps = ["step"] * 3
    assert follower.told == ["begin 0", *steps, "step 3", *steps, "step 6", "end"]
    train(resume=tmp_path / "run", device="cpu", quiet=True, callbacks=[follower])
    assert follower.told[9:12] == ["end", "begin 6", "step"]

    def crash(record: dict[str, Any]) -> None:
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        quick(data, tmp_path / "other", callbacks=[crash, follower])
    assert follower.told[-1] == "end"


def test_a_run_folder_that_exists_is_refused(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    quick(data, run_dir, epochs=1)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run_dir.rglob("*"))
    with pytest.raises(RunError, match="holds a run already; continue it with --resume"):
        quick(data, run_dir)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run_dir.rglob("*")) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert quick(data, empty, epochs=1).status == "done"


def test_divergence_stops_names_the_layer_and_keeps_the_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"sgd": {"lr": 1e18}, "train": {"checkpoint_steps": 1}}
    result = quick(data, tmp_path / "run", changes=changes)
    assert result.status == "diverged"
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error == f"convnet: error: {result.reason}\n"
    assert "the update of " in result.reason
    assert any(f"node {name}" in result.reason for name in ("conv1", "relu1", "pool1", "fc2"))
    assert "try a smaller sgd.lr (it was 1e+18)" in result.reason
    if result.checkpoint is not None:
        arrays = read(result.checkpoint).arrays
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_parameters_that_are_not_finite_are_not_saved(data: Path, tmp_path: Path) -> None:
    """The loss of a step is from before its update, so that it cannot vouch for the weights."""

    def poison(record: dict[str, Any]) -> None:
        if record["step"] == 30 and record["kind"] == "epoch":
            result_net().params[0].data[0] = np.nan

    nets: list[convnet.nn.net.Net] = []
    from convnet.training import setup as building

    def result_net() -> convnet.nn.net.Net:
        return nets[-1]

    original = building.build_net

    def spy(*arguments: Any, **options: Any) -> convnet.nn.net.Net:
        nets.append(original(*arguments, **options))
        return nets[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "build_net", spy)
        result = quick(data, tmp_path / "run", callbacks=[poison])
    assert result.status == "diverged"
    assert "conv1.w holds NaN or infinity" in result.reason
    assert result.checkpoint is not None
    assert read(result.checkpoint).state["step"] == 28


def test_nan_in_the_data_is_named_as_such(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import convnet.training.setup

    class Poisoned(convnet.training.inputs.Preparer):
        def __call__(self, batch: Any) -> Any:
            x = super().__call__(batch)
            x[3, 0, 0, 0] = np.nan
            return x

    monkeypatch.setattr(convnet.training.setup, "Preparer", Poisoned)
    with pytest.raises(DataError, match=r"MNIST from .*: the data hold NaN or infinity"):
        quick(data, tmp_path / "run")


def test_a_stuck_loss_gives_one_hint(data: Path, tmp_path: Path) -> None:
    changes = {"sgd": {"lr": 1e-9}, "train": {"epochs": 25, "checkpoint_steps": 0}}
    changes["schedule"] = {"kind": "constant"}
    changes["net"] = {
        "layers": [
            {"name": "fc", "type": "dense", "units": 10, "std": 0.0001},
            {"name": "softmax", "type": "softmax_cross_entropy"},
        ]
    }
    quick(data, tmp_path / "run", changes=changes)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("hint: the loss has stayed at 2.303 = ln(classes)") == 1


def test_stuck_hint_counts_only_what_is_near() -> None:
    hints: list[str] = []
    hint = StuckHint(10, hints.append)
    losses = [math.log(10)] * 3 + [2.0] + [math.log(10)] * 3
    for number, loss in enumerate(losses):
        hint({"kind": "step", "step": 50 * (number + 1), "loss": loss})
    assert hints == []
    hint({"kind": "step", "step": 400, "loss": math.log(10)})
    hint({"kind": "step", "step": 900, "loss": math.log(10)})
    assert len(hints) == 1


def test_tally() -> None:
    tally = Tally()
    tally.add(8.0, np.array([0, 1, 0, 7]))
    tally.add(2.0, np.array([0, 0]))
    assert tally.means() == {"loss": 10 / 6, "top1": 100 * 4 / 6}
    assert tally.means(five=True) == {**tally.means(), "top5": 100 * 5 / 6}
    assert Tally(*tally.sums()) == tally


def test_a_checkpoint_of_another_net(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    held = read(path)
    arrays = {**held.arrays, "fc2.w": held.arrays["fc2.w"][:, :5]}
    convnet.training.checkpoint.write(path, held.state, arrays)
    with pytest.raises(CheckpointError, match="checkpoint of another net") as caught:
        load(tmp_path / "run")
    assert "fc2.w" in str(caught.value)
    assert "(10, 128)" in str(caught.value)
    assert "(10, 5)" in str(caught.value)


def test_outputs_must_match_the_classes(data: Path, tmp_path: Path) -> None:
    table = tiny.config(data)
    table["net"]["layers"][4]["units"] = 7
    with pytest.raises(ConfigError, match=r"'softmax': expected 10 outputs, .* got 7"):
        train(table, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
