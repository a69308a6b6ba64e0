"""CIFAR-10 and CIFAR-100, in the Python (pickle) and the binary version, unpacked or as .tar.gz.

Each image is 3072 bytes: 1024 red, then green, then blue, each row by row. CIFAR-100 is read with
its 100 fine labels. Pickles are read by `safepickle`: a hostile file can at worst be refused.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convnet.common.reading import Budget, BudgetError, Limit, open_file, read_bytes
from convnet.data.dataset import ArrayDataset, DataError, Images, Labels, check_labels, shown
from convnet.data.inflate import maybe_gzip
from convnet.data.safe_pickle import load_pickle
from convnet.data.tar_files import TarError, read_members

_SIZE = 32
_PIXELS = 3 * _SIZE * _SIZE
# A file of the real sets has at most 160 MB, an archive 190 MB when it is decompressed.
_MAX_FILE = Limit(1 << 29, "bytes in a file of the set")
_MAX_ARCHIVE = Limit(1 << 29, "bytes when it is decompressed")


@dataclass(frozen=True)
class _Version:
    """Where one version of a set keeps what."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str  # file with the names of the classes; may be absent
    pickled: bool
    label_key: str = ""  # in a pickle: the labels
    names_key: str = ""  # in a pickle: the names of the classes
    label_bytes: int = 1  # in a binary record: how many labels come first; the last is ours


_VERSIONS: dict[str, tuple[_Version, ...]] = {
    "cifar10": (
        _Version(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train=tuple(f"data_batch_{i}" for i in range(1, 6)),
            test="test_batch",
            names="batches.meta",
            pickled=True,
            label_key="labels",
            names_key="label_names",
        ),
        _Version(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            test="test_batch.bin",
            names="batches.meta.txt",
            pickled=False,
        ),
    ),
    "cifar100": (
        _Version(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train=("train",),
            test="test",
            names="meta",
            pickled=True,
            label_key="fine_labels",
            names_key="fine_label_names",
        ),
        _Version(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train=("train.bin",),
            test="test.bin",
            names="fine_label_names.txt",
            pickled=False,
            label_bytes=2,
        ),
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
    if place.is_file():
        for version in _VERSIONS[name]:
            if place.name == version.archive:
                return Source(version, place, classes, archive=True)
        return None
    for version in _VERSIONS[name]:
        for folder in (place / version.folder, place):
            if any((folder / file).is_file() for file in (*version.train, version.test)):
                return Source(version, folder, classes, archive=False)
    for version in _VERSIONS[name]:
        if (place / version.archive).is_file():
            return Source(version, place / version.archive, classes, archive=True)
    return None


def archive_names(name: str) -> list[str]:
    """The file names under which the set is published."""
    return [version.archive for version in _VERSIONS[name]]


def open_set(source: Source, title: str) -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test images, uint8 [N, 32, 32, 3].

    Raises:
        DataError: a file of the set is missing, truncated or damaged, or a label is out of range.
    """
    place = shown(source.place)
    if source.archive:
        contents = _read_archive(source)
        return _assemble(source, title, place, contents.get)
    return _assemble(source, title, place, lambda file: _read_file(source.place / file))


def _read_file(path: Path) -> bytes | None:
    try:
        return read_bytes(path, _MAX_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{shown(path)}: expected a readable file, got {error.strerror}") from None


def _read_archive(source: Source) -> dict[str, bytes]:
    """The needed files of a .tar.gz, by name; nothing is written to disk."""
    version, place = source.version, shown(source.place)
    wanted = {f"{version.folder}/{f}": f for f in (*version.train, version.test, version.names)}
    try:
        with open_file(source.place) as file:
            found = read_members(maybe_gzip(file, Budget(_MAX_ARCHIVE)), wanted, _MAX_FILE)
    except EOFError:
        raise DataError(
            f"{place}: expected a whole .tar.gz archive, got one that ends early (truncated)"
        ) from None
    except (TarError, BudgetError, zlib.error, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{place}: expected a whole .tar.gz archive, got one that cannot be read: {reason}"
        ) from None
    return {wanted[name]: content for name, content in found.items()}


def _assemble(
    source: Source, title: str, place: str, read: _Reader
) -> tuple[ArrayDataset, ArrayDataset]:
    version = source.version
    classes = _class_names(source, place, read)
    parts = [_read_part(source, place, file, read) for file in version.train]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    test_images, test_labels = _read_part(source, place, version.test, read)
    description = f"{title} from {place}"
    return (
        ArrayDataset(images, labels, classes, f"{description}: {len(images):,} training images"),
        ArrayDataset(
            test_images, test_labels, classes, f"{description}: {len(test_images):,} test images"
        ),
    )


def _read_part(source: Source, place: str, file: str, read: _Reader) -> tuple[Images, Labels]:
    name = f"{place}: {shown(file)}"
    content = read(file)
    if content is None:
        raise DataError(f"{name}: expected this file in the set, got none")
    if not content:
        raise DataError(f"{name}: expected a part of the set, got an empty file")
    version = source.version
    if version.pickled:
        rows, labels = _parse_pickle(name, content, version.label_key)
    else:
        rows, labels = _parse_binary(name, content, version.label_bytes)
    checked = check_labels(labels, source.classes, name)
    if len(rows) != len(checked):
        raise DataError(f"{name}: expected {len(rows)} labels, got {len(checked)}")
    planes = rows.reshape(-1, 3, _SIZE, _SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), checked


def _parse_binary(name: str, content: bytes, label_bytes: int) -> tuple[Images, npt.ArrayLike]:
    record = label_bytes + _PIXELS
    if len(content) % record:
        raise DataError(
            f"{name}: expected a multiple of {record} bytes (records of labels and"
            f" {_PIXELS} pixels), got {len(content)} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _parse_pickle(name: str, content: bytes, label_key: str) -> tuple[Images, npt.ArrayLike]:
    batch = load_pickle(name, content)
    for key in ("data", label_key):
        if key not in batch:
            found = ", ".join(sorted(batch)) or "nothing"
            raise DataError(f"{name}: expected the key '{key}', got {shown(found)}")
    rows = batch["data"]
    if not (
        isinstance(rows, np.ndarray)
        and rows.dtype == np.uint8
        and rows.ndim == 2
        and rows.shape[1] == _PIXELS
    ):
        got = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else type(rows)
        raise DataError(f"{name}: data: expected uint8 [N, {_PIXELS}], got {got}")
    labels = batch[label_key]
    whole = isinstance(labels, np.ndarray) or (
        isinstance(labels, list) and all(type(label) is int for label in labels)
    )
    if not whole:
        raise DataError(
            f"{name}: {label_key}: expected a list of whole numbers, got something else"
        )
    return rows, labels


def _class_names(source: Source, place: str, read: _Reader) -> tuple[str, ...]:
    """The names in the set's own file, or the numbers of the classes where it is absent."""
    version = source.version
    content = read(version.names)
    if content is None:
        return tuple(str(i) for i in range(source.classes))
    name = f"{place}: {version.names}"
    if version.pickled:
        entries = load_pickle(name, content).get(version.names_key)
        names = entries if isinstance(entries, list) else []
    else:
        names = content.decode("utf-8", "replace").split()
    classes = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)
    if len(classes) != source.classes:
        raise DataError(
            f"{name}: expected the names of {source.classes} classes, got {len(classes)}"
        )
    return classes
