"""IDX files: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from convnet.data import DataError, idx


def header(*dims: int, kind: int = 8) -> bytes:
    return bytes((0, 0, kind, len(dims))) + struct.pack(f">{len(dims)}I", *dims)


def write_set(folder: Path, train: int = 6, test: int = 4, suffix: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        images = np.arange(count * 12, dtype=np.uint8).reshape(count, 4, 3)
        idx.write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images)
        labels = (np.arange(count) % 10).astype(np.uint8)
        idx.write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels)


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_values_in_row_major_order(tmp_path: Path, compressed: bool) -> None:
    content = header(2, 2, 3) + bytes(range(12))
    path = tmp_path / "pictures"  # the name does not matter, the content does
    path.write_bytes(gzip.compress(content) if compressed else content)
    array = idx.read_idx(path, 3)
    assert array.dtype == np.uint8
    assert array.shape == (2, 2, 3)
    assert array[1, 0, 2] == 8
    assert array[1, 1, 0] == 9


def test_written_files_carry_no_time(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        idx.write_idx(tmp_path / name, np.zeros((2, 3, 3), np.uint8))
    content = (tmp_path / "a.gz").read_bytes()
    assert content == (tmp_path / "b.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0"


WHOLE = header(2, 2, 3) + bytes(12)
BAD = {
    "empty": (b"", "expected an IDX header of 16 bytes, got 0 bytes"),
    "header cut": (WHOLE[:9], "expected an IDX header of 16 bytes, got 9 bytes"),
    "labels": (header(12) + bytes(12), r"magic 00000803\), got magic 00000801"),
    "other type": (header(1, 1, 1, kind=13) + bytes(4), "got magic 00000d03"),
    "text": (b"<!DOCTYPE html><html>", "got magic 3c21444f"),
    "short": (WHOLE[:-1], r"expected 12 bytes for shape \[2, 2, 3\], got only 11"),
    "long": (WHOLE + b"x", r"expected 12 bytes for shape \[2, 2, 3\], got more"),
    "no values": (header(0, 28, 28), r"at least one value, got shape \[0, 28, 28\]"),
    "vast": (header(2**32 - 1, 2**32 - 1, 2**32 - 1), "got only 0"),
    "gzip cut": (gzip.compress(WHOLE)[:-9], r"whole gzip file, got one that ends early"),
    "gzip tail cut": (gzip.compress(WHOLE)[:-3], r"whole gzip file, got one that ends early"),
    "gzip check sum": (
        gzip.compress(WHOLE)[:-8] + bytes(8),
        "whole gzip file, got .*incorrect data check",
    ),
    "gzip content": (gzip.compress(WHOLE)[:10] + b"\xff" * 30, "whole gzip file, got .*: Error"),
    "gzip short": (gzip.compress(WHOLE[:-2]), "got only 10"),
    "gzip long": (gzip.compress(WHOLE + bytes(100)), "got more"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        idx.read_idx(path, 3)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_refuses_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a readable file, got No such file"):
        idx.read_idx(tmp_path / "gone", 3)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_opens_a_set(tmp_path: Path, suffix: str) -> None:
    write_set(tmp_path, suffix=suffix)
    files = idx.find_files(tmp_path)
    assert files is not None
    train, test = idx.open_set(files, idx.DIGITS, "MNIST")
    assert (len(train), len(test)) == (6, 4)
    assert train.shape == test.shape == (4, 3, 1)
    assert train.labels.dtype == np.int32
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert train.read([2])[0, 3, 2, 0] == 35
    assert train.description == "MNIST: 6 training images"


def test_finds_nothing_and_half_of_it(tmp_path: Path) -> None:
    assert idx.find_files(tmp_path) is None
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"expected t10k-labels-idx1-ubyte or .* got neither"):
        idx.find_files(tmp_path)


def opened(folder: Path) -> None:
    files = idx.find_files(folder)
    assert files is not None
    idx.open_set(files, idx.DIGITS, "MNIST")


def test_refuses_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_set(tmp_path)
    idx.write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(DataError, match=r"train-labels.*expected 6 labels.*got 7"):
        opened(tmp_path)
    write_set(tmp_path)
    idx.write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((4, 5, 5), np.uint8))
    with pytest.raises(DataError, match=r"t10k-images.*expected images of 4x3.*got 5x5"):
        opened(tmp_path)


def test_refuses_a_label_out_of_range(tmp_path: Path) -> None:
    write_set(tmp_path)
    labels = np.array([0, 1, 10, 3, 200, 5], np.uint8)
    idx.write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels)
    message = r"train-labels.*label of image 2: expected 0 .. 9, got 10 \(2 such labels\)"
    with pytest.raises(DataError, match=message):
        opened(tmp_path)
