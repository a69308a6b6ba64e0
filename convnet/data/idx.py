"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

A header (two zero bytes, a type byte: 8 for uint8, the number of dimensions, then each dimension as
a big-endian 32-bit number), then the values in row-major order.
Source: https://yann.lecun.com/exdb/mnist/ and https://github.com/zalandoresearch/fashion-mnist
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from convnet.common.reading import Budget, BudgetError, Limit, open_file
from convnet.data.dataset import ArrayDataset, DataError, Images, check_labels, shown
from convnet.data.inflate import Stream, maybe_gzip

_UINT8 = 8
_CHUNK = 1 << 22  # bytes read at a time
_DECOMPRESSED = Limit(
    1 << 30, "bytes when it is decompressed", "a larger set is read from plain files (gunzip)"
)

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple("0123456789")


class Files(NamedTuple):
    """The four files of one set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def find_files(folder: Path) -> Files | None:
    """The four files in this folder, or None where it holds none of them.

    Raises:
        DataError: some of the four are there, but not all.
    """
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    found = [_find_file(folder, stem, 3 if "images" in stem else 1) for stem in stems]
    if not any(found):
        return None
    paths: list[Path] = []
    for stem, path in zip(stems, found, strict=True):
        if path is None:
            rank = 3 if "images" in stem else 1
            raise DataError(
                f"{shown(folder)}: expected {stem}-idx{rank}-ubyte or {stem}-idx{rank}-ubyte.gz"
                " beside the other files of the set, got neither"
            )
        paths.append(path)
    return Files(*paths)


def _find_file(folder: Path, stem: str, rank: int) -> Path | None:
    for joint in "-.":  # some mirrors name it train-images.idx3-ubyte
        for suffix in ("", ".gz"):
            path = folder / f"{stem}{joint}idx{rank}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def read_idx(path: Path, rank: int) -> Images:
    """The array in an IDX file of bytes, plain or gzipped (told apart by content).

    Args:
        path: the file.
        rank: how many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8 array of the shape the header names; read-only.

    Raises:
        DataError: it cannot be read, is no IDX file of bytes with this rank, holds nothing, or is
            shorter or longer than its header says.
    """
    try:
        with open_file(path) as file:
            return _parse(shown(path), file, rank)
    except EOFError:
        raise DataError(
            f"{shown(path)}: expected a whole gzip file, got one that ends early (truncated)"
        ) from None
    except zlib.error as error:
        raise DataError(f"{shown(path)}: expected a sound gzip file, got {error}") from None
    except BudgetError as error:
        raise DataError(f"{shown(path)}: {error}") from None
    except OSError as error:
        raise DataError(
            f"{shown(path)}: expected a readable file, got {error.strerror or error}"
        ) from None


def _parse(name: str, file: BinaryIO, rank: int) -> Images:
    stream = maybe_gzip(file, Budget(_DECOMPRESSED))
    header = stream.read(4 + 4 * rank)
    expected = bytes((0, 0, _UINT8, rank))
    if len(header) >= 4 and header[:4] != expected:
        raise DataError(
            f"{name}: expected an IDX file of bytes with {rank} dimensions (magic"
            f" {expected.hex()}), got magic {header[:4].hex()}"
        )
    if len(header) < 4 + 4 * rank:
        raise DataError(
            f"{name}: expected an IDX header of {4 + 4 * rank} bytes, got {len(header)} bytes"
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    count = math.prod(shape)
    if count == 0:
        raise DataError(f"{name}: expected at least one value, got shape {list(shape)}")
    values = _read_at_most(stream, count + 1)
    if len(values) != count:
        got = f"only {len(values)}" if len(values) < count else "more"
        raise DataError(f"{name}: expected {count} bytes for shape {list(shape)}, got {got}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_at_most(stream: Stream, count: int) -> bytearray:
    """Up to `count` bytes; memory grows with what is there, not with what a header claims."""
    values = bytearray()
    while len(values) < count:
        chunk = stream.read(min(_CHUNK, count - len(values)))
        if not chunk:
            break
        values += chunk
    return values


def write_idx(path: Path, array: Images) -> None:
    """Writes an array of bytes as an IDX file; gzipped, with no time stamp, if named `.gz`."""
    header = bytes((0, 0, _UINT8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + np.ascontiguousarray(array, np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def open_set(
    files: Files, classes: tuple[str, ...], description: str
) -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test images of one MNIST-like set.

    Raises:
        DataError: as `read_idx`; or images and labels differ in number, the two sets in size, or
            a label is out of range.
    """
    train = _open_pair(files.train_images, files.train_labels, classes)
    test = _open_pair(files.test_images, files.test_labels, classes)
    if train.shape != test.shape:
        raise DataError(
            f"{shown(files.test_images)}: expected images of {train.shape[0]}x{train.shape[1]}"
            f" as in training, got {test.shape[0]}x{test.shape[1]}"
        )
    train.description = f"{description}: {len(train):,} training images"
    test.description = f"{description}: {len(test):,} test images"
    return train, test


def _open_pair(images_path: Path, labels_path: Path, classes: tuple[str, ...]) -> ArrayDataset:
    images = read_idx(images_path, 3)[..., np.newaxis]
    labels = read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{shown(labels_path)}: expected {len(images)} labels, one for each image of"
            f" {shown(images_path.name)}, got {len(labels)}"
        )
    return ArrayDataset(
        images, check_labels(labels, len(classes), shown(labels_path)), classes, str(images_path)
    )
