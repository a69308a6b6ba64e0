"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

A header (two zero bytes, a type byte: 8 for uint8, the number of dimensions, then each dimension as
a big-endian 32-bit number), then the values in row-major order.
Source: https://yann.lecun.com/exdb/mnist/ and https://github.com/zalandoresearch/fashion-mnist
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet.common.reading import Budget, Limit
from convnet.data.dataset import ArrayDataset, Images, check_labels, mismatch, shown
from convnet.data.inflate import decompressing, read_up_to

_UINT8 = 8
_DECOMPRESSED = Limit(
    1 << 30, "bytes when it is decompressed", "a larger set is read from plain files (gunzip)"
)

_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
FASHION_CLASSES = tuple(_FASHION.split(","))
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
    found: list[Path] = []
    missing = []
    for stem, rank in (("train", 3), ("train", 1), ("t10k", 3), ("t10k", 1)):
        name = f"{stem}-{'images' if rank == 3 else 'labels'}"
        # Some mirrors name it train-images.idx3-ubyte.
        names = [f"{name}{joint}idx{rank}-ubyte{end}" for joint in "-." for end in ("", ".gz")]
        there = [folder / one for one in names if (folder / one).is_file()]
        found += there[:1]
        missing += [] if there else [f"{names[0]} or {names[1]}"]
    if found and missing:
        raise mismatch(folder, f"{missing[0]} beside the other files of the set", "neither")
    return Files(*found) if found else None


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
    with decompressing(path, "gzip file", Budget(_DECOMPRESSED)) as stream:
        header = stream.read(4 + 4 * rank)
        expected = bytes((0, 0, _UINT8, rank))
        if len(header) >= 4 and header[:4] != expected:
            kind = f"an IDX file of bytes with {rank} dimensions (magic {expected.hex()})"
            raise mismatch(path, kind, f"magic {header[:4].hex()}")
        if len(header) < 4 + 4 * rank:
            raise mismatch(path, f"an IDX header of {4 + 4 * rank} bytes", f"{len(header)} bytes")
        shape = struct.unpack(f">{rank}I", header[4:])
        count = math.prod(shape)
        if count == 0:
            raise mismatch(path, "at least one value", f"shape {list(shape)}")
        values = read_up_to(stream, count + 1)
    if len(values) != count:
        got = f"only {len(values)}" if len(values) < count else "more"
        raise mismatch(path, f"{count} bytes for shape {list(shape)}", got)
    return np.frombuffer(values, np.uint8).reshape(shape)


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
        expected = f"images of {train.shape[0]}x{train.shape[1]} as in training"
        raise mismatch(files.test_images, expected, f"{test.shape[0]}x{test.shape[1]}")
    train.description = f"{description}: {len(train):,} training images"
    test.description = f"{description}: {len(test):,} test images"
    return train, test


def _open_pair(images_path: Path, labels_path: Path, classes: tuple[str, ...]) -> ArrayDataset:
    images = read_idx(images_path, 3)[..., np.newaxis]
    labels = read_idx(labels_path, 1)
    if len(images) != len(labels):
        expected = f"{len(images)} labels, one for each image of {shown(images_path.name)}"
        raise mismatch(labels_path, expected, len(labels))
    return ArrayDataset(
        images, check_labels(labels, len(classes), shown(labels_path)), classes, str(images_path)
    )
