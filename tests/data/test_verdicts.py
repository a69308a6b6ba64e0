"""What is found out about a folder's files is kept, and holds as long as they do not change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet.common.tensor_header import read_tensors, write_tensors
from convnet.data import DataError, statistics
from convnet.data.folder import image_folder, inspection, verdicts
from convnet.data.folder.image_folder import open_folder

Looks = dict[str, list[str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; files that are just written count as settled."""
    monkeypatch.setenv("CONVNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "SETTLED_NS", -1_000_000_000)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six images, one of them cut off before its end and still with its end mark."""
    root = tmp_path / "images"
    for number in range(12):
        path = root / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (20 * number, 7, 3)).save(path)
    path = root / "cat" / "00.png"
    content = path.read_bytes()
    path.write_bytes(content[:50] + content[60:])
    return root


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The names of the files that are checked, decoded and hashed."""
    found: Looks = {"checked": [], "decoded": [], "hashed": []}

    def count(module: object, name: str, kind: str) -> None:
        real: Callable[..., object] = getattr(module, name)

        def counting(path: Path, *rest: object, **options: object) -> object:
            found[kind].append(path.name)
            return real(path, *rest, **options)

        monkeypatch.setattr(module, name, counting)

    count(inspection, "check_file", "checked")
    count(inspection, "content_hash", "hashed")
    count(image_folder, "decode", "decoded")
    return found


def times(looks: Looks) -> list[int]:
    """How many files were checked, decoded and hashed since the last call."""
    counts = [len(names) for names in looks.values()]
    for names in looks.values():
        names.clear()
    return counts


def test_a_folder_is_looked_at_once(folder: Path, cache: Path, looks: Looks) -> None:
    first = open_folder(folder, (8, 8), bad_files="skip")
    stats = statistics(first[0])
    first[1].read(range(len(first[1])))
    assert times(looks) == [12, 12, 11]  # decoded for the check, the statistics and the first epoch
    again = open_folder(folder, (8, 8), bad_files="skip")
    np.testing.assert_array_equal(statistics(again[0]).mean, stats.mean)
    assert times(looks) == [0, 0, 0]
    for one, other in zip(first, again, strict=True):
        assert one.listing.files == other.listing.files
        assert one.description == other.description
        np.testing.assert_array_equal(one.read(range(len(one))), other.read(range(len(other))))
    times(looks)
    assert statistics(open_folder(folder, (6, 6), bad_files="skip")[0]).mean.shape == (6, 6, 3)
    assert times(looks)[::2] == [0, 0]
    with pytest.raises(DataError, match=r"cat/00.png: .*; --set data.bad_files=skip"):
        open_folder(folder, (8, 8))  # although its header and its end are sound
    assert not list(folder.glob("**/*.verdicts"))


def test_what_changes_is_looked_at_again(folder: Path, cache: Path, looks: Looks) -> None:
    open_folder(folder, (8, 8), bad_files="skip")
    times(looks)
    path, before = folder / "dog" / "03.png", (folder / "dog" / "03.png").stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)  # as many bytes
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and the same time
    shutil.copy(folder / "dog" / "05.png", folder / "dog" / "new.png")
    data = open_folder(folder, (8, 8), bad_files="skip")
    assert sorted(looks["checked"]) == ["03.png", "new.png"]
    assert sum(len(part) for part in data) == 11


def test_files_that_have_just_changed_are_not_trusted(
    folder: Path, cache: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "SETTLED_NS", 10**12)
    for _ in range(2):
        statistics(open_folder(folder, (8, 8), bad_files="skip")[0])
        assert times(looks)[0] == 12
    assert not list(cache.glob("folders/*.sums"))


def test_validation_alone(folder: Path, cache: Path, looks: Looks) -> None:
    for part in ("train", "val"):
        shutil.copytree(folder, folder.parent / "parts" / part)
    _, val = open_folder(folder.parent / "parts", (8, 8), bad_files="skip", training=False)
    assert len(val) == 11
    assert times(looks) == [12, 12, 0]


def damage(path: Path, how: str) -> None:
    """Makes something else of a file of verdicts or sums."""
    content = path.read_bytes()
    facts, arrays = read_tensors(path)
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a bit":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif how == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "another version":
        write_tensors(path, facts | {"format": "0"}, arrays)
    else:
        array = next(iter(arrays))
        del arrays[array]
        checksum = verdicts.sha256_of(verdicts.FORMAT, arrays).hex()
        write_tensors(path, facts | {"sha256": checksum}, arrays)


@pytest.mark.parametrize(
    "how", ["truncated", "a bit", "a pipe", "another version", "without an array"]
)
def test_a_damaged_file_counts_for_nothing(
    folder: Path, cache: Path, looks: Looks, how: str
) -> None:
    stats = statistics(open_folder(folder, (8, 8), bad_files="skip")[0])
    times(looks)
    files = [*cache.glob("folders/*")]
    assert len(files) == 2
    for path in files:
        damage(path, how)
    again = statistics(open_folder(folder, (8, 8), bad_files="skip")[0])
    np.testing.assert_array_equal(again.mean, stats.mean)
    assert times(looks)[0] == 12
    statistics(open_folder(folder, (8, 8), bad_files="skip")[0])  # the files are whole again
    assert times(looks) == [0, 0, 0]


@pytest.mark.parametrize("place", ["off", "a file", "not there"])
def test_without_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: Looks, place: str
) -> None:
    (tmp_path / "a file").touch()
    where = {"off": "off", "not there": "/proc/none"}.get(place, str(tmp_path / place))
    monkeypatch.setenv("CONVNET_CACHE", where)
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        statistics(open_folder(folder, (8, 8), bad_files="skip")[0])
        assert times(looks)[0] == 12
    assert not (tmp_path / ".cache").exists()
