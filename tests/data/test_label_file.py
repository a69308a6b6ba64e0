"""Validation images whose labels are in a file, as ILSVRC publishes them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import META

from convnet.data import DataError
from convnet.data.folder.meta_mat import read_synsets
from convnet.data.folder.trees import drop_copies, find_listings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.ilsvrc(tmp_path)


@pytest.mark.parametrize(
    ("labels", "synsets"), [("names.txt", None), ("numbers.txt", "synsets.txt")]
)
def test_labels_in_a_file(root: Path, labels: str, synsets: str | None) -> None:
    found = find_listings(root, None, root / labels, root / synsets if synsets else None)
    assert found["val"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found["val"].files[1] == "val_00000002.JPEG"
    assert found["val"].classes == found["train"].classes == trees.CLASSES


def test_validation_folder_elsewhere(root: Path) -> None:
    (root / "val").rename(root / "pictures")
    found = find_listings(root / "train", root / "pictures", root / "names.txt")
    assert len(found["train"].files) == 30
    assert found["val"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(DataError, match=r"names.txt: expected labels of a folder of validation"):
        find_listings(root / "train", None, root / "names.txt")


def test_class_folders_that_are_numbers_are_names(tmp_path: Path) -> None:
    trees.ilsvrc(tmp_path)
    for old, new in zip(trees.CLASSES, ("3", "1", "2"), strict=True):
        (tmp_path / "train" / old).rename(tmp_path / "train" / new)
    (tmp_path / "numbers.txt").write_text("3\n1\n2\n3\n1\n1\n")
    found = find_listings(tmp_path, None, tmp_path / "numbers.txt")
    assert [found["val"].classes[label] for label in found["val"].labels] == list("312311")


def test_refuses_numbers_without_their_meaning(root: Path) -> None:
    with pytest.raises(DataError, match=r"expected names of class folders, got numbers; ILSVRC's"):
        find_listings(root, None, root / "numbers.txt")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("names.txt", b"cat\ndog\n", r"names.txt: expected 6 labels, one a line .*, got 2"),
        ("names.txt", b"cat\n" * 5 + b"cow\n", r"line 6: expected one of the 3 classes .* got cow"),
        ("names.txt", b"cat\n" * 5 + b"\n\ncat\n", r"names.txt: expected 6 labels.* got 8"),
        ("names.txt", b"\xff\xfe" * 6, r"names.txt: expected a text file, got a damaged file"),
        ("names.txt", None, r"names.txt: expected a readable file, got No such file"),
    ],
)
def test_label_files_that_do_not_fit(
    root: Path, name: str, content: bytes | None, expected: str
) -> None:
    (root / name).unlink()
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        find_listings(root, None, root / name)


@pytest.mark.parametrize(
    ("numbers", "synsets", "expected"),
    [
        ("0\n" * 6, "emu\ncat\ndog\n", r"line 1: expected a number from 1 to 3, got 0"),
        ("1\n" * 5 + "4\n", "emu\ncat\ndog\n", r"line 6: expected a number from 1 to 3, got 4"),
        ("9" * 50 + "\n" + "1\n" * 5, "emu\n", r"line 1: expected a number from 1 to 1"),
        ("1\n" * 6, "\nemu\n", r"synsets.txt: line 1: expected a class, got nothing"),
        ("2\n" * 6, "emu\ncow\n", r"line 1: expected one of the 3 classes .* got cow"),
    ],
)
def test_numbers_that_do_not_fit(root: Path, numbers: str, synsets: str, expected: str) -> None:
    (root / "numbers.txt").write_text(numbers)
    (root / "synsets.txt").write_text(synsets)
    with pytest.raises(DataError, match=expected):
        find_listings(root, None, root / "numbers.txt", root / "synsets.txt")


def test_flat_images_without_labels(root: Path) -> None:
    with pytest.raises(DataError, match=r"val: expected class folders, got 6 images; .*--val-l"):
        find_listings(root)
    found = find_listings(root, unlabelled=True)
    assert found["val"].classes == ("unlabelled",)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected images directly in this folder"):
        find_listings(root, root / "empty", root / "names.txt")


def test_meta_mat(root: Path) -> None:
    path = root / "meta.mat"
    path.write_bytes(META)
    assert read_synsets(path) == ["n03", "n01", "n02"]
    for old, new in zip(trees.CLASSES, ("n01", "n02", "n03"), strict=True):
        (root / "train" / old).rename(root / "train" / new)
    found = find_listings(root, None, root / "numbers.txt", path)
    # Numbers 2, 3, 1 are n01, n02, n03.
    assert found["val"].labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_damaged_meta_mat(root: Path) -> None:
    path = root / "meta.mat"
    rng = np.random.default_rng(0)
    damaged = [META[:length] for length in range(0, len(META), 7)]
    for _ in range(300):
        changed = bytearray(META)
        changed[rng.integers(100, len(META))] = rng.integers(256)
        damaged.append(bytes(changed))
    wrong = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert len(read_synsets(path)) == 3
        except DataError:  # and nothing else
            wrong += 1
    assert wrong > len(damaged) // 2
    with pytest.raises(DataError, match=r"absent.mat: expected a readable file"):
        read_synsets(root / "absent.mat")


def test_drop_copies(tmp_path: Path) -> None:
    root = trees.class_folders(tmp_path / "train").parent
    trees.class_folders(root / "val", 2, start=500)
    for target in ("train/dog/again.png", "train/cat/002.copy.png", "val/emu/leak.png"):
        os.link(root / "train/cat/000.png", root / target)
    parts, dropped = drop_copies(find_listings(root))
    assert dropped == 3
    assert "emu/leak.png" in parts["val"].files
    assert len(parts["val"].files) == 7
    assert not {"cat/000.png", "dog/again.png"} & set(parts["train"].files)
    assert list(parts) == ["train", "val"]
