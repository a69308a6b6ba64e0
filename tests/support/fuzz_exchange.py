"""What fuzz_files.py attacks: files of other programs, for `convnet import` and data sets."""

from __future__ import annotations

import io
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import definitions
import numpy as np
import safetensors.numpy
import trees
from attack import Attack, bytes_of, one_of
from foreign import SMALL, small_weights
from foreign_files import (
    HEAD,
    OLD,
    TODAY,
    Option,
    blob,
    caffemodel,
    legacy_file,
    model_layers,
    model_weights,
    random_weights,
    saved,
    zip_file,
)
from fuzz_data import PICKLE_WORDS
from mutate import damaged, damaged_json
from mutate import safetensors as as_safetensors

from convnet.config import ConfigError, load_config
from convnet.data import DataError
from convnet.data.image import quiet_pillow
from convnet.data.webdataset import open_shards
from convnet.exchange.caffe.blobs import read_mean
from convnet.exchange.caffe.importer import import_caffe
from convnet.exchange.cuda_convnet.convert import import_files
from convnet.exchange.cuda_convnet.saved import read_meta, weights_of, write_checkpoint
from convnet.exchange.errors import ExchangeError
from convnet.exchange.torch.importer import import_torch, misfit, net_of_shapes, open_state_dict


def _repacked(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these entries, with the right check sums."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _other_numbers(rng: random.Random, pickled: bytes) -> bytes:
    """A pickle that says the same of other sizes: numbers after their opcodes, K, M and J."""
    content = bytearray(pickled)
    places = [at for at, byte in enumerate(content[:-1]) if byte in b"KMJ"]
    for at in rng.sample(places, rng.randint(1, 2)):
        content[at + 1] = rng.choice((0, 1, 2, 3, content[at + 1] ^ 1, 127, 255))
    return bytes(content)


# ---- PyTorch -------------------------------------------------------------------------------------

_TORCH_WORDS = (
    *PICKLE_WORDS, b"ctorch\nHalfStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"Q", b"P1\n",
    b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"X\x07\0\0\0storage",
)  # fmt: skip


def torch_zip(folder: Path) -> Attack:
    """The archive, and the pickle in it."""
    content = zip_file(folder / "a.pth", small_weights()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(each for each in files if each.endswith("data.pkl"))

    def inner(rng: random.Random) -> bytes:
        changed = _other_numbers(rng, files[name])
        if rng.random() < 0.5:
            changed = damaged(rng, files[name], [files[name]], _TORCH_WORDS)
        method = zipfile.ZIP_DEFLATED if rng.random() < 0.02 else zipfile.ZIP_STORED
        return _repacked(files | {name: changed}, method)

    mutator = one_of(inner, inner, bytes_of([content], (b"PK\1\2", b"PK\3\4", b"PK\5\6")))
    return Attack(
        "torch", folder / "a.pth", mutator, _reader(folder), (ExchangeError, ConfigError), 30_000
    )


def torch_before_1_6(folder: Path) -> Attack:
    content = legacy_file(folder / "a.pth", small_weights()).read_bytes()

    def numbers(rng: random.Random) -> bytes:
        return _other_numbers(rng, content)

    mutator = one_of(bytes_of([content], _TORCH_WORDS), numbers)
    allowed = (ExchangeError, ConfigError)
    return Attack("torch old", folder / "a.pth", mutator, _reader(folder), allowed, 30_000)


def torch_safetensors(folder: Path) -> Attack:
    state = {name: array.astype(np.float16) for name, array in small_weights().items()}
    content = safetensors.numpy.save(state)
    length = int.from_bytes(content[:8], "little")
    arrays = content[8 + length :]
    header = {
        name: {"dtype": "F16", "shape": list(array.shape), "data_offsets": [0, 0]}
        for name, array in state.items()
    }
    end = 0
    for name, array in state.items():
        header[name]["data_offsets"] = [end, end + array.nbytes]
        end += array.nbytes

    def with_header(rng: random.Random) -> bytes:
        return as_safetensors(damaged_json(rng, header), arrays)

    mutator = one_of(with_header, bytes_of([content], (b"BF16", b"F64", b"I64", b"F8_E4M3")))
    path, allowed = folder / "a.safetensors", (ExchangeError, ConfigError)
    return Attack("safetensors", path, mutator, _reader(folder), allowed, 20_000)


def _reader(folder: Path) -> Callable[[Path], Any]:
    """All that `convnet import torch` does; one in ten that fit is written, too."""
    cfg = load_config(SMALL)
    (folder / "net.toml").write_text(cfg.to_toml())

    def read(path: Path) -> None:
        with open_state_dict(path) as state:
            fits = not misfit(net_of_shapes(cfg, state), state)
            for name in state.shapes:
                state.read(name)
        if fits and len(path.read_bytes()) % 10 == 0:
            shutil.rmtree(folder / "run", ignore_errors=True)
            import_torch(path, folder / "run", str(folder / "net.toml"))

    return read


# ---- Caffe ---------------------------------------------------------------------------------------

_TEXT_WORDS = (
    b"{", b"}", b"[", b"]", b":", b'"', b"\\", b"#", b"layer {", b"bottom:", b"top:", b"9" * 60,
    b"-1", b"1e400", b"0", b"\xff", b"\0", b"kernel_size: 0", b"stride: 0", b"group: 7", b"dim: 0",
    b"num_output: 2147483647", b"pad: 1000000", b"include { phase: TRAIN }", b"crop_size: 5",
)  # fmt: skip
_WIRE_WORDS = (
    b"\xff" * 10, b"\x80" * 12, b"\x3a\x7f", b"\xa2\x06", b"\x12\xff\xff\xff\xff\x0f", b"\x0a\x00",
    b"\x2a\x04\0\0\xc0\x7f", b"\x0b\x0c", b"\x41" + b"\0" * 8,
)  # fmt: skip


def prototxt(folder: Path) -> Attack:
    valid = [(HEAD + text).encode() for text in (TODAY, OLD)]
    (folder / "a.caffemodel").write_bytes(caffemodel(random_weights(), False))
    return _caffe("prototxt", folder, folder / "a.prototxt", bytes_of(valid, _TEXT_WORDS), 20_000)


def caffe_weights(folder: Path) -> Attack:
    valid = [caffemodel(random_weights(), old) for old in (False, True)]
    (folder / "a.prototxt").write_text(HEAD + TODAY)
    mutator = bytes_of(valid, _WIRE_WORDS)
    return _caffe("caffemodel", folder, folder / "a.caffemodel", mutator, 30_000)


def _caffe(
    name: str,
    folder: Path,
    path: Path,
    mutator: Callable[[random.Random], bytes],
    tries: int,
) -> Attack:
    def read(_: Path) -> None:
        shutil.rmtree(folder / "run", ignore_errors=True)
        import_caffe(folder / "a.prototxt", folder / "a.caffemodel", folder / "run")

    return Attack(name, path, mutator, read, (ExchangeError, ConfigError), tries)


def mean_images(folder: Path) -> Attack:
    image = np.ones((1, 3, 4, 5), np.float32)
    mutator = bytes_of([blob(image, True), blob(image, False)], _WIRE_WORDS)
    path = folder / "mean.binaryproto"
    return Attack("binaryproto", path, mutator, read_mean, (ExchangeError,), 20_000)


# ---- cuda-convnet --------------------------------------------------------------------------------


def saved_models(folder: Path) -> Attack:
    """A model with its batches.meta, in turns."""
    files = definitions.write(folder, model_layers())
    found = import_files(*files, source="cifar10")
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (3072, 1)).astype(np.float32)
    meta = {b"data_mean": mean, b"label_names": ["a"] * 10, b"x": Option()}
    models = [saved(model_weights(), listed) for listed in (True, False)]
    models += [pickle.dumps(meta, protocol) for protocol in (0, 2)]
    packed = [_repacked({"data": content}, zipfile.ZIP_DEFLATED) for content in models[:2]]

    def read(path: Path) -> None:
        content = path.read_bytes()
        if b"data_mean" in content:
            read_meta(path).side(3)
        elif len(content) % 10:
            weights_of(path, found)
        else:
            write_checkpoint(folder / "a.safetensors", path, found)

    words = (*PICKLE_WORDS, b"cos\nsystem\n", b"weights", b"biases", b"c__main__\nx\n")
    mutator = one_of(bytes_of(models, words), bytes_of(models, words), bytes_of(packed))
    return Attack("saved model", folder / "model", mutator, read, (ExchangeError,), 20_000)


# ---- WebDataset ----------------------------------------------------------------------------------


def shards(folder: Path) -> Attack:
    """The shard; its headers with their right sums."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(4):
            picture = io.BytesIO()
            trees.image(number, (9, 7)).save(picture, "PNG")
            label = b'{"label": %d}' % number if number % 2 else b"%d\n" % number
            kind = "json" if number % 2 else "cls"
            for ending, content in (("png", picture.getvalue()), (kind, label)):
                info = tarfile.TarInfo(f"a/{number}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    plain = file.getvalue()
    words = (b"77777777777\0", b"\x80" + b"\xff" * 11, b"L", b"x", b".cls", b"9" * 30, b"\xff")

    def inner(rng: random.Random) -> bytes:
        content = bytearray(damaged(rng, plain, [plain], words))
        for start in range(0, len(content), 512):
            if content[start + 257 : start + 262] == b"ustar" and rng.random() < 0.8:
                header = content[start : start + 512]
                total = sum(header) - sum(header[148:156]) + 8 * 32
                content[start + 148 : start + 156] = b"%06o\0 " % (total % 8**6)
        return bytes(content)

    def read(path: Path) -> None:
        with quiet_pillow():
            for data in open_shards(path.parent, (8, 8), 0.3):
                data.read([0, len(data) - 1])
                data.close()

    root = folder / "shards"
    root.mkdir()
    return Attack("shards", root / "a.tar", inner, read, (DataError,), 20_000)


ATTACKS: dict[str, Callable[[Path], Attack]] = {
    "torch": torch_zip,
    "torch old": torch_before_1_6,
    "safetensors": torch_safetensors,
    "prototxt": prototxt,
    "caffemodel": caffe_weights,
    "binaryproto": mean_images,
    "saved model": saved_models,
    "shards": shards,
}
