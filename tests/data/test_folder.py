"""Folders of images: listing, checking, splitting, decoding, keeping."""

from __future__ import annotations

import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnet.data import DataError, FolderDataset
from convnet.data.folder import image_folder
from convnet.data.folder.class_folders import list_classes, split_by_content
from convnet.data.folder.image_folder import open_folder


def write(path: Path, number: int, size: tuple[int, int] = (6, 5)) -> Path:
    """An image (height, width) whose every pixel says its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (number % 256, number // 256, 7)).save(path)
    return path


def number_of(image: np.ndarray) -> int:
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


def tree(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 20) -> Path:
    for label, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i:03}.png", label * count + i)
    return root


def numbers(dataset: FolderDataset) -> set[int]:
    return {number_of(image) for image in dataset.read(range(len(dataset)))}


# ---- listing -------------------------------------------------------------------------------------


def test_lists_images_by_class_and_path(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.PNG", "b/deep/er/1.jpg", "a/x.jpeg", ".hidden/1.png"):
        write(tmp_path / name, 0)
    for name in ("b/.DS_Store", "b/.thumbs/1.png", "b/notes.txt", "README", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = list_classes(tmp_path)
    assert listing.classes == ("a", "b")
    assert listing.files == ("a/x.jpeg", "b/10.PNG", "b/2.png", "b/deep/er/1.jpg")
    assert listing.labels.tolist() == [0, 1, 1, 1]
    assert listing.labels.dtype == np.int32
    assert listing.passed_over == {
        "hidden": 3,  # .hidden, .DS_Store, .thumbs
        "not images": 2,  # notes.txt, README
        "in no class folder": 1,
    }


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert len(list_classes(tmp_path / "data").files) == 40


def test_refuses_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: expected a folder of images, got No such file"):
        open_folder(tmp_path / "gone")
    write(tmp_path / "1.png", 1)
    message = r"one sub-folder of images per class, got none \(1 images directly in it\)"
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)
    with pytest.raises(DataError, match=r"1.png: expected a folder of images, got Not a dir"):
        open_folder(tmp_path / "1.png")
    write(tmp_path / "cat" / "1.png", 1)
    with pytest.raises(DataError, match=r"expected at least two classes, got one \(cat\)"):
        open_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"dog: expected images, got none"):
        open_folder(tmp_path)


# ---- two parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_folders_for_training_and_validation(tmp_path: Path, name: str) -> None:
    tree(tmp_path / "train", ("cat", "dog", "eel"), 4)
    write(tmp_path / name / "eel" / "1.png", 500)
    train, val = open_folder(tmp_path)
    assert len(train) == 12
    assert train.classes == val.classes == ("cat", "dog", "eel")
    assert val.labels.tolist() == [2]
    assert f"from {name}/" in val.description
    assert "12 training images" in train.description


def test_training_folder_alone_is_split(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    train, val = open_folder(tmp_path, val_fraction=0.25)
    assert (len(train), len(val)) == (30, 10)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    tree(tmp_path, ("car", "train"))
    assert open_folder(tmp_path)[0].classes == ("car", "train")


def test_parts_without_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "train" / f"cat.{i}.png", i)
        write(tmp_path / "test" / f"{i}.png", i)
    with pytest.raises(DataError, match="train: expected one sub-folder of images per class"):
        open_folder(tmp_path)
    tree(tmp_path / "train", count=4)
    tree(tmp_path / "test", count=2)
    train, val = open_folder(tmp_path)
    assert (len(train), len(val)) == (8, 4)
    assert train.description.endswith("; passed over: 8 in no class folder")


def test_refuses_validation_that_does_not_fit(tmp_path: Path) -> None:
    tree(tmp_path / "train", count=2)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val: expected one sub-folder of images per class"):
        open_folder(tmp_path)
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(DataError, match="val: expected images, got none"):
        open_folder(tmp_path)
    write(tmp_path / "val" / "emu" / "1.png", 1)
    with pytest.raises(DataError, match=r"val: expected only classes that training has too.*emu"):
        open_folder(tmp_path)


# ---- splitting -----------------------------------------------------------------------------------


def test_split_is_the_same_wherever_and_whatever_the_files_are_called(tmp_path: Path) -> None:
    first = open_folder(tree(tmp_path / "a"), val_fraction=0.2)
    for label, name in enumerate(("cat", "dog")):
        for i in range(20):
            write(tmp_path / "b" / name / f"{(7 * i + 3) % 20}-other.png", label * 20 + i)
    second = open_folder(tmp_path / "b", val_fraction=0.2)
    assert numbers(first[1]) == numbers(second[1])
    assert numbers(first[0]) == numbers(second[0])
    assert numbers(first[0]).isdisjoint(numbers(first[1]))
    assert np.bincount(first[1].labels).tolist() == [4, 4]


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    tree(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(30):  # copies within a class and across
        source = tmp_path / ("cat", "dog")[i % 2] / f"{rng.integers(20):03}.png"
        shutil.copy(source, tmp_path / ("cat", "dog")[i // 15] / f"copy{i}.png")
    for fraction in (0.1, 0.5, 0.9):
        train, val = open_folder(tmp_path, val_fraction=fraction)
        assert len(train) + len(val) == 70
        assert numbers(train).isdisjoint(numbers(val))
        assert numbers(train) | numbers(val) == set(range(40))
        assert "30 exact copies, none on the other side of the split" in train.description


def test_copies_count_once(tmp_path: Path) -> None:
    tree(tmp_path)
    for i in range(5):
        write(tmp_path / "eel" / f"{i}.png", 300)
    train, val = open_folder(tmp_path, val_fraction=0.4)
    assert np.bincount(train.labels, minlength=3).tolist() == [12, 12, 5]
    assert np.bincount(val.labels, minlength=3).tolist() == [8, 8, 0]


def test_every_class_has_both_sides(tmp_path: Path) -> None:
    tree(tmp_path, ("a", "b", "c"), 2)
    for fraction in (0.01, 0.99):
        train, val = open_folder(tmp_path, val_fraction=fraction)
        assert np.bincount(train.labels).tolist() == [1, 1, 1]
        assert np.bincount(val.labels).tolist() == [1, 1, 1]


def test_more_images_hardly_move_the_others(tmp_path: Path) -> None:
    before = numbers(open_folder(tree(tmp_path, count=100), val_fraction=0.2)[1])
    for i in range(5):
        write(tmp_path / "cat" / f"new{i}.png", 1000 + i)
    after = numbers(open_folder(tmp_path, val_fraction=0.2)[1])
    assert len(after - before) <= 5


def test_refuses_what_cannot_be_split(tmp_path: Path) -> None:
    tree(tmp_path, count=1)
    with pytest.raises(DataError, match="at least two different images in a class"):
        open_folder(tmp_path)
    for fraction in (0, 1, -1, float("nan")):
        with pytest.raises(DataError, match=r"val_fraction: expected a number above 0 and below 1"):
            split_by_content(list_classes(tmp_path), fraction)


# ---- checking ------------------------------------------------------------------------------------


def test_bad_files_are_named_before_training(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "cat" / "007.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"cat/007.png: expected an image, got an empty file; --set data.bad"
    ):
        open_folder(tmp_path)
    path = tmp_path / "dog" / "003.png"
    path.write_bytes(path.read_bytes()[:-30])
    message = r"cat/007.png: expected .* \(and 1 more bad files: \S+dog/003.png\); --set data.*out$"
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)
    train, val = open_folder(tmp_path, bad_files="skip")
    assert len(train) + len(val) == 38
    assert {7, 23}.isdisjoint(numbers(train) | numbers(val))
    assert "2 bad files left out, the first" in train.description


def test_a_class_of_bad_files_only(tmp_path: Path) -> None:
    tree(tmp_path, ("a", "b", "c"), 2)
    for path in (tmp_path / "b").iterdir():
        path.write_text("no image")
    with pytest.raises(DataError, match=r"b: expected images, got none"):
        open_folder(tmp_path, bad_files="skip")


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_file_that_breaks_later_is_named_when_read(tmp_path: Path, cache_bytes: int) -> None:
    train, _ = open_folder(tree(tmp_path), cache_bytes=cache_bytes)
    train.read([0, 1, 2])
    train.listing.path(5).write_bytes(b"broken")
    with pytest.raises(DataError, match=train.listing.files[5]):
        train.read(range(len(train)))
    assert number_of(train.read([4])[0]) == number_of(train.read([4])[0])


def test_size_is_needed_where_images_differ(tmp_path: Path) -> None:
    tree(tmp_path)
    assert open_folder(tmp_path)[0].shape == (6, 5, 3)
    write(tmp_path / "dog" / "wide.png", 99, (6, 9))
    with pytest.raises(DataError, match=r"data.size: expected the height .* 2 sizes: 6x5 \(.*6x9"):
        open_folder(tmp_path)
    assert open_folder(tmp_path, (4, 8))[0].shape == (4, 8, 3)
    with pytest.raises(DataError, match=r"data.size: expected a height and a width.*got \[4, 0\]"):
        open_folder(tmp_path, (4, 0))


def test_description(tmp_path: Path) -> None:
    (tree(tmp_path) / "cat" / "notes.txt").touch()
    train, val = open_folder(tmp_path, val_fraction=0.1)
    assert train.description == (
        f"images in {tmp_path}: 36 training images; 2 classes at 6x5; passed over: 1 not images"
    )
    assert "4 validation images (held out by content)" in val.description


# ---- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_reads_in_the_order_asked(tmp_path: Path, cache_bytes: int) -> None:
    train, val = open_folder(tree(tmp_path), cache_bytes=cache_bytes)
    wanted = [3, 0, 3, len(train) - 1, 17]
    images = train.read(wanted)
    assert images.shape == (5, 6, 5, 3)
    assert images.dtype == np.uint8
    expected = [20 * train.labels[i] + int(Path(train.listing.files[i]).stem) for i in wanted]
    assert [number_of(image) for image in images] == expected
    assert train.read([]).shape == (0, 6, 5, 3)
    assert len(numbers(train) | numbers(val)) == 40
    with pytest.raises(IndexError):
        train.read([len(train)])


def test_small_sets_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    real = image_folder.decode

    def counting(*arguments: Any, **options: Any) -> object:
        decoded.append(str(arguments[1]))
        return real(*arguments, **options)

    monkeypatch.setattr(image_folder, "decode", counting)
    tree(tmp_path)
    need = 40 * 6 * 5 * 3
    for cache_bytes, times in ((need, 1), (need - 1, 3)):
        train, _ = open_folder(tmp_path, cache_bytes=cache_bytes)
        decoded.clear()
        for _ in range(3):
            train.read([5, 5, 6])
        assert len(set(decoded)) == 2
        assert len(decoded) == (2 if times == 1 else 9)


def test_threads_and_copies(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    train, _ = open_folder(tree(tmp_path), threads=3, cache_bytes=0)
    assert set(threading.enumerate()) <= before
    images = train.read(range(10))
    assert 1 <= len(set(threading.enumerate()) - before) <= 3
    copy = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(copy.read(range(10)), images)
    copy.close()
    train.close()
    assert set(threading.enumerate()) <= before
    np.testing.assert_array_equal(train.read(range(10)), images)
    train.close()
