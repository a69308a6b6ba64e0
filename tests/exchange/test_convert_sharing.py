"""Weights that layers of a definition share, its costs, and parts of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import definitions as d
import numpy as np
import pytest
from definitions import built, nodes, remarks
from imported import batch, of_everything

from convnet.nn.gradcheck import gradcheck
from convnet.optim.sgd import SGD
from convnet.training.train import train

ONEHOT = {"type": "data", "dataIdx": 2}


def sharing() -> d.Layers:
    """Weights used again: of another layer, of another's second input, and of the same layer."""
    two = {"channels": "4,4", "inputs": "a,b"}
    return d.ended(
        {
            "a": d.conv("data", 3),
            "b": d.conv("data", 3, initB=1),
            "one": {**d.conv("", 4), **two},
            "two": {**d.conv("", 4), **two, "weightSource": "one[1],"},
            "three": {**d.conv("", 4), **two, "weightSource": "two[0],three[0]"},
            "four": d.conv("three", 4, weightSource="two[1]"),
            "join": {"type": "concat", "inputs": "one,two,three,four"},
        },
        "join",
    )


def test_weights_are_shared_and_biases_are_not(tmp_path: Path) -> None:
    found = d.imported(tmp_path, sharing())
    net = built(found)
    names = {param.name for param in net.params}
    # one[0], one[1] (also two[0], three[0], three[1]), two[1] (also four)
    assert {name for name in names if name.endswith(".w")} == {
        "a.w",
        "b.w",
        "one/0.w",
        "one/1.w",
        "two/1.w",
        "fc10.w",
    }
    assert {"one.b", "two.b", "three.b", "four.b", "a.b", "b.b"} <= names
    by_name = nodes(found)
    assert by_name["two/0"].share == by_name["three/0"].share == by_name["three/1"].share
    assert by_name["three/0"].share == "one/1"
    assert by_name["four/0"].share == "two/1"
    rows = gradcheck(net, *batch(np.random.default_rng(6)), samples=3, tolerance=0.03)
    assert [row.parameter for row in rows if not row.ok] == []


def test_rates_of_shared_weights_are_those_of_the_owner(tmp_path: Path) -> None:
    params = d.rates_for(sharing())
    params["four"]["epsW"] = 0.5
    found = d.imported(tmp_path, sharing(), params)
    assert "[four] epsW, momW, wc: those of two/1, whose weights it uses, count" in remarks(
        found, "notes"
    )
    assert found.cfg.sgd.lr == 0.001


def test_an_auto_encoder(tmp_path: Path) -> None:
    """The sum of squares of a difference: no labels, and the image in cuda-convnet's order."""
    layers = {
        "data": d.DATA,
        "code": d.fc("data", 8, neuron="logistic"),
        "recon": d.fc("code", 3072),
        "diff": {"type": "eltsum", "inputs": "recon,data"},
        "sqdiff": {"type": "cost.sum2", "inputs": "diff"},
    }
    params = d.rates_for(layers) | {"diff": {"coeffs": "1,-1"}, "sqdiff": {"coeff": "0.5"}}
    found = d.imported(tmp_path, layers, params)
    by_name = nodes(found)
    assert by_name["diff"].options == {"coeffs": (1.0, -1.0)}
    assert by_name["diff"].inputs == ("recon", "input_planes")
    net = built(found)
    x, labels = batch(np.random.default_rng(6))
    sgd = SGD(net.params, 1e-4)
    losses = [net.train_step(x, labels, sgd) for _ in range(4)]
    assert losses[3] < losses[0]
    planes = x.transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_array_equal(net.forward(x, "input_planes"), planes)


@pytest.mark.parametrize("kind", ["cost.bce", "cost.dce"])
@pytest.mark.parametrize("neuron", ["logistic", "brelu[1]"])
def test_binary_costs(tmp_path: Path, kind: str, neuron: str) -> None:
    layers = {
        "data": d.DATA,
        "labmat": ONEHOT,
        "fc10": d.fc("data", 10, neuron=neuron, initB=0.3, initW=0.001),
        "bce": {"type": kind, "inputs": "labmat,fc10"},
    }
    params = d.rates_for(layers) | {"bce": {"coeff": 2, "posWeight": 3}}
    found = d.imported(tmp_path, layers, params)
    node = nodes(found)["bce"]
    scores = neuron == "logistic"
    assert node.options["pos_weight"] == 3.0
    assert node.options.get("scores", True) == scores
    assert ("fc10_neuron" in nodes(found)) == (not scores)
    assert ("not logistic" in remarks(found, "notes")) == (not scores)
    net = built(found)
    assert (net.classes, net.nodes[-1].layer.coeff) == (10, 2.0)  # type: ignore[attr-defined]
    x, labels = batch(np.random.default_rng(6))
    assert np.isfinite(net.train_step(x, labels, SGD(net.params, 1e-4)))


@pytest.mark.parametrize("kind", ["cost.ce", "cost.crossent"])
def test_the_cross_entropy_of_a_softmax(tmp_path: Path, kind: str) -> None:
    layers = {
        "data": d.DATA,
        "labmat": ONEHOT,
        "fc10": d.fc("data"),
        "probs": {"type": "softmax", "inputs": "fc10"},
        "cost": {"type": kind, "inputs": "labmat,probs"},
    }
    found = d.imported(tmp_path, layers)
    assert nodes(found)["cost"].type == "softmax_cross_entropy"
    assert found.report.changes == []


def test_two_costs_and_a_softmax_that_is_read(tmp_path: Path) -> None:
    layers = d.ended(
        {"fc5": d.fc("data", 10), "soft": {"type": "softmax", "inputs": "fc5"}}, "soft"
    )
    layers["early"] = {"type": "cost.logreg", "inputs": "labels,soft"}
    params = d.rates_for(layers) | {"early": {"coeff": 0.25, "topk": 3}}
    found = d.imported(tmp_path, layers, params)
    by_name = nodes(found)
    assert by_name["soft"].type == "probabilities"
    assert by_name["early"].inputs == ("fc5",)
    assert by_name["early"].options["coeff"] == 0.25
    assert "[early] topk: the errors recorded are those of the first and of five" in remarks(
        found, "notes"
    )


def test_part_of_the_data(tmp_path: Path) -> None:
    layers = {
        "red": {**d.DATA, "end": 1024},
        "odd": {**d.DATA, "start": 1000, "end": 1100},
        **d.ended({"conv1": d.conv("red", 1)}, "conv1,odd"),
    }
    found = d.imported(tmp_path, layers, source="cifar10")
    assert found.net.shapes["red"] == (32, 32, 1)
    assert found.net.shapes["odd"] == (100,)
    x, _ = batch(np.random.default_rng(6))
    planes = x.transpose(0, 3, 1, 2).reshape(3, -1)
    net = built(found)
    np.testing.assert_array_equal(net.forward(x, "odd"), planes[:, 1000:1100])
    np.testing.assert_array_equal(net.forward(x, "red")[..., 0], x[..., 0])


def test_rows_that_are_taken_for_images(tmp_path: Path) -> None:
    layers = d.ended(
        {
            "fc1": d.fc("data", 3 * 36),
            "conv1": d.conv("fc1", 3),
            "turned": d.conv("conv1", 36, 2),  # 4 x 6 x 6 numbers as 36 planes of 2 x 2
            "corner": {
                "type": "crop",
                "inputs": "conv1",
                "channels": 4,
                "startX": 1,
                "startY": 0,
                "sizeX": 3,
            },
        },
        "turned,corner",
    )
    found = d.imported(tmp_path, layers, source="cifar10")
    assert found.net.shapes["fc1_image"] == (6, 6, 3)
    assert found.net.shapes["turned"] == (2, 2, 2)
    assert found.net.shapes["corner"] == (3, 3, 4)
    assert "conv1 gives 4; its numbers are taken as 36 planes of 2x2" in remarks(found, "notes")
    x, _ = batch(np.random.default_rng(6))
    net = built(found)
    row = net.forward(x, "conv1").transpose(0, 3, 1, 2).reshape(3, 36, 2, 2)
    np.testing.assert_array_equal(net.forward(x, "conv1_image"), row.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(net.forward(x, "corner"), net.forward(x, "conv1")[:, :3, 1:4])


@pytest.mark.parametrize(("layers", "lr"), [(of_everything, 1e-3), (sharing, 1e-5)])
def test_imported_nets_train(tmp_path: Path, layers: Any, lr: float) -> None:
    """From the file that was written, on images in CIFAR's format."""
    params = d.rates_for(layers())
    for keys in params.values():
        if "epsW" in keys:
            keys |= {"epsW": lr, "epsB": f"dexp[base={lr};tgtFactor=10;numSteps=2]"}
    found = d.imported(tmp_path, layers(), params, batch=10, epochs=2)
    path = tmp_path / "net.toml"
    path.write_text(found.toml)
    run = tmp_path / "run"
    result = train(path, data=d.cifar(tmp_path, 10), device="cpu", run_dir=run, quiet=True)
    assert result.status == "done"
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["kind"] == "epoch"
