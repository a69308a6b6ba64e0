"""Nets of Caffe, definition and weights, beside Caffe's arithmetic written out in NCHW."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from foreign import CLASSES, conv, softmax
from foreign_files import HEAD, OLD, TODAY, blob, caffemodel, key, part, random_weights
from PIL import Image

from convnet.cli.main import main
from convnet.evaluation.evaluate import open_run
from convnet.evaluation.predict import predict
from convnet.exchange.caffe.importer import import_caffe
from convnet.exchange.errors import ExchangeError


def pooled(x: np.ndarray, size: int, stride: int, take) -> np.ndarray:
    """Caffe's pools: sizes rounded up, windows clipped to the image."""
    count = -(-(x.shape[2] - size) // stride) + 1
    starts = [at * stride for at in range(count)]
    rows = [
        [take(x[:, :, r : r + size, c : c + size], axis=(2, 3)) for c in starts] for r in starts
    ]
    return np.moveaxis(np.array(rows), (0, 1), (2, 3))


def logits(weights: dict[str, tuple[np.ndarray, ...]], x: np.ndarray) -> np.ndarray:
    """What Caffe computes; x: [N, 3, 13, 13], BGR."""
    w = {name: [each.astype(np.float64) for each in both] for name, both in weights.items()}
    x = pooled(np.maximum(conv(x, *w["conv1"], stride=2), 0), 3, 2, np.max)
    squares = np.pad(x * x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    sums = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    x = x * (2 + 0.6 / 3 * sums) ** -0.75
    x = pooled(conv(x, *w["conv2"], pad=1, groups=2), 2, 2, np.mean)
    return x.reshape(len(x), -1) @ w["fc6"][0].T + w["fc6"][1]


@pytest.mark.parametrize("old", [False, True])
def test_a_picture_is_classified_as_caffe_would(tmp_path: Path, old: bool, capsys) -> None:
    weights, names = random_weights(), tmp_path / "names.txt"
    text, model = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    text.write_text(HEAD + (OLD if old else TODAY))
    model.write_bytes(caffemodel(weights, old))
    names.write_text("\n".join(CLASSES))
    mean = np.random.default_rng(2).uniform(90, 150, (3, 15, 15)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(blob(mean[None], old=True))
    files = [str(text), str(model), "-o", str(tmp_path / "run"), "--classes", str(names)]
    assert main(["import", "caffe", *files, "--mean-file", str(tmp_path / "mean.binaryproto")]) == 0
    assert "3 layers, 301 parameters" in capsys.readouterr().out

    pixels = np.random.default_rng(1).integers(0, 256, (15, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    bgr = (pixels[:, :, ::-1].transpose(2, 0, 1) - mean.astype(np.float64))[:, 1:14, 1:14]
    expected = dict(zip(CLASSES, softmax(logits(weights, bgr[None]))[0], strict=True))
    found = predict(tmp_path / "run", [tmp_path / "a.png"], "cpu")[0]
    assert max(expected.values()) < 0.999
    for name, probability in zip(found.classes, found.probabilities, strict=True):
        assert abs(probability - expected[name]) < 1e-6
    layers = {layer.name: layer for layer in open_run(tmp_path / "run", "cpu").cfg.net.layers}
    assert layers["conv1"].options["std"] == 0.02
    assert layers["conv1"].options["b_lr"] == 2.0
    assert layers["drop6"].options == {"drop": 0.25, "mode": "inverted"}


def test_a_definition_for_training(tmp_path: Path) -> None:
    data = """
    layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
      transform_param { crop_size: 13 mean_value: 90 mean_value: 100 mean_value: 110 } }
    layer { name: "val" type: "Data" top: "data" top: "label" include { phase: TEST }
      transform_param { crop_size: 13 scale: 0.5 mean_value: [90, 100, 110] } }
    """
    end = """layer { name: "accuracy" type: "Accuracy" bottom: "fc6" bottom: "label"
      top: "accuracy" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }"""
    (tmp_path / "train.prototxt").write_text(
        data + TODAY.replace('layer { name: "prob"', '#"') + end
    )
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_weights(), False))
    files = (tmp_path / "train.prototxt", tmp_path / "net.caffemodel")
    found = import_caffe(*files, tmp_path / "run", resize="stretch")
    assert open_run(tmp_path / "run", "cpu").cfg.data.resize == "stretch"
    assert (found.cfg.data.scale, found.cfg.data.size, found.cfg.augment.crop) == (
        0.5,
        (256, 256),
        (13, 13),
    )
    trained = open_run(tmp_path / "run", "cpu")
    assert trained.stats.mean.reshape(-1).tolist() == [110, 100, 90]
    x = np.random.default_rng(3).standard_normal((2, 13, 13, 3), dtype=np.float32) * 40
    expected = logits(random_weights(), x[..., ::-1].transpose(0, 3, 1, 2).astype(np.float64))
    scores = trained.net.forward(x, "fc6")
    assert np.linalg.norm(scores - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_long_name_of_a_layer_makes_no_long_message(tmp_path: Path) -> None:
    text = TODAY.replace('name: "conv1"', 'name: "%s"' % ("n" * 5000))
    (tmp_path / "a.prototxt").write_text(HEAD + text)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(random_weights(), False))
    with pytest.raises(ExchangeError, match=r": n{80}: expected 2 blobs of weights, got 0$"):
        import_caffe(tmp_path / "a.prototxt", tmp_path / "a.caffemodel", tmp_path / "run")


def test_what_caffe_passes_over(tmp_path: Path) -> None:
    """`k` of a norm within channels; and a mean image that is named is not read."""
    text = TODAY.replace("lrn_param {", "lrn_param { norm_region: WITHIN_CHANNEL k: 3")
    transform = 'transform_param { crop_size: 13 mean_file: "m.binaryproto" }'
    data = f'layer {{ name: "d" type: "Data" {transform} }}'
    (tmp_path / "a.prototxt").write_text(HEAD + data + text)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(random_weights(), False))
    found = import_caffe(tmp_path / "a.prototxt", tmp_path / "a.caffemodel", tmp_path / "run")
    norm = next(layer for layer in found.cfg.net.layers if layer.type == "rnorm")
    assert norm.options["k"] == 1.0
    assert any("in the place of m.binaryproto (--mean-file)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_output: 4", "num_output: 8"), r"conv1: w: expected \(8, 3, 3, 3\), got \(4, 3"),
        (("pool: MAX", "pool: STOCHASTIC"), "line 11: pool: STOCHASTIC is not carried over"),
        (("pool: AVE", "pool: AVE pad: 1"), "counts zeros around the image"),
        (('"LRN"', '"BatchNorm"'), 'type: no layer here is like "BatchNorm"'),
        (('bottom: "norm1"', 'bottom: "norm2"'), 'no layer above gives "norm2"'),
        (
            ("kernel_size: 3 stride: 2 }", "kernel_size: 3 stride: 2"),
            "line 24: expected name: value",
        ),
        (("group: 2", "group: two"), "group: expected a whole number, got two"),
        (("{ num_output: 3 }", "{ num_output: 3 }" + "a {" * 40), "braces more than 16 deep"),
    ],
)
def test_what_cannot_be_carried_over_is_named(tmp_path: Path, change, message) -> None:
    (tmp_path / "a.prototxt").write_text(HEAD + TODAY.replace(*change, 1))
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(random_weights(), False))
    with pytest.raises(ExchangeError, match=message):
        import_caffe(tmp_path / "a.prototxt", tmp_path / "a.caffemodel", tmp_path / "run")
    assert not (tmp_path / "run").exists()


SOUND = caffemodel(random_weights(), False)
HOSTILE = {
    "cut off": (SOUND[:-7], "ends early"),
    "no weights": (part(1, b"net"), "expected weights of layers, got none"),
    "shape of terabytes": (
        part(100, part(7, part(7, part(1, b"\xff\xff\xff\xff\x7f" * 2)))),
        "expected numbers for the shape",
    ),
    "many dimensions": (part(100, part(7, part(7, part(1, b"\x01" * 99)))), "at most 8 dimensions"),
    "endless integer": (b"\xff" * 40, "at most 64 bits"),
    "group": (key(3, 3), "known kind"),
    "half a number": (part(100, part(7, part(5, bytes(6)))), "numbers of 4 bytes"),
    "length beyond": (key(100, 2) + struct.pack("<I", 0x7FFFFFFF), "ends early|end of the message"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_are_refused(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "a.prototxt").write_text(HEAD + TODAY)
    (tmp_path / "a.caffemodel").write_bytes(content)
    with pytest.raises(ExchangeError, match=message):
        import_caffe(tmp_path / "a.prototxt", tmp_path / "a.caffemodel", tmp_path / "run")
