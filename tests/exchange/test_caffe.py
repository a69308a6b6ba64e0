"""Nets of Caffe, definition and weights, beside Caffe's arithmetic written out in NCHW."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from foreign import CLASSES, conv, softmax
from PIL import Image

from convnet.cli.main import main
from convnet.evaluation.evaluate import open_run
from convnet.evaluation.predict import predict
from convnet.exchange.caffe.importer import import_caffe
from convnet.exchange.errors import ExchangeError

# An input that the pools, rounded up, clip on the right and below: 13 -> 6 -> 3.
HEAD = """
name: "Small Net"   # a comment
input: "data"
input_dim: 1 input_dim: 3 input_dim: 13 input_dim: 13
"""
TODAY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 stride: 2
    weight_filler { type: "gaussian" std: 0.02 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
  lrn_param { local_size: 3 alpha: 0.6 beta: 0.75 k: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  convolution_param { num_output: 6 pad: 1 kernel_size: 3 group: 2 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "fc6" type: "InnerProduct" bottom: "pool2" top: "fc6"
  inner_product_param { num_output: 3 } }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6"
  dropout_param { dropout_ratio: 0.25 } }
layer { name: "prob" type: "Softmax" bottom: "fc6" top: "prob" }
"""
OLD = (
    TODAY.replace("layer {", "layers {")
    .replace('"Convolution"', "CONVOLUTION")
    .replace('"InnerProduct"', "INNER_PRODUCT")
    .replace('"Pooling"', "POOLING")
    .replace('type: "', "type: '")
    .replace(
        "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }",
        "blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0",
    )
)
for word in ("ReLU", "LRN", "Dropout", "Softmax"):
    OLD = OLD.replace(f"type: '{word}\"", f"type: {word.upper()}")
OLD = OLD.replace("type: 'gaussian\"", 'type: "gaussian"')


def key(number: int, kind: int) -> bytes:
    value = number << 3 | kind
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def part(number: int, content: bytes) -> bytes:
    """A field of bytes, its length in five of them."""
    size = len(content)
    length = bytes([(size >> shift) & 127 | 128 for shift in (0, 7, 14, 21)] + [size >> 28])
    return key(number, 2) + length + content


def blob(values: np.ndarray, old: bool) -> bytes:
    if old:
        sides = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(key(at, 0) + bytes([side]) for at, side in enumerate(sides, 1))
    else:
        shape = part(7, part(1, bytes(values.shape)))
    return shape + part(5, values.astype("<f4").tobytes())


def caffemodel(weights: dict[str, tuple[np.ndarray, ...]], old: bool) -> bytes:
    """A NetParameter with these blobs: `layers` with old shapes, or `layer` with new ones."""
    net, name, blobs = (2, 4, 6) if old else (100, 1, 7)
    layers = [
        part(net, part(name, layer.encode()) + b"".join(part(blobs, blob(w, old)) for w in arrays))
        for layer, arrays in weights.items()
    ]
    return part(1, b"Small Net") + b"".join(layers)


def random_weights() -> dict[str, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(0)
    shapes = {"conv1": (4, 3, 3, 3), "conv2": (6, 2, 3, 3), "fc6": (3, 24)}
    return {
        name: tuple(
            np.float32(scale) * rng.standard_normal(each, dtype=np.float32)
            for each, scale in ((shape, 0.01 if name == "conv1" else 0.3), (shape[:1], 0.3))
        )
        for name, shape in shapes.items()
    }


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
    found = import_caffe(tmp_path / "train.prototxt", tmp_path / "net.caffemodel", tmp_path / "run")
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
