"""CIFAR-10 and CIFAR-100 in every form they are published in, and hostile pickles."""

from __future__ import annotations

import contextlib
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import (
    COUNT,
    Writer,
    labels,
    old_int,
    pack,
    python2_pickle,
    rows,
    write_binary,
    write_python,
)

from convnet.data import DataError, cifar10
from convnet.data.safe_pickle import load_pickle


def test_the_old_pickle_is_one() -> None:
    """The writer above agrees with Python's own reader."""
    array = rows(0)
    content = python2_pickle({"data": array, "labels": [1, 2, 3]})
    loaded = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(loaded[b"data"], array)
    assert loaded[b"labels"] == [1, 2, 3]


def opened(name: str, place: Path) -> tuple[Any, Any]:
    source = cifar10.find_set(name, place)
    assert source is not None
    return cifar10.open_set(source, "CIFAR")


def check(name: str, place: Path) -> None:
    train, test = opened(name, place)
    files = 5 if name == "cifar10" else 1
    classes = 10 if name == "cifar10" else 100
    assert len(train) == files * COUNT
    assert len(test) == COUNT
    assert train.shape == (32, 32, 3)
    assert train.images.flags.c_contiguous
    assert train.classes == tuple(f"class{i}" for i in range(classes))
    expected = [label for seed in range(files) for label in labels(seed, classes)]
    assert train.labels.tolist() == expected
    assert test.labels.tolist() == labels(files, classes)
    image, row = train.read([1])[0], rows(0)[1]
    for channel in range(3):
        for h, w in ((0, 0), (0, 1), (1, 0), (31, 31)):
            assert image[h, w, channel] == row[1024 * channel + 32 * h + w]


WRITERS: dict[str, Writer] = {"python2": python2_pickle} | {
    f"protocol{protocol}": lambda entries, protocol=protocol: pickle.dumps(entries, protocol)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("writer", WRITERS)
def test_python_version(tmp_path: Path, name: str, writer: str) -> None:
    folder = write_python(tmp_path, name, WRITERS[writer])
    check(name, tmp_path)
    check(name, folder)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_version(tmp_path: Path, name: str) -> None:
    folder = write_binary(tmp_path, name)
    check(name, tmp_path)
    check(name, folder)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("version", ["python", "binary"])
def test_archive(tmp_path: Path, name: str, version: str) -> None:
    made = tmp_path / "made"
    folder = (
        write_python(made, name, python2_pickle)
        if version == "python"
        else write_binary(made, name)
    )
    archive = pack(folder).rename(tmp_path / pack(folder).name)
    check(name, archive)
    check(name, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["made", archive.name])


def test_arrays_of_labels_and_fortran_order() -> None:
    for entries in (
        {"data": np.asfortranarray(rows(1)), "labels": np.array([1, 2, 3])},
        {"data": rows(1), "labels": np.array([1, 2, 3], ">i2")},
    ):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            loaded = load_pickle("x", pickle.dumps(entries, protocol))
            np.testing.assert_array_equal(loaded["data"], rows(1))
            assert loaded["labels"].tolist() == [1, 2, 3]


def test_without_class_names_they_are_numbered(tmp_path: Path) -> None:
    write_python(tmp_path, "cifar10", python2_pickle, skip="batches.meta")
    assert opened("cifar10", tmp_path)[0].classes == tuple("0123456789")


def test_nothing_there(tmp_path: Path) -> None:
    assert cifar10.find_set("cifar10", tmp_path) is None
    (tmp_path / "x.tar.gz").touch()
    assert cifar10.find_set("cifar10", tmp_path / "x.tar.gz") is None
    write_python(tmp_path, "cifar100", python2_pickle)
    assert cifar10.find_set("cifar10", tmp_path) is None


# ---- what is refused -----------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    write_python(tmp_path, "cifar10", python2_pickle, skip="data_batch_4")
    with pytest.raises(DataError, match="data_batch_4: expected this file in the set, got none"):
        opened("cifar10", tmp_path)


def whole() -> dict[str, Any]:
    return {"data": rows(0), "labels": [1, 2, 3]}


class Evil:
    """Its pickle runs a command when it is read by a trusting reader."""

    def __init__(self, command: Callable[..., Any], *arguments: Any) -> None:
        self.call = (command, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


BAD_PICKLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "got an empty file"),
    "no pickle": (b"\x89PNG....", "the operation 0x50"),
    "truncated": (python2_pickle(whole())[:-200], "sound pickle file, got one that ends early"),
    "deep": (
        b"\x80\x02" + b"(" * 100_000 + b"t" * 99_999 + b".",
        "expected a dictionary, got tuple",
    ),
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "got the number 2147483647"),
    "not a dictionary": (pickle.dumps([1, 2]), "expected a dictionary, got list"),
    "no labels": (pickle.dumps({"data": rows(0)}), "expected the key 'labels', got data"),
    "no data": (pickle.dumps({"labels": [1]}), "expected the key 'data', got labels"),
    "text labels": (pickle.dumps({"data": rows(0), "labels": ["a"] * 3}), "list of whole numbers"),
    "label -1": (pickle.dumps(whole() | {"labels": [1, -1, 3]}), "expected 0 .. 9, got -1"),
    "label 10": (pickle.dumps(whole() | {"labels": [1, 2, 10]}), "image 2: expected 0 .. 9"),
    "two labels": (pickle.dumps(whole() | {"labels": [1, 2]}), "expected 3 labels, got 2"),
    "huge label": (pickle.dumps(whole() | {"labels": [1, 2, 10**30]}), "expected whole numbers"),
    "narrow": (pickle.dumps(whole() | {"data": rows(0)[:, 1:].copy()}), r"uint8 \[N, 3072\], got"),
    "wide": (pickle.dumps(whole() | {"data": rows(0).astype(np.int32)}), r"got int32 \[3, 3072\]"),
    "floats": (pickle.dumps(whole() | {"data": np.zeros((3, 3072))}), "array of whole numbers"),
    "objects": (pickle.dumps(whole() | {"data": np.array([[None]])}), "got another type"),
    "lying shape": (
        python2_pickle(whole()).replace(old_int(3) + old_int(3072), old_int(4) + old_int(3072)),
        r"expected 12288 bytes for an array of shape \[4, 3072\], got 9216 bytes",
    ),
    "build on a function": (b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.", "no state to set"),
    "system": (pickle.dumps(Evil(os.system, "true")), r"got (posix|nt)\.system"),
    "eval": (pickle.dumps(Evil(eval, "1")), r"got (builtins|__builtin__)\.eval"),
    "getattr": (pickle.dumps(Evil(getattr, 1, "real"), 4), r"got builtins\.getattr"),
    "other numpy": (pickle.dumps(np.float64), r"got numpy\.float64"),
    "dotted": (pickle.dumps(Evil(np.ndarray.dumps, 1), 4), "got builtins.getattr|got numpy"),
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_bad_pickles(tmp_path: Path, name: str) -> None:
    content, message = BAD_PICKLES[name]
    folder = write_python(tmp_path, "cifar10", python2_pickle)
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        opened("cifar10", tmp_path)
    assert "data_batch_2" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_pickles_never_get_past_data_error() -> None:
    sound = bytearray(python2_pickle(whole()))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(sound)
        for place in rng.integers(0, 200, 3):  # the part before the pixels
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(DataError):
            cifar10._parse_pickle("x", bytes(damaged), "labels")


def test_bad_binary(tmp_path: Path) -> None:
    folder = write_binary(tmp_path, "cifar10")
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"data_batch_3.bin: expected a multiple of 3073 bytes"):
        opened("cifar10", tmp_path)
    path.write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match=r"data_batch_3.bin: label of image 0: expected 0 .. 9"):
        opened("cifar10", tmp_path)
    (folder / "batches.meta.txt").write_text("one two")
    with pytest.raises(DataError, match="expected the names of 10 classes, got 2"):
        opened("cifar10", tmp_path)


def test_bad_archives(tmp_path: Path) -> None:
    archive = pack(write_python(tmp_path / "made", "cifar100", python2_pickle))
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"not an archive", b""):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"expected a whole .tar.gz archive") as error:
            opened("cifar100", archive)
        assert str(archive) in str(error.value)
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(DataError, match="train: expected this file in the set, got none"):
        opened("cifar100", archive)
