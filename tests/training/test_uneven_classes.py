"""Runs of uneven data: weights of classes, balanced epochs, and when a run is long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from runs import assert_same_end

from convnet.config import Config, ConfigError, load_config
from convnet.data import ArrayDataset
from convnet.evaluation.evaluate import evaluate
from convnet.layers import SoftmaxCrossEntropy
from convnet.training.class_weights import class_weights
from convnet.training.train import TrainResult, train

COUNTS = (60, 30, 10)
NAMES = ("cats", "dogs", "newts")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def run(data: Path, run_dir: Path, callbacks: Any = (), **changes: Any) -> TrainResult:
    config = tiny.config(data, **changes)
    return train(config, device="cpu", run_dir=run_dir, callbacks=callbacks, quiet=True)


def uneven() -> ArrayDataset:
    labels = np.repeat(np.arange(3), COUNTS)
    return ArrayDataset(np.zeros((100, 8, 8, 1), np.uint8), labels, NAMES, "uneven")


def configured(class_weights: Any) -> Config:
    return load_config({"net": {"model": "small"}, "train": {"class_weights": class_weights}})


# ---- weights of classes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ratios"),
    [
        ("balanced", (1 / 60, 1 / 30, 1 / 10)),
        ({"newts": 6.0}, (1, 1, 6)),
        ([0.5, 0, 2.0], (0.5, 0, 2)),
    ],
)
def test_class_weights(said: Any, ratios: tuple[float, ...]) -> None:
    cfg = configured(said)
    assert load_config(cfg.to_dict()).train.class_weights == cfg.train.class_weights
    values = np.array(class_weights(cfg, uneven()).values)
    assert values @ COUNTS == pytest.approx(100)
    np.testing.assert_allclose(values / values.max(), np.array(ratios) / max(ratios))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("even", r'train.class_weights: expected .*"balanced".* got "even"'),
        ({"cats": -1.0}, r"train.class_weights.cats: expected a value >= 0, got -1"),
        ({"newt": 2.0}, r"train.class_weights.newt: no such class.*newts"),
        ([1.0, 2.0], r"train.class_weights: expected one for each of 3 classes, got 2"),
        ([0, 0, 0], r"train.class_weights: expected one above 0"),
    ],
)
def test_class_weights_that_do_not_fit(said: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_weights(configured(said), uneven())


def test_weights_are_for_training_alone(data: Path, tmp_path: Path) -> None:
    """They are part of the loss that is trained, and of no loss that is measured."""
    weights = [2.0] + 8 * [1.0] + [0.0]
    changes = {"sgd": {"lr": 1e-9}, "train": {"epochs": 1, "class_weights": weights}}
    plain = run(data, tmp_path / "plain", sgd={"lr": 1e-9}, train={"epochs": 1}).history[-1]
    result = run(data, tmp_path / "run", **changes)
    layer = result.net.nodes[-1].layer
    assert isinstance(layer, SoftmaxCrossEntropy)
    assert layer.class_weights == tuple(weights)
    assert result.history[-1]["loss"] != pytest.approx(plain["loss"], rel=1e-3)
    assert result.history[-1]["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-5)
    assert evaluate(tmp_path / "run", device="cpu")["loss"] == pytest.approx(plain["val_loss"])


def test_weights_want_the_loss_that_has_them(data: Path, tmp_path: Path) -> None:
    layers = [*tiny.config(data)["net"]["layers"][:-1]]
    layers.append({"name": "loss", "type": "binary_cross_entropy"})
    expected = "class_weights: expected a net that ends with softmax_cross_entropy, got node loss"
    with pytest.raises(ConfigError, match=expected):
        run(data, tmp_path / "run", net={"layers": layers}, train={"class_weights": "balanced"})


def test_balanced_and_turned_runs_resume_to_the_bit(data: Path, tmp_path: Path) -> None:
    changes = {
        "augment": {"scale": [0.8, 1.2], "rotate": 20.0},
        "train": {"epochs": 2, "sampling": "balanced", "class_weights": "balanced"},
    }
    run(data, tmp_path / "whole", **changes)
    stop = run(data, tmp_path / "run", [lambda line: line["step"] == 6], **changes)
    assert stop.status == "stopped"
    train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


# ---- how long a run is --------------------------------------------------------------------------


def test_patience(data: Path, tmp_path: Path) -> None:
    """A run that learns nothing ends, also where it is resumed, and goes on without patience."""
    changes = {"sgd": {"lr": 1e-30}, "train": {"epochs": 9, "patience": 2}}
    whole = run(data, tmp_path / "whole", **changes)
    assert (whole.status, whole.net.step) == ("done", 3 * tiny.STEPS)
    assert whole.best is not None
    assert whole.best["epoch"] == 1
    log = (tmp_path / "whole" / "log.txt").read_text()
    assert "stopped early: 2 epochs were not better than the best (validation top-1" in log
    run(data, tmp_path / "run", [lambda line: line["step"] == 26], **changes)
    train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    again = train(resume=tmp_path / "run", device="cpu", quiet=True)
    assert again.net.step == 3 * tiny.STEPS
    on = train(resume=tmp_path / "run", device="cpu", quiet=True, overrides=["train.patience=3"])
    assert on.net.step == 4 * tiny.STEPS


def test_the_best_epoch_by_its_loss(data: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "run", train={"best": "val_loss"}, sgd={"lr": 0.2})
    epochs = [line for line in result.history if line["kind"] == "epoch"]
    assert result.best == min(epochs, key=lambda line: line["val_loss"])
    assert "done: best validation loss" in (tmp_path / "run" / "log.txt").read_text()


def test_a_warm_up_longer_than_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"kind": "constant", "warmup_steps": 500}
    result = run(data, tmp_path / "run", schedule=schedule)
    assert [line["lr"] for line in result.history if line["step"] >= 3] == [0.05] * 15
    text = "warmup_steps: expected at most 30, the steps of the run, got 500; 3 are taken, a tenth"
    assert text in capsys.readouterr().err
