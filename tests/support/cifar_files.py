"""CIFAR-10 and CIFAR-100 in every form they are published in, three images a file."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convnet.data import cifar10

COUNT = 3  # images in each file of the small sets made here


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (COUNT, 3072), np.uint8)


def labels(seed: int, classes: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, classes, COUNT).tolist()


# ---- a pickle as Python 2 wrote it (protocol 2, byte strings, numpy's old names) -----------------


def old_string(text: bytes) -> bytes:
    short = len(text) < 256
    return (b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))) + text


def old_int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def old_array(array: np.ndarray) -> bytes:
    shape = b"".join(old_int(size) for size in array.shape)
    kind = b"cnumpy\ndtype\n" + old_string(b"u1") + old_int(0) + old_int(1) + b"\x87R"
    kind += b"(" + old_int(3) + old_string(b"|") + b"NNN" + 2 * old_int(-1) + old_int(0) + b"tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + (b"cnumpy\nndarray\n" + old_int(0) + b"\x85" + old_string(b"b") + b"\x87R")
        + (b"(" + old_int(1) + b"(" + shape + b"t" + kind + b"\x89" + old_string(array.tobytes()))
        + b"tb"
    )


def old_list(values: list[Any]) -> bytes:
    return b"](" + b"".join(map(old_value, values)) + b"e"


def old_value(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return old_array(value)
    if isinstance(value, list):
        return old_list(value)
    return old_int(value) if isinstance(value, int) else old_string(value.encode())


def python2_pickle(entries: dict[str, Any]) -> bytes:
    items = b"".join(old_string(k.encode()) + old_value(v) for k, v in entries.items())
    return b"\x80\x02}(" + items + b"u."


# ---- small sets ----------------------------------------------------------------------------------

Writer = Callable[[dict[str, Any]], bytes]


def write_python(root: Path, name: str, write: Writer, skip: str = "") -> Path:
    version = cifar10._VERSIONS[name][0]
    folder = root / version.folder
    folder.mkdir(parents=True)
    classes = 10 if name == "cifar10" else 100
    for seed, file in enumerate((*version.train, version.test)):
        entries = {"data": rows(seed), version.keys[0]: labels(seed, classes)}
        (folder / file).write_bytes(write(entries))
    names = [f"class{i}" for i in range(classes)]
    (folder / version.names).write_bytes(write({version.keys[1]: names}))
    if skip:
        (folder / skip).unlink()
    return folder


def write_binary(root: Path, name: str) -> Path:
    version = cifar10._VERSIONS[name][1]
    folder = root / version.folder
    folder.mkdir(parents=True)
    classes = 10 if name == "cifar10" else 100
    for seed, file in enumerate((*version.train, version.test)):
        label = np.array(labels(seed, classes), np.uint8)[:, None]
        coarse = np.full_like(label, 19)
        before = [coarse, label] if classes == 100 else [label]
        (folder / file).write_bytes(np.hstack([*before, rows(seed)]).tobytes())
    (folder / version.names).write_text("\n".join(f"class{i}" for i in range(classes)) + "\n\n")
    return folder


def pack(folder: Path) -> Path:
    name = folder.name.replace("-batches-py", "-python").replace("-batches-bin", "-binary")
    path = folder.parent / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path
