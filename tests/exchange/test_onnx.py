"""ONNX models: every preset and every kind of layer, as onnxruntime computes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from foreign import SMALL, random_run

from convnet.cli.main import main
from convnet.common.reading import Budget
from convnet.config import load_config, presets
from convnet.evaluation.evaluate import open_run
from convnet.exchange.errors import ExchangeError
from convnet.exchange.onnx.exporter import export_onnx
from convnet.exchange.onnx.layers import TRANSLATIONS
from convnet.exchange.wire import FIELDS, Message, fields
from convnet.layers import LAYER_TYPES
from convnet.training.nets import net_of

# AlexNet's presets with an eighth of the filters: the arithmetic is the same, the file small.
NARROW = ["net.options.width=0.125", "net.options.hidden=32"]


def compare(tmp_path: Path, table: dict, classes: int) -> None:
    """Exports a run with random weights, and compares logits and probabilities on random images."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    run, out = random_run(tmp_path / "run", table, classes), tmp_path / "net.onnx"
    assert main(["export", "onnx", str(run), "-o", str(out)]) == 0
    net = open_run(run, "cpu").net
    x = np.random.default_rng(0).standard_normal((2, *net.in_shape), dtype=np.float32)
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"image": x.transpose(0, 3, 1, 2)}), strict=True))
    assert np.abs(found["probabilities"] - net.predict(x)).max() < 1e-6
    if "logits" in names:
        loss = next(node for node in net.nodes if node.name == net.result)
        logits = net.forward(x, str(loss.inputs[0]))
        assert np.linalg.norm(found["logits"] - logits) < 1e-5 * np.linalg.norm(logits)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert facts["crop"] == list(net.in_shape[:2])
    assert len(facts["classes"]) == classes


@pytest.mark.parametrize("name", presets())
def test_every_preset(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVNET_DATA", raising=False)
    known = load_config(name, NARROW if name.startswith("alexnet") else [])
    compare(tmp_path, known.to_dict(), net_of(known, "cpu", sizes_only=True).classes)


# By layer type: options, and the side of the image. Sizes that floor and ceil disagree on.
LAYERS = {
    "conv": ({"filters": 6, "size": 3, "stride": 2, "pad": 1, "groups": 2, "rounding": "ceil"}, 8),
    "local": ({"filters": 6, "size": 3, "stride": 2, "pad": 1, "groups": 2, "rounding": "ceil"}, 8),
    "dense": ({"units": 7, "relu": True}, 5),
    "bias": ({"tied": False}, 5),
    "maxpool": ({"size": 3, "stride": 2, "pad": 1}, 8),
    "avgpool": ({"size": 3, "stride": 2, "pad": 1}, 8),
    "sumpool": ({"size": 3, "stride": 2, "pad": 1}, 8),
    "maxabspool": ({"size": 2, "stride": 2}, 7),
    "lrn": ({"n": 3, "alpha": 0.7, "k": 1.5, "groups": 2}, 4),
    "lrn even": ({"n": 4, "alpha": 0.7, "alpha_mode": "mean"}, 4),
    "rnorm": ({"n": 4, "alpha": 0.9}, 6),
    "cnorm": ({"n": 3, "alpha": 0.9, "alpha_mode": "mean"}, 6),
    "relu": ({}, 4),
    "tanh": ({"a": 1.7, "b": 0.6}, 4),
    "sigmoid": ({}, 4),
    "abs": ({}, 4),
    "softplus": ({}, 4),
    "square": ({}, 4),
    "brelu": ({"a": 0.7}, 4),
    "affine": ({"a": -2.0, "b": 0.5}, 4),
    "drelu": ({"a": 0.8}, 4),
    "dropout": ({"drop": 0.3}, 4),
    "flatten": ({}, 4),
    "flatten_chw": ({}, 4),
    "crop": ({"height": 3, "width": 2, "top": 1, "left": 2}, 5),
    "blur": ({"size": 5, "std": 0.8}, 6),
    "nailbed": ({"stride": 2, "start": 1}, 7),
    "slice": ({"start": 1, "stop": 3}, 4),
    "probabilities": ({}, 1),
}
# Those that need a layer of another kind below them: tested together in the next test.
TOGETHER = {"sqrt", "log", "unflatten_chw", "sum", "max", "concat"}
LOSSES = {"softmax_cross_entropy", "binary_cross_entropy", "sumsquares"}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(tmp_path: Path, name: str) -> None:
    options, side = LAYERS[name]
    layers = [
        {"name": "first", "type": "conv", "filters": 4, "size": 1},
        *([{"name": "row", "type": "flatten"}] if name == "probabilities" else []),
        {"name": "tested", "type": name.split()[0], **options},
        {"name": "last", "type": "dense", "units": 3},
        {"name": "loss", "type": "softmax_cross_entropy"},
    ]
    data = {"source": "folder", "size": [side, side + (side > 1)]}
    compare(tmp_path, {"name": "a", "data": data, "net": {"layers": layers}}, 3)


def test_layers_of_several_inputs(tmp_path: Path) -> None:
    layers = [
        {"name": "a", "type": "conv", "filters": 4, "size": 3, "pad": 1, "relu": True},
        {"name": "root", "type": "sqrt"},
        {"name": "log", "type": "log", "a": 1.5, "inputs": "a"},
        {"name": "b", "type": "conv", "filters": 4, "size": 3, "pad": 1, "inputs": "root"},
        {"name": "c", "type": "conv", "filters": 4, "size": 3, "pad": 1, "share": "b"},
        {"name": "sum", "type": "sum", "coeffs": [1.0, -0.5], "inputs": ["root", "log"]},
        {"name": "max", "type": "max", "inputs": ["b", "c", "sum"]},
        {"name": "both", "type": "concat", "inputs": ["max", "sum"]},
        {"name": "planes", "type": "flatten_chw"},
        {"name": "again", "type": "unflatten_chw", "channels": 8},
        {"name": "last", "type": "dense", "units": 3},
        {"name": "loss", "type": "binary_cross_entropy"},
    ]
    data = {"source": "folder", "size": [6, 6]}
    compare(tmp_path, {"name": "a", "data": data, "net": {"layers": layers}}, 3)


def test_every_layer_has_an_operator_and_a_test() -> None:
    assert set(LAYER_TYPES) == {name.split()[0] for name in LAYERS} | TOGETHER | LOSSES
    assert set(TRANSLATIONS) == set(LAYER_TYPES.values())


def test_the_file_as_it_lies(tmp_path: Path) -> None:
    """Without a runtime: the operators, the opset, and that weights are there once."""
    export_onnx(random_run(tmp_path / "run", SMALL), tmp_path / "a.onnx")
    budget = Budget(FIELDS)
    top = dict(fields(memoryview((tmp_path / "a.onnx").read_bytes()), budget))
    assert bytes(top[2]) == b"convnet"
    assert dict(fields(top[8], budget))[2] == 13
    graph = [*fields(top[7], budget)]
    operators = [bytes(dict(fields(node, budget))[4]).decode() for key, node in graph if key == 1]
    assert operators[:4] == ["Conv", "Relu", "Conv", "MaxPool"]
    assert operators[-3:] == ["Softmax", "Identity", "Identity"]
    named = [bytes(dict(fields(each, budget))[8]).decode() for key, each in graph if key == 5]
    assert named[:4] == ["conv1.w", "conv1.b", "conv2.w", "conv2.b"]
    with pytest.raises(ExchangeError, match=r"ends in \.onnx"):
        export_onnx(tmp_path / "run", tmp_path / "a.pb")


def test_integers_of_the_wire_format() -> None:
    message = Message().integer(1, 0, 127, 128, 1 << 40, -1).text(2, "ä").real(3, 1.5)
    data = b"".join(message.parts)
    assert len(data) == message.size
    found = [value for _, value in fields(memoryview(data), Budget(FIELDS))]
    assert found[:5] == [0, 127, 128, 1 << 40, (1 << 64) - 1]
    assert bytes(found[5]).decode() == "ä"
    assert np.frombuffer(found[6], "<f4")[0] == 1.5
