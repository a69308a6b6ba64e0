"""The presets of cuda-convnet's nets for CIFAR-10: as published, and nine crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import definitions as d
import numpy as np
import pytest

from convnet.cli.main import main
from convnet.config import AugmentConfig, load_config
from convnet.evaluation.crops import Crop, crops_of
from convnet.evaluation.evaluate import evaluate, open_run
from convnet.training.nets import net_of
from convnet.training.train import train

PRESETS = {  # parameters, millions of multiply-adds forward
    "cifar10-80sec": (145_578, 12.4),
    "cifar10-18pct": (89_578, 12.3),
    "cifar10-conv-local": (1_116_490, 18.5),
    "cifar10-conv-local-lrn": (2_112_970, 19.5),
}


def pct18() -> tuple[d.Layers, d.Layers]:
    """layers-18pct.cfg, in our words."""
    norm = {"type": "rnorm", "channels": 32, "size": 3}
    wide = {"filterSize": 5, "padding": 2, "initW": 0.01, "neuron": "relu"}
    layers = d.ended(
        {
            "conv1": d.conv("data", 3, 32, filterSize=5, padding=2, initW=0.0001),
            "pool1": d.pool("conv1", 32, neuron="relu"),
            "rnorm1": {**norm, "inputs": "pool1"},
            "conv2": d.conv("rnorm1", 32, 32, **wide),
            "pool2": d.pool("conv2", 32, "avg"),
            "rnorm2": {**norm, "inputs": "pool2"},
            "conv3": d.conv("rnorm2", 32, 64, **wide),
            "pool3": d.pool("conv3", 64, "avg"),
        },
        "pool3",
        initW=0.01,
    )
    params = d.rates_for(layers)
    params["fc10"]["wc"] = 1
    for name in ("rnorm1", "rnorm2"):
        params[name] = {"scale": 0.00005, "pow": ".75"}
    return layers, params


def conv_local(lrn: bool) -> tuple[d.Layers, d.Layers]:
    """layers-conv-local-11pct.cfg (with norms) or -13pct.cfg, in our words."""
    norm = {"type": "cmrnorm", "channels": 64, "size": 9}
    big = {"filterSize": 5, "padding": 2, "neuron": "relu"}
    local = {"type": "local", "initW": 0.04, "neuron": "relu"}
    layers: d.Layers = {
        "conv1": d.conv("data", 3, 64, **{**big, "initW": 0.0001}),
        "pool1": d.pool("conv1", 64),
        "rnorm1": {**norm, "inputs": "pool1"},
        "conv2": d.conv("rnorm1" if lrn else "pool1", 64, 64, **{**big, "initW": 0.01}),
        "rnorm2": {**norm, "inputs": "conv2"},
        "pool2": d.pool("rnorm2" if lrn else "conv2", 64),
        "local3": {**d.conv("pool2", 64, 64 if lrn else 32), **local},
        "local4": {**d.conv("local3", 64 if lrn else 32, 32), **local},
    }
    if not lrn:
        del layers["rnorm1"], layers["rnorm2"]
    layers = d.ended(layers, "local4", initW=0.01)
    params = d.rates_for(layers)
    for name in ("conv1", "conv2"):
        params[name]["wc"] = "0.00"
    return layers, params


DEFINITIONS: dict[str, Any] = {
    "cifar10-80sec": d.quick,
    "cifar10-18pct": pct18,
    "cifar10-conv-local": lambda: conv_local(False),
    "cifar10-conv-local-lrn": lambda: conv_local(True),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_cuda_convnet_s_definitions(tmp_path: Path, preset: str) -> None:
    """Layer by layer what the importer makes of the definition, but for the names."""
    cfg = load_config(preset)
    crop = cfg.augment.crop[0]
    found = d.imported(tmp_path, *DEFINITIONS[preset](), crop=crop)
    assert found.report.changes == []
    ours = [(layer.type, layer.options) for layer in cfg.net.layers]
    assert ours == [(layer.type, layer.options) for layer in found.cfg.net.layers]
    assert cfg.sgd == found.cfg.sgd
    assert cfg.data == found.cfg.data
    assert cfg.augment == found.cfg.augment
    net = net_of(cfg, "cpu", sizes_only=True)
    assert (net.parameter_count, round(net.macs / 1e6, 1)) == PRESETS[preset]
    assert crop == (24 if "local" in preset else 0)


def test_nine_crops() -> None:
    found = crops_of((32, 32, 3), AugmentConfig(crop=(24, 24)), False, nine_crop=True)
    assert found == [Crop(row, column, False) for row in (0, 4, 8) for column in (0, 4, 8)]
    with pytest.raises(ValueError, match="expected ten crops or nine, got both"):
        crops_of((32, 32, 3), AugmentConfig(), True, True)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train_and_are_tested_on_several_crops(
    tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On images made up in CIFAR's format; CIFAR-10 itself is not needed."""
    data, run = d.cifar(tmp_path, 20), tmp_path / "run"
    settings = ["train.batch=20", "train.epochs=1", "schedule.steps=[3]"]
    result = train(preset, data=data, device="cpu", run_dir=run, overrides=settings, quiet=True)
    assert result.status == "done"
    assert main(["eval", str(run), "--device", "cpu", "--nine-crop"]) == 0
    assert ", nine crops: loss " in capsys.readouterr().out
    found = evaluate(run, device="cpu", nine_crop=True)
    assert found["crops"] == 9
    trained = open_run(run, "cpu")
    rows = np.fromfile(data / "test_batch.bin", np.uint8).reshape(20, 3073)
    x = rows[:, 1:].reshape(20, 3, 32, 32).transpose(0, 2, 3, 1) - trained.stats.mean
    side = trained.cfg.augment.crop[0] or 32
    places = sorted({0, (32 - side) // 2, 32 - side})
    seen = [
        trained.net.predict(np.ascontiguousarray(x[:, r : r + side, c : c + side], np.float32))
        for r in places
        for c in places
    ]
    own = np.mean(np.array(seen, np.float64), axis=0)[np.arange(20), rows[:, 0]]
    assert found["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)


def test_only_one_kind_of_crops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "x", "--ten-crop", "--nine-crop"]) == 2
    assert "expected ten crops or nine, got both" in capsys.readouterr().err


def test_a_net_that_names_nothing_is_measured_by_its_loss(tmp_path: Path) -> None:
    layers = {
        "data": dict(d.DATA),
        "code": d.fc("data", 6, neuron="logistic", initW=0.001),
        "recon": d.fc("code", 3072),
        "diff": {"type": "eltsum", "inputs": "recon,data", "coeffs": "1,-1"},
        "sqdiff": {"type": "cost.sum2", "inputs": "diff"},
    }
    params = d.rates_for(layers)
    for name in ("code", "recon"):
        params[name] |= {"epsW": 1e-7, "epsB": 1e-2}
    found = d.imported(tmp_path, layers, params, batch=20, epochs=3)
    data, run = d.cifar(tmp_path, 20), tmp_path / "run"
    result = train(found.cfg, data=data, device="cpu", run_dir=run, quiet=True)
    epochs = [record for record in result.history if record["kind"] == "epoch"]
    assert [record["top1"] for record in epochs] == [0.0] * 3
    losses = [record["val_loss"] for record in epochs]
    assert min(losses) < losses[0]
    best = epochs[losses.index(min(losses))]
    assert result.best == best  # the lowest loss, not the first of equal errors
    measured = evaluate(run, device="cpu")
    assert measured["loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    with pytest.raises(ValueError, match="expected a net that names classes"):
        evaluate(run, device="cpu", ten_crop=True)
