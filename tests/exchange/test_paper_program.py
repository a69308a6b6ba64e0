"""Definitions of the paper's own program, held to its rules; and saved models of cuda-convnet."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from pathlib import Path

import definitions as d
import numpy as np
import pytest
from foreign import conv, softmax
from foreign_files import Option, model_layers, model_weights, saved
from original_rules import Rules
from PIL import Image

from convnet.cli.main import main
from convnet.common.typecheck import ConfigError
from convnet.config import load_config
from convnet.evaluation.predict import predict
from convnet.exchange.cuda_convnet.convert import DECLINED, Imported
from convnet.exchange.cuda_convnet.saved import read_meta, weights_of, write_checkpoint
from convnet.exchange.errors import ExchangeError
from convnet.training.nets import net_of


def towers() -> tuple[d.Layers, d.Layers]:
    """The published program's way: two towers, a coarse image beside them, hs in the end."""
    layers = d.ended(
        {
            "blur0": {"type": "blur", "inputs": "data", "stdev": 2, "filterSize": 5, "channels": 3},
            "nails0": {"type": "nailbed", "inputs": "blur0", "stride": 5, "channels": 3},
            "conv1a": d.conv("data", 3, 16, filterSize=5, padding=0, stride=2, gpu=0),
            "conv1b": d.conv("data", 3, 16, filterSize=5, padding=0, stride=2, gpu=1),
            "rnorm1a": {"type": "cmrnorm", "inputs": "conv1a", "channels": 16, "size": 5},
            "pool1a": d.pool("rnorm1a", 16, neuron="relu"),
            "pool1b": d.pool("conv1b", 16),
            "conv2a": d.conv(
                "pool1a,pool1b,nails0",
                "16,16,3",  # type: ignore[arg-type]
                "8,8,16",  # type: ignore[arg-type]
                filterSize="3,3,1",
                padding="1,1,0",
                groups="2,2,1",
                initW="0.1,0.1,0.1",
                randSparse="0,0,0",
            ),
            "local3": {**d.conv("conv2a", 16, 8), "type": "local"},
            "spare": d.fc("local3", 5),
            "fc4": d.fc("local3,nails0", 20, neuron="relu", initW="0.1,0.1"),
            "hs4": {"type": "hs", "inputs": "fc4", "keep": 0.25},
        },
        "hs4",
    )
    params = d.rates_for(layers) | {"hs4": {"enable": "true"}}
    return layers, params


def test_shapes_and_parameters_are_those_of_the_originals_rules(tmp_path: Path) -> None:
    layers, params = towers()
    found = d.imported(tmp_path, layers, params, source="cifar10")
    rules = Rules(tmp_path / "layers.cfg", 32 * 32 * 3)
    assert found.net.parameter_count == sum(rules.parameters.values())
    for name in set(rules.parameters) & set(found.net.shapes) - {"logprob"}:
        assert math.prod(found.net.shapes[name]) == rules.outputs[name], name
    assert "spare" not in found.net.shapes
    kinds = {layer.name: layer for layer in found.cfg.net.layers}
    assert kinds["blur0"].options == {"size": 5, "std": 2.0}
    assert kinds["nails0"].options == {"stride": 5, "start": 1}
    assert kinds["hs4"].options == {"drop": 0.75, "mode": "paper"}
    assert found.gpus == [0, 1]


@pytest.mark.parametrize("kind", ["hs", "dropout2", "dropout"])
def test_disabled_dropout_still_scales_by_keep(tmp_path: Path, kind: str) -> None:
    layers = d.ended({"drop": {"type": kind, "inputs": "data", "keep": 0.25}}, "drop")
    params = d.rates_for(layers) | {"drop": {"enable": "false"}}
    layer = d.imported(tmp_path, layers, params).cfg.net.layers[0]
    scaled = ("affine", {"a": 0.25, "b": 0.0})
    expected = ("dropout", {"drop": 0.0, "mode": "inverted"}) if kind == "dropout" else scaled
    assert (layer.type, dict(layer.options)) == expected


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"epsW": 1e-5, "epsB": 0.02}, "at most 1e-05, as at the end of training"),
        ({"epsW": 0, "epsB": 0}, "all learning rates are 0: nothing will be learned"),
        ({"epsW": 0.01, "epsB": 0.02}, ""),
    ],
)
def test_a_snapshot_of_the_end_says_that_nothing_would_learn(tmp_path: Path, rates, said) -> None:
    layers = d.ended({}, "data")
    params = d.rates_for(layers)
    params["fc10"] |= rates
    text = d.imported(tmp_path, layers, params).text()
    assert said in text
    assert ("learned" in text) == bool(said)


@pytest.mark.parametrize("kind", DECLINED)
def test_types_that_are_not_carried_over_say_why(tmp_path: Path, kind: str) -> None:
    layers = d.ended({"odd": {"type": kind, "inputs": "data"}}, "data")
    with pytest.raises(ConfigError, match=rf"\[odd\] type: {kind} is not carried over: \w+"):
        d.imported(tmp_path, layers)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (d.pool("data", 3, "rand"), r"\[odd\] pool: stochastic pooling"),
        (
            d.conv("data", 3, groups=3, randSparse=1, filterChannels=3),
            r"\[odd\] filterChannels: groups of neighbouring channels have \[1\]",
        ),
        ({"type": "blur", "inputs": "data", "channels": 3, "filterSize": 4, "stdev": 1}, "3, 5, 7"),
    ],
)
def test_options_that_are_not_carried_over_say_why(tmp_path: Path, section, message) -> None:
    with pytest.raises(ConfigError, match=message):
        d.imported(tmp_path, d.ended({"odd": section}, "odd"), source="cifar10")


# ---- saved models --------------------------------------------------------------------------------


def logits(weights: dict[str, tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """What cuda-convnet computes; x: [N, 3, 32, 32]."""

    def filters(name: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
        w, b = weights[name]
        return w.T.reshape(-1, channels, 3, 3).astype(np.float64), b.reshape(-1)

    x = np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 2)))  # sizes are rounded up: zeros at the end
    x = conv(x, *filters("conv1", 3), stride=4, pad=1)
    x = conv(x, *filters("conv2", 4), pad=1, groups=2)
    w, b = weights["local3"]
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    places = w.reshape(7, 7, 6, 3, 3, 4).astype(np.float64)
    x = np.einsum("ncpqrs,pqcrsk->nkpq", windows, places) + b.reshape(4, 7, 7)
    return x.reshape(len(x), -1) @ weights["fc10"][0] + weights["fc10"][1]


def imported_model(tmp_path: Path) -> Imported:
    return d.imported(tmp_path, model_layers(), source="cifar10")


@pytest.mark.parametrize("listed", [True, False])
def test_weights_of_a_saved_model(tmp_path: Path, listed: bool) -> None:
    weights = model_weights()
    content = saved(weights, listed)
    if not listed:  # and compressed, as by --zip-save
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data", content)
        content = packed.getvalue()
    (tmp_path / "model").write_bytes(content)
    found = imported_model(tmp_path)
    net = net_of(found.cfg, "cpu")
    net.load_state(weights_of(tmp_path / "model", found))
    x = np.random.default_rng(1).standard_normal((2, 32, 32, 3), dtype=np.float32) * 40
    expected = logits(weights, x.transpose(0, 3, 1, 2).astype(np.float64))
    scores = net.forward(x, "fc10")
    assert np.linalg.norm(scores - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.abs(net.predict(x) - softmax(expected)).max() < 1e-5


@pytest.mark.parametrize("with_meta", [True, False])
def test_a_saved_model_predicts(tmp_path: Path, with_meta: bool, capsys) -> None:
    rng, weights = np.random.default_rng(2), model_weights()
    names = [f"name {number}" for number in range(10)]
    mean = rng.uniform(90, 150, (3 * 32 * 32, 1)).astype(np.float32)
    meta = {b"data_mean": mean, b"label_names": names, b"op": Option()}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    (tmp_path / "model").write_bytes(saved(weights, True))
    files = [str(path) for path in d.write(tmp_path, model_layers())]
    command = ["import", "cuda-convnet", *files, "--source", "cifar10", "--init"]
    command += [str(tmp_path / "model"), "-o", str(tmp_path / "net.toml")]
    options = ["--meta", str(tmp_path / "batches.meta")] if with_meta else []
    assert main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert ("the mean image is that of" in said) == with_meta
    assert ("a grey of 128 is subtracted" in said) != with_meta

    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = pixels.transpose(2, 0, 1)[None] - (mean.reshape(1, 3, 32, 32) if with_meta else 128.0)
    expected = softmax(logits(weights, x.astype(np.float64)))[0]
    [found] = predict(tmp_path / "net.safetensors", [tmp_path / "a.png"], "cpu")
    places = dict(zip(found.classes, found.probabilities, strict=True))
    for number, value in enumerate(expected):
        name = names[number] if with_meta else f"class {number}"
        assert abs(places.get(name, value) - value) < 1e-5
    best = int(expected.argmax())
    assert found.classes[0] == (names[best] if with_meta else f"class {best}")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"data_mean": np.zeros((12, 1), np.float32)}, "data_mean: expected 3072 numbers.*got 12"),
        ({"data_mean": [1.0]}, "expected data_mean as an array"),
        ({"names": []}, "expected a batches.meta with data_mean"),
    ],
)
def test_a_mean_image_that_does_not_fit(tmp_path: Path, meta: dict, message: str) -> None:
    found = imported_model(tmp_path)
    (tmp_path / "model").write_bytes(saved(model_weights(), True))
    (tmp_path / "meta").write_bytes(pickle.dumps(meta, 2))
    with pytest.raises(ExchangeError, match=message):
        write_checkpoint(tmp_path / "a", tmp_path / "model", found, read_meta(tmp_path / "meta"))


def test_training_starts_from_a_saved_model(tmp_path: Path, capsys) -> None:
    data = d.cifar(tmp_path)
    (tmp_path / "model").write_bytes(saved(model_weights(), True))
    files = [str(path) for path in d.write(tmp_path, model_layers())]
    out = tmp_path / "net.toml"
    command = ["import", "cuda-convnet", *files, "--source", "cifar10", "-o", str(out)]
    assert main([*command, "--init", str(tmp_path / "model"), "--epochs", "1"]) == 0
    cfg = load_config(out)
    assert cfg.train.epochs == 1
    options = ["--data", str(data), "--run-dir", str(tmp_path / "run"), "--device", "cpu"]
    init = ["--init", str(tmp_path / "net.safetensors"), "--set", "train.batch=20"]
    assert main(["train", str(out), *options, *init]) == 0
    assert "took conv1, conv2, local3, fc10" in capsys.readouterr().out


def test_a_saved_model_that_does_not_fit(tmp_path: Path) -> None:
    weights = model_weights()
    found = imported_model(tmp_path)
    weights["conv2"] = (weights["conv2"][0][:-1], weights["conv2"][1])
    (tmp_path / "model").write_bytes(saved(weights, True))
    message = r"conv2\.w of \(6, 3, 3, 4\), got \(35, 6\) in conv2"
    with pytest.raises(ExchangeError, match=message):
        weights_of(tmp_path / "model", found)
    del weights["local3"], weights["conv2"]
    (tmp_path / "model").write_bytes(saved(weights, False))
    with pytest.raises(ExchangeError, match="no layer conv2 in the model"):
        weights_of(tmp_path / "model", found)


class Hostile:
    """A pickle that would run code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_no_code_of_a_saved_model_is_run(tmp_path: Path) -> None:
    found = imported_model(tmp_path)
    state = {"model_state": {"layers": [{"name": "conv1", "weights": Hostile()}]}}
    for content, message in (
        (pickle.dumps(state, 2), "conv1: expected a matrix of weights"),
        (pickle.dumps(Hostile(), 2), "expected a saved model with model_state"),
        (pickle.dumps([1, 2]), "expected a saved model with model_state"),
        (saved(model_weights(), True)[:-40], "expected a saved model"),
        (b"\x80\x02}(K\x01J\xff\xff\xff\x7f" + b"0" * 40, "expected only operations|saved model"),
    ):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(ExchangeError, match=message):
            weights_of(tmp_path / "model", found)
