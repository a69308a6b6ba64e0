"""Files as other programs write them: PyTorch's, Caffe's and cuda-convnet's."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import definitions as d
import numpy as np

from convnet.exchange.torch.exporter import write_archive

# ---- PyTorch -------------------------------------------------------------------------------------


def zip_file(path: Path, state: dict[str, np.ndarray]) -> Path:
    with path.open("wb") as file:
        write_archive(file, state)
    return path


def legacy_file(path: Path, state: dict[str, np.ndarray]) -> Path:
    """The format before 1.6: the pickle of the zip format among those that came with it."""
    with zipfile.ZipFile(zip_file(path, state)) as archive:
        saved = archive.read("archive/data.pkl")
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, facts)]
    parts += [saved, pickle.dumps([str(number) for number in range(len(state))], 2)]
    for values in state.values():
        parts += [struct.pack("<q", values.size), values.astype("<f4").tobytes()]
    path.write_bytes(b"".join(parts))
    return path


# ---- Caffe ---------------------------------------------------------------------------------------

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


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


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
        shape = part(7, part(1, b"".join(map(varint, values.shape))))
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


# ---- cuda-convnet --------------------------------------------------------------------------------


class Option:
    """Such as cuda-convnet pickled beside the weights."""

    def __init__(self) -> None:
        self.value = {"gpu": [0]}


def model_layers() -> d.Layers:
    layers = d.ended(
        {
            "conv1": d.conv("data", 3, 8, stride=4, groups=1),
            "conv2": d.conv("conv1", 8, 3, groups=2),
            "local3": {**d.conv("conv2", 6, 4, padding=0), "type": "local"},
        },
        "local3",
    )
    return layers


def model_weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return (0.2 * rng.standard_normal(shape)).astype(np.float32)

    return {
        "conv1": (numbers(27, 8) / 100, numbers(8, 1)),
        "conv2": (numbers(4 * 9, 6), numbers(6, 1)),
        "local3": (numbers(49 * 6 * 9, 4), numbers(4 * 49, 1)),
        "fc10": (numbers(196, 10), numbers(1, 10)),
    }


def saved(weights: dict[str, tuple[np.ndarray, np.ndarray]], listed: bool) -> bytes:
    layers = [
        {"name": name, "type": "conv", "weights": [w], "biases": b, "weightsInc": [w * 0]}
        for name, (w, b) in weights.items()
    ]
    held = layers if listed else {layer["name"]: layer for layer in layers}
    state = {"layers": held, "epoch": 3, "train_outputs": [({"logprob": [1.0, 2.0]}, 128)]}
    return pickle.dumps({"model_state": state, "op": Option()}, 2)
