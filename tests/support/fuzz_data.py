"""Attacks on the readers of data sets: valid files, how to damage them, what reads them."""

from __future__ import annotations

import functools
import gzip
import io
import json
import pickle
import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import cifar_files
import numpy as np
import safetensors.numpy
import trees
from attack import Attack, bytes_of, one_of
from mutate import damaged, damaged_json

from convnet.data import DataError, cifar10, idx
from convnet.data.folder.label_file import list_labelled
from convnet.data.folder.meta_mat import read_synsets
from convnet.data.folder.trees import find_listings
from convnet.data.image import check_file, decode, quiet_pillow
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.manifest import digest_of, manifest_text
from convnet.data.packed.mean import compute_sums
from convnet.data.packed.pack import PackSettings, pack
from convnet.data.packed.sums import read_sums
from convnet.data.safe_pickle import load_pickle
from convnet.data.sums import checksum

PICKLE_WORDS = (
    *(bytes([code]) for code in range(256)),
    b"(" * 300, b"\x85" * 300, b"}" * 300, b"\x8b\xff\xff\xff\x7f", b"\x96" + b"\xff" * 8,
    b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"h\x01", b"r\xff\xff\xff\xff",
)  # fmt: skip


def pickles(folder: Path) -> Attack:
    entries = {
        "data": cifar_files.rows(0)[:, :6].copy(),
        "labels": [1, 2, 300],
        "names": ["a", b"b"],
    }
    valid = [cifar_files.python2_pickle({**entries, "names": ["a"]})]
    valid += [pickle.dumps(entries, protocol) for protocol in range(6)]
    return Attack(
        "pickle", None, bytes_of(valid, PICKLE_WORDS),
        functools.partial(load_pickle, "batch"), (DataError,), 300_000,
    )  # fmt: skip


def cifar(folder: Path) -> Attack:
    """The archive, and what is in it."""
    archive = cifar_files.pack(cifar_files.write_python(folder, "cifar100", pickle.dumps))
    shutil.rmtree(folder / "cifar-100-python")
    plain = gzip.decompress(archive.read_bytes())
    packed = [gzip.compress(plain, 1), archive.read_bytes()]
    sizes = (b"77777777777\0", b"00000000000\0", b"\x80" + b"\xff" * 11, b"x", b"L", b"S", b"g")

    def inner(rng: random.Random) -> bytes:
        content = bytearray(damaged(rng, plain, [plain], sizes))
        for start in range(0, min(len(content), 40 * 512), 512):  # headers with their right sums
            if content[start + 257 : start + 262] == b"ustar" and rng.random() < 0.8:
                header = content[start : start + 512]
                total = sum(header) - sum(header[148:156]) + 8 * 32
                content[start + 148 : start + 156] = b"%06o\0 " % (total % 8**6)
        return gzip.compress(bytes(content), 1) if rng.random() < 0.3 else bytes(content)

    def read(path: Path) -> Any:
        source = cifar10.find_set("cifar100", path)
        assert source is not None
        return cifar10.open_set(source, "CIFAR-100")

    mutator = one_of(inner, inner, bytes_of(packed))
    return Attack("cifar", archive, mutator, read, (DataError,), 60_000)


def idx_files(folder: Path) -> Attack:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for name in ("a", "a.gz"):
        idx.write_idx(folder / name, array)
    valid = [(folder / "a").read_bytes(), (folder / "a.gz").read_bytes()]
    valid.append(valid[1] * 3)

    def compressed(rng: random.Random) -> bytes:
        return gzip.compress(damaged(rng, valid[0], valid), 1)

    return Attack(
        "idx", folder / "file", one_of(bytes_of(valid), compressed),
        lambda path: idx.read_idx(path, 3), (DataError,), 150_000,
    )  # fmt: skip


def meta_mat(folder: Path) -> Attack:
    head, element = trees.META[:128], zlib.decompress(trees.META[136:])
    words = (
        b"\x0e\0\0\0",
        b"\x0f\0\0\0",
        b"\x02\0\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"\x0e\0\0\0\0\0\0\0",
    )

    def inner(rng: random.Random) -> bytes:
        content = damaged(rng, element, [element], words)
        if rng.random() < 0.2:
            return head + content
        content = zlib.compress(content, 1)
        return head + struct.pack("<II", 15, len(content)) + content

    mutator = one_of(inner, inner, bytes_of([trees.META], words))
    return Attack("meta.mat", folder / "meta.mat", mutator, read_synsets, (DataError,), 120_000)


def label_lists(folder: Path) -> Attack:
    root = trees.ilsvrc(folder / "set")
    valid = [(root / name).read_bytes() for name in ("names.txt", "numbers.txt", "synsets.txt")]
    words = (b"\n", b"\r", b"\0", b"\xff", b"99999999999999999999", "²".encode(), "٣".encode())
    mutator = bytes_of(valid, words)

    def read(path: Path) -> Any:
        return list_labelled(root / "val", path, trees.CLASSES, path)

    return Attack("labels", folder / "file", mutator, read, (DataError,), 30_000)


def images(folder: Path) -> Attack:
    valid = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        for mode in ("RGB", "P", "L", "1"):
            if (kind, mode) in (("JPEG", "P"), ("PPM", "P")):
                continue
            file = io.BytesIO()
            picture = trees.image(1, (9, 7)).convert(mode)
            if kind == "TIFF" and mode == "RGB":
                picture.save(file, kind, compression="tiff_lzw")
            else:
                picture.save(file, kind)
            valid.append(file.getvalue())
    trees.bomb(folder / "bomb", 3000, 3000)
    valid.append((folder / "bomb").read_bytes())
    plain = bytes_of(valid, (b"IDAT", b"IHDR", b"\0\0\0\0", b"\xff\xda", b"\xff\xff"))

    def resummed(rng: random.Random) -> bytes:
        """PNG files whose chunks have their right check sums."""
        content = damaged(rng, valid[rng.randrange(4)], valid)  # PNG comes first
        out, at = bytearray(content[:8]), 8
        while at + 12 <= len(content):
            size = min(int.from_bytes(content[at : at + 4], "big"), len(content) - at - 12)
            chunk = content[at + 4 : at + 8 + size]
            out += struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk))
            at += 12 + size
        return bytes(out)

    def read(path: Path) -> Any:
        with quiet_pillow():
            check_file(path, path.name)
            return decode(path, path.name, (8, 8))

    mutator = one_of(plain, plain, resummed)
    return Attack("picture", folder / "picture", mutator, read, (DataError,), 150_000)


def packed(folder: Path) -> Attack:
    """packed.json, with its checksum made right or not; the index and the sums with it."""
    trees.class_folders(folder / "source" / "train", 2)
    trees.class_folders(folder / "source" / "val", 1, start=50)
    parts = find_listings(folder / "source")
    root = folder / "packed"
    pack(parts["train"], parts["val"], root, PackSettings(size=(8, 8), shard=4), 1)
    compute_sums(open_packed(root)[0], 1)
    said = json.loads((root / "packed.json").read_text())
    whole = {path.name: path.read_bytes() for path in root.iterdir()}
    inner = {key: value for key, value in said.items() if key != "blake2b"}

    def write(rng: random.Random) -> bytes:
        for name, content in whole.items():
            (root / name).write_bytes(content)
        kind = rng.randrange(4)
        if kind == 0:
            return damaged(rng, whole["packed.json"], [])
        if kind == 1:
            text = damaged_json(rng, inner if rng.random() < 0.5 else {**inner, "version": 1})
            try:
                return manifest_text(json.loads(text))
            except (ValueError, RecursionError, TypeError):
                return text.encode()
        if kind == 2:
            index = damaged(rng, whole["train.index.npy"], [])
            (root / "train.index.npy").write_bytes(index)
            changed = json.loads(json.dumps(inner))
            changed["parts"]["train"]["index"] = digest_of(index)
            return manifest_text(changed)
        arrays = safetensors.numpy.load(whole["statistics.safetensors"])
        name = rng.choice(list(arrays))
        arrays[name] = rng.choice((
            arrays[name][:1], arrays[name] * -7, arrays[name].astype(np.float64),
            np.zeros(0, np.int64),
        ))  # fmt: skip
        facts = {"manifest": digest_of(whole["packed.json"]), "blake2b": checksum(arrays)}
        content = safetensors.numpy.save(arrays, facts)
        (root / "statistics.safetensors").write_bytes(
            damaged(rng, content, []) if rng.random() < 0.5 else content
        )
        return whole["packed.json"]

    def read(path: Path) -> Any:
        train, val = open_packed(root, cache_bytes=0)
        read_sums(root)
        with quiet_pillow():
            train.read([0, len(train) - 1])
        train.close()
        val.close()

    return Attack("packed", root / "packed.json", write, read, (DataError,), 40_000)
