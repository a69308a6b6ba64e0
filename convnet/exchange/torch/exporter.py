"""`convnet export torch`: the weights of a run as a state dict, written without PyTorch.

torch.load reads it, with `weights_only=True` too. Images and classes are not part of a state dict:
a .safetensors file has them in its metadata, a .pth file in a JSON file beside it.
Source: PyTorch, torch/serialization.py; pickletools for the operations.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.files import replace
from convnet.common.tensor_header import write_tensors
from convnet.evaluation.evaluate import Trained, as_warning, open_run
from convnet.exchange.errors import ExchangeError
from convnet.exchange.facts import facts_json
from convnet.exchange.layouts import parameters, to_foreign

_MODULES = {  # of torchvision's AlexNet
    **{f"conv{i}": f"features.{at}" for i, at in zip(range(1, 6), (0, 3, 6, 8, 10), strict=True)},
    **{f"fc{i}": f"classifier.{at}" for i, at in zip((6, 7, 8), (1, 4, 6), strict=True)},
}
_KINDS = {"w": "weight", "b": "bias"}


def state_dict(trained: Trained) -> dict[str, np.ndarray]:
    """The weights by names of torch, filters [K, C, R, S], dense matrices for rows in C, H, W.

    The names are those of the file that the weights were imported from, torchvision's for its net,
    else those of the nodes.
    """
    net, imported = trained.net, trained.checkpoint.state.get("imported")
    names: Mapping[str, Any] = {}
    if isinstance(imported, dict) and imported.get("format") == "torch":
        names = imported.get("names", {})
    elif trained.cfg.net.model == "alexnet_torchvision":
        names = _MODULES
    weights, found = trained.checkpoint.weights, {}
    for node in net.parametric:
        for name in parameters(node.layer):
            values = to_foreign(net, node, name, weights[f"{node.name}.{name}"])
            found[f"{names.get(node.name, node.name)}.{_KINDS.get(name, name)}"] = values
    return found


def export_torch(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    warn: Callable[[str], None] = as_warning,
    code: bool = False,
) -> list[Path]:
    """Writes the weights of a run as a state dict.

    Args:
        run: a run folder (its best checkpoint, else the newest) or a checkpoint file.
        out: a file that ends in .pth or .pt, which torch.load reads, or in .safetensors.
        warn: called with a message when a damaged checkpoint is passed over.
        code: whether code of one's own that the run names may be imported: look at it first.

    Returns: the files that were written.
    Raises:
        ExchangeError: another ending. CheckpointError, RunError: no usable checkpoint.
        OSError: it cannot be written.
    """
    path = Path(out)
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise ExchangeError(f"{path}: expected a name that ends in .pth, .pt or .safetensors")
    trained = open_run(run, "cpu", warn, code=code)
    arrays, text = state_dict(trained), facts_json(trained)
    if path.suffix == ".safetensors":
        held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_tensors(path, {"preprocessing": text, "format": "pt"}, held)
        return [path]
    beside = path.with_suffix(".json")
    replace(path, lambda file: write_archive(file, arrays))
    replace(beside, text.encode())
    return [path, beside]


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_archive(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file as torch.save does since 1.6.

    Args:
        file: open for writing bytes.
        arrays: float32, by name.
    """
    arrays = {name: np.ascontiguousarray(array, "<f4") for name, array in arrays.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickled(arrays))
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{number}", _bytes(array))
        archive.writestr("archive/version", "3\n")


# ---- the pickle, operation by operation ----------------------------------------------------------


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


_EMPTY = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def _tensor(number: int, array: np.ndarray) -> bytes:
    """A call of _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)."""
    kind = _global("torch", "FloatStorage")
    place = (_text("storage"), kind, _text(str(number)), _text("cpu"), _integer(array.size))
    sizes = _tuple(*map(_integer, array.shape))
    strides = _tuple(*(_integer(step // array.itemsize) for step in array.strides))
    storage = _tuple(*place) + pickle.BINPERSID
    call = _tuple(storage, _integer(0), sizes, strides, pickle.NEWFALSE, _EMPTY)
    return _global("torch._utils", "_rebuild_tensor_v2") + call + pickle.REDUCE


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    items = [
        _text(name) + _tensor(number, each) for number, (name, each) in enumerate(arrays.items())
    ]
    dictionary = _EMPTY + pickle.MARK + b"".join(items) + pickle.SETITEMS
    return pickle.PROTO + b"\x02" + dictionary + pickle.STOP
