"""Packing a folder: the same images, always as the same bytes, also when it was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import trees
from packing import packed
from PIL import Image
from telling import told_to

from convnet.config import DataConfig
from convnet.data import DataError, open_data
from convnet.data.image import read_image
from convnet.data.packed.dataset import PackedDataset, open_packed
from convnet.data.packed.pack import PackSettings

RAW = PackSettings(size=(16, 16), shard=8, encoding="raw")


def content(folder: Path) -> dict[str, str]:
    """Name -> hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def listed(folder: Path, part: str) -> list[list[str]]:
    """The lines of a part's list: number, class, file."""
    return [line.split("\t") for line in (folder / f"{part}.tsv").read_text().splitlines()]


def test_shards_are_what_webdataset_reads(result: Path) -> None:
    with tarfile.open(result / "train-000001.tar") as shard:
        members = shard.getmembers()
        names = [member.name for member in members]
        assert names[:3] == ["000000008.jpg", "000000008.cls", "000000009.jpg"]
        assert len(names) == 16
        assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}
        file = shard.extractfile("000000009.cls")
        assert file is not None
        key, name, path = listed(result, "train")[9]
        assert key == "000000009"
        assert path.startswith(f"{name}/")
        assert trees.CLASSES[int(file.read())] == name
        picture = Image.open(shard.extractfile("000000009.jpg"))  # type: ignore[arg-type]
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (16, 16))
    assert sorted(path.name for path in result.glob("*.tar")) == [
        *(f"train-{i:06}.tar" for i in range(4)),
        *(f"val-{i:06}.tar" for i in range(2)),
    ]


def test_images_come_back(source: Path, result: Path, tmp_path: Path) -> None:
    """Each under its label; exactly where they are raw, nearly so where they are JPEG."""
    packed(source, tmp_path / "raw", RAW)
    for folder, most in ((tmp_path / "raw", 0), (result, 12)):
        for part, data in zip(("train", "val"), open_packed(folder), strict=True):
            rows = listed(folder, part)
            assert len(rows) == len(data) == {"train": 30, "val": 9}[part]
            images = data.read(range(len(data)))
            assert images.dtype == np.uint8
            assert data.shape == (16, 16, 3)
            for (_, name, file), found, label in zip(rows, images, data.labels, strict=True):
                assert data.classes[label] == name
                expected = read_image(source / part / file, (16, 16)).astype(int)
                assert np.abs(found - expected).mean() <= most / 3
                assert np.abs(found - expected).max() <= 5 * most


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_the_way_images_were_resized_is_kept(source: Path, tmp_path: Path, resize: Any) -> None:
    """A run of them has to say so, since it prepares other images in the same way."""
    out = tmp_path / "out"
    packed(source, out, replace(RAW, resize=resize))
    data = {"source": "folder", "path": str(out)}
    train, _ = open_data(DataConfig(**data, resize=resize))
    rows = [line.split("\t") for line in (out / "train.tsv").read_text().splitlines()]
    for index, row in enumerate(rows[:9]):
        expected = read_image(source / "train" / row[2], (16, 16), resize=resize)
        np.testing.assert_array_equal(train.read([index])[0], expected)
    with pytest.raises(DataError, match=f'data.resize: expected "{resize}", as .* got "crop"'):
        open_data(DataConfig(**data))


def test_training_images_are_mixed_and_validation_is_in_order(result: Path) -> None:
    classes = [name for _, name, _ in listed(result, "train")]
    assert classes != sorted(classes)
    files = [file for _, _, file in listed(result, "val")]
    assert files == sorted(files)


def test_read_in_any_order_size_and_with_threads(result: Path) -> None:
    train, _ = open_packed(result, cache_bytes=0, threads=3)
    assert not train.in_memory
    whole = train.read(range(30))
    wanted = [29, 3, 3, 0, 17]
    np.testing.assert_array_equal(train.read(wanted), whole[wanted])
    kept, _ = open_packed(result)
    assert kept.in_memory
    np.testing.assert_array_equal(kept.read(wanted), whole[wanted])
    small, _ = open_packed(result, (8, 12))
    assert small.read([5]).shape == (1, 8, 12, 3)
    assert "16x16, scaled to 8x12" in small.description
    train.close()
    np.testing.assert_array_equal(train.read([7]), whole[[7]])


def test_the_source_folder_finds_packed_images(result: Path) -> None:
    train, val = open_data(DataConfig(source="folder", path=str(result), size=(12, 12)))
    assert isinstance(train, PackedDataset)
    assert train.shape == (12, 12, 3)
    assert train.description.startswith(f"packed images in {result}: 30 training images")
    assert len(val) == 9


def test_alpha_and_orientation(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / part / name / "1.png")
            halves = Image.new("RGB", (40, 20))
            halves.paste((255, 0, 0), (0, 0, 20, 20))
            exif = Image.Exif()
            exif[0x0112] = 6  # to be turned clockwise: red comes to the top
            halves.save(tmp_path / part / name / "2.png", exif=exif)
    packed(tmp_path, tmp_path / "out", RAW)
    _, val = open_packed(tmp_path / "out")
    images = val.read(range(4))
    assert (images[0] == 255).all()
    assert images[1][2, 8].tolist() == [255, 0, 0]
    assert images[1][13, 8].tolist() == [0, 0, 0]


def test_bad_files(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "in")
    trees.bomb(tmp_path / "in/train/cat/bomb.png")
    whole = (tmp_path / "in/train/dog/001.jpg").read_bytes()
    (tmp_path / "in/val/dog/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/train/emu/empty.png").touch()
    with pytest.raises(DataError, match=r"train/(cat/bomb|emu/empty)\.png: expected an image"):
        packed(tmp_path / "in", tmp_path / "out")
    settings = PackSettings(size=(16, 16), shard=8, bad_files="skip")
    report = packed(tmp_path / "in", tmp_path / "skipped", settings, workers=2)
    assert report.pictures == {"train": 30, "val": 9}
    bad = dict(report.bad)
    assert set(bad) == {"cat/bomb.png", "emu/empty.png", "dog/cut.jpg"}
    assert "at most 89,478,485 pixels" in bad["cat/bomb.png"]
    assert bad["emu/empty.png"] == "expected an image, got an empty file"
    train, val = open_packed(tmp_path / "skipped")
    assert train.read(range(30)).shape == (30, 16, 16, 3)
    assert len(val) == 9
    said = json.loads((tmp_path / "skipped/packed.json").read_text())
    assert {file for file, _ in said["bad_files"]} == set(bad)
    assert str(tmp_path) not in (tmp_path / "skipped/packed.json").read_text()


def test_a_class_of_bad_files_only(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "in")
    for path in (tmp_path / "in/train/dog").iterdir():
        path.write_bytes(b"nothing")
    settings = PackSettings(size=(16, 16), bad_files="skip")
    with pytest.raises(DataError, match="dog: expected training images, got bad files only"):
        packed(tmp_path / "in", tmp_path / "out", settings)


def test_copies_are_reported(source: Path, tmp_path: Path) -> None:
    root = shutil.copytree(source, tmp_path / "in")
    for target in ("train/dog/again.png", "train/cat/twice.png", "val/emu/leak.png"):
        shutil.copy(root / "train/cat/000.png", root / target)
    shutil.copy(root / "val/emu/000.png", root / "val/emu/copy.png")
    report = packed(root, tmp_path / "out")
    assert report.copies == [
        ["cat/000.png", "cat/twice.png", "dog/again.png", "emu/leak.png"],
        ["emu/000.png", "emu/copy.png"],
    ]
    assert report.across == 1


def test_bytes_do_not_depend_on_workers_or_on_where(
    source: Path, result: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")
    report = packed(elsewhere, tmp_path / "out", workers=3)
    assert content(tmp_path / "out") == content(result)
    assert report.reused == 0
    assert report.bytes == sum(path.stat().st_size for path in result.glob("*.tar"))


def test_resumed_after_being_stopped_anywhere(source: Path, result: Path, tmp_path: Path) -> None:
    """Stops after each progress call in turn, and goes on in the same folder."""

    class StopError(Exception):
        pass

    out = tmp_path / "out"
    seen: list[int] = []
    for _attempt in range(20):
        calls = 0

        def stop(done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            seen.append(done)
            if calls == 3:
                raise StopError

        try:
            with told_to(stop):
                packed(source, out, workers=1)
        except StopError:
            with pytest.raises(
                DataError, match="an unfinished packing; the same convnet data pack"
            ):
                open_data(DataConfig(source="folder", path=str(out)))
            continue
        break
    assert _attempt >= 2
    assert content(out) == content(result)


def test_resumed_after_sigkill(source: Path, result: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["data", "pack", source, out, "--size", "16", "--shard", "8", "--workers", "2"]
    process = subprocess.Popen(
        tiny.command(*words), env=tiny.environment(), stderr=subprocess.DEVNULL
    )
    while not list(out.glob("*.tar")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = tiny.run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(result)


def test_refuses_folders(source: Path, result: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(DataError, match="out: expected a folder, new or empty, got a file"):
        packed(source, out)
    with pytest.raises(DataError, match="holds packed images already"):
        packed(source, result)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").touch()
    with pytest.raises(DataError, match=r"new or empty folder, got one with precious.txt in it"):
        packed(source, other)
    assert [path.name for path in other.iterdir()] == ["precious.txt"]

    def stop(done: int, total: int) -> None:
        with pytest.raises(DataError, match="another process is packing into it"):
            packed(source, tmp_path / "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), told_to(stop):
        packed(source, tmp_path / "half")
    with pytest.raises(DataError, match=r"of other images, or with other settings; remove it"):
        packed(source, tmp_path / "half", RAW)
