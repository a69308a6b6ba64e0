"""CIFAR-10 and CIFAR-100, in the Python (pickle) and the binary version, unpacked or as .tar.gz.

Each image is 3072 bytes: 1024 red, then green, then blue, each row by row. CIFAR-100 is read with
its 100 fine labels. Pickles are read by `safe_pickle`: a hostile file can at worst be refused.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convnet.common.reading import Budget, Limit, read_bytes
from convnet.data.dataset import (
    ArrayDataset,
    Images,
    Labels,
    check_labels,
    mismatch,
    readable,
    shown,
)
from convnet.data.inflate import decompressing
from convnet.data.safe_pickle import load_pickle
from convnet.data.tar_files import read_members

_SIZE = 32
_PIXELS = 3 * _SIZE * _SIZE
# A file of the real sets has at most 160 MB, an archive 190 MB when it is decompressed.
_MAX_FILE = Limit(1 << 29, "bytes in a file of the set")
_MAX_ARCHIVE = Limit(1 << 29, "bytes when it is decompressed")


class _Version(NamedTuple):
    """Where one version of a set keeps what.

    Attributes:
        folder: name of the unpacked folder.
        train, test: names of the files with training and test images.
        names: the file with the names of the classes; may be absent.
        keys: in a pickle, those of the labels and of the names of the classes; None: no pickles.
        label_bytes: in a binary record, how many labels come first; the last is ours.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    keys: tuple[str, str] | None = None
    label_bytes: int = 1

    @property
    def archive(self) -> str:
        """The name of the .tar.gz file."""
        name = self.folder.replace("-batches-py", "-python").replace("-batches-bin", "-binary")
        return f"{name}.tar.gz"


_FIVE = tuple(f"data_batch_{i}" for i in range(1, 6))
_FIVE_BIN = tuple(f"{name}.bin" for name in _FIVE)
_KEYS_10, _KEYS_100 = ("labels", "label_names"), ("fine_labels", "fine_label_names")
_VERSIONS: dict[str, tuple[_Version, ...]] = {
    "cifar10": (
        _Version("cifar-10-batches-py", _FIVE, "test_batch", "batches.meta", _KEYS_10),
        _Version("cifar-10-batches-bin", _FIVE_BIN, "test_batch.bin", "batches.meta.txt"),
    ),
    "cifar100": (
        _Version("cifar-100-python", ("train",), "test", "meta", _KEYS_100),
        _Version("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", None, 2),
    ),
}

# Reads one file of the set: its bytes, or None where it is absent.
_Reader = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Source:
    """A set that was found: which version, where, and how to read its files."""

    version: _Version
    place: Path
    classes: int
    archive: bool


def find_set(name: str, place: Path) -> Source | None:
    """Looks for `cifar10` or `cifar100` at a place.

    Args:
        name: "cifar10" or "cifar100".
        place: the .tar.gz file, the unpacked folder, or a folder that holds either.

    Returns:
        None where nothing of the set is there.
    """
    classes = 10 if name == "cifar10" else 100
    versions = _VERSIONS[name]
    folders = [(one, folder) for one in versions for folder in (place / one.folder, place)]
    for version, folder in folders:
        if any((folder / file).is_file() for file in (*version.train, version.test)):
            return Source(version, folder, classes, archive=False)
    for version in versions:
        for file in (place, place / version.archive):
            if file.name == version.archive and file.is_file():
                return Source(version, file, classes, archive=True)
    return None


def archive_names(name: str) -> list[str]:
    """The file names under which the set is published."""
    return [version.archive for version in _VERSIONS[name]]


def open_set(source: Source, title: str) -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test images, uint8 [N, 32, 32, 3].

    Raises:
        DataError: a file of the set is missing, truncated or damaged, or a label is out of range.
    """
    place, version = shown(source.place), source.version
    read: _Reader = partial(_read_file, source.place)
    if source.archive:
        read = _read_archive(source).get
    classes = _class_names(source, place, read)
    train = [_read_part(source, place, file, read) for file in version.train]
    test = [_read_part(source, place, version.test, read)]
    train_set, test_set = (
        ArrayDataset(
            np.concatenate([images for images, _ in parts]),
            np.concatenate([labels for _, labels in parts]),
            classes,
            f"{title} from {place}: {sum(len(labels) for _, labels in parts):,} {what} images",
        )
        for parts, what in ((train, "training"), (test, "test"))
    )
    return train_set, test_set


def _read_file(folder: Path, file: str) -> bytes | None:
    with readable(folder / file), contextlib.suppress(FileNotFoundError):
        return read_bytes(folder / file, _MAX_FILE)
    return None


def _read_archive(source: Source) -> dict[str, bytes]:
    """The needed files of a .tar.gz, by name; nothing is written to disk."""
    version = source.version
    wanted = {f"{version.folder}/{f}": f for f in (*version.train, version.test, version.names)}
    with decompressing(source.place, ".tar.gz archive", Budget(_MAX_ARCHIVE)) as stream:
        found = read_members(stream, wanted, _MAX_FILE)
    return {wanted[name]: content for name, content in found.items()}


def _read_part(source: Source, place: str, file: str, read: _Reader) -> tuple[Images, Labels]:
    name = f"{place}: {shown(file)}"
    content = read(file)
    if content is None:
        raise mismatch(name, "this file in the set", "none")
    if not content:
        raise mismatch(name, "a part of the set", "an empty file")
    version = source.version
    if version.keys is not None:
        rows, labels = _parse_pickle(name, content, version.keys[0])
    else:
        rows, labels = _parse_binary(name, content, version.label_bytes)
    checked = check_labels(labels, source.classes, name)
    if len(rows) != len(checked):
        raise mismatch(name, f"{len(rows)} labels", len(checked))
    planes = rows.reshape(-1, 3, _SIZE, _SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), checked


def _parse_binary(name: str, content: bytes, label_bytes: int) -> tuple[Images, npt.ArrayLike]:
    record = label_bytes + _PIXELS
    if len(content) % record:
        expected = f"a multiple of {record} bytes (records of labels and {_PIXELS} pixels)"
        raise mismatch(name, expected, f"{len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _parse_pickle(name: str, content: bytes, label_key: str) -> tuple[Images, npt.ArrayLike]:
    batch = load_pickle(name, content)
    for key in ("data", label_key):
        if key not in batch:
            found = ", ".join(sorted(batch)) or "nothing"
            raise mismatch(name, f"the key '{key}'", shown(found))
    rows = batch["data"]
    if not isinstance(rows, np.ndarray):
        raise mismatch(f"{name}: data", f"uint8 [N, {_PIXELS}]", type(rows))
    if rows.dtype != np.uint8 or rows.shape[1:] != (_PIXELS,):
        got = f"{rows.dtype} {list(rows.shape)}"
        raise mismatch(f"{name}: data", f"uint8 [N, {_PIXELS}]", got)
    labels = batch[label_key]
    if not isinstance(labels, np.ndarray) and not (
        isinstance(labels, list) and all(type(label) is int for label in labels)
    ):
        raise mismatch(f"{name}: {label_key}", "a list of whole numbers", "something else")
    return rows, labels


def _class_names(source: Source, place: str, read: _Reader) -> tuple[str, ...]:
    """The names in the set's own file, or the numbers of the classes where it is absent."""
    version = source.version
    content = read(version.names)
    if content is None:
        return tuple(str(i) for i in range(source.classes))
    name = f"{place}: {version.names}"
    if version.keys is not None:
        entries = load_pickle(name, content).get(version.keys[1])
        names = entries if isinstance(entries, list) else []
    else:
        names = content.decode("utf-8", "replace").split()
    classes = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)
    if len(classes) != source.classes:
        raise mismatch(name, f"the names of {source.classes} classes", len(classes))
    return classes
