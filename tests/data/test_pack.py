"""Packing images, reading them back, and their statistics."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as safetensors
import tiny
import trees
from PIL import Image

from convnet.config import DataConfig
from convnet.data import DataError, open_data, statistics
from convnet.data.folder.check import check_packed
from convnet.data.folder.trees import find_listings
from convnet.data.image import read_image
from convnet.data.packed import mean as mean_module
from convnet.data.packed.dataset import INDEX, PackedDataset, open_packed
from convnet.data.packed.manifest import digest_of, manifest_text
from convnet.data.packed.mean import compute_sums
from convnet.data.packed.pack import PackReport, PackSettings, pack
from convnet.data.packed.sums import read_sums

SETTINGS = PackSettings(size=(16, 16), shard=8)
RAW = PackSettings(size=(16, 16), shard=8, encoding="raw")


def packed(
    root: Path, out: Path, settings: PackSettings = SETTINGS, workers: int = 1, **options: Any
) -> PackReport:
    """Packs `root`, which has training and validation folders."""
    parts = find_listings(root)
    return pack(parts["train"], parts["val"], out, settings, workers, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    trees.class_folders(root / "train")
    trees.class_folders(root / "val", 3, start=100)
    return root


@pytest.fixture(scope="module")
def result(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    packed(source, out)
    return out


@pytest.fixture
def copy(result: Path, tmp_path: Path) -> Path:
    return shutil.copytree(result, tmp_path / "copy")


def content(folder: Path) -> dict[str, str]:
    """Name -> hash of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def listed(folder: Path, part: str) -> list[list[str]]:
    """The lines of a part's list: number, class, file."""
    return [line.split("\t") for line in (folder / f"{part}.tsv").read_text().splitlines()]


def seal(folder: Path, said: dict[str, Any] | None = None) -> None:
    """Makes the checksums of a packed folder fit what is in it now."""
    said = said or json.loads((folder / "packed.json").read_text())
    for part, facts in said["parts"].items():
        facts["index"] = digest_of((folder / f"{part}.index.npy").read_bytes())
    (folder / "packed.json").write_bytes(manifest_text(said))


# ---- what is packed ------------------------------------------------------------------------------


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


# ---- the same bytes, always ----------------------------------------------------------------------


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
            packed(source, out, workers=1, progress=stop)
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

    with pytest.raises(KeyboardInterrupt):
        packed(source, tmp_path / "half", progress=stop)
    with pytest.raises(DataError, match=r"of other images, or with other settings; remove it"):
        packed(source, tmp_path / "half", RAW)


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("packed.json", b"{", r"packed.json: expected JSON, got a damaged file"),
        ("packed.json", b"{}", r'expected the format "convnet packed pictures"'),
        (
            "packed.json",
            b'{"format": "convnet packed pictures", "version": 3}',
            r"expected version 1 to 2, got 3; a newer convnet",
        ),
        (
            "packed.json",
            b'{"format": "convnet packed pictures", "version": 1}',
            r"expected a whole description, got a damaged one \(size: expected a list of 2",
        ),
        ("train.index.npy", b"nothing", r"train.index.npy: expected an index of images"),
        ("train.index.npy", None, r"train.index.npy: expected a readable file, got No such"),
        ("val-000001.tar", None, r"val-000001.tar: expected [\d,]+ bytes, got no such file"),
        ("train-000002.tar", b"cut", r"train-000002.tar: expected [\d,]+ bytes, got 3"),
        ("statistics.safetensors", b"nothing", r"statistics.safetensors: .* got a damaged file"),
    ],
)
def test_damaged_files_are_named(
    copy: Path, name: str, change: bytes | None, expected: str
) -> None:
    (copy / name).unlink(missing_ok=True)
    if change is not None:
        (copy / name).write_bytes(change)
    with pytest.raises(DataError, match=expected):
        statistics(open_packed(copy)[0])


def test_an_index_that_does_not_fit(copy: Path) -> None:
    index = np.load(copy / "train.index.npy")
    for column, value, expected in (
        ("offset", 1 << 40, "image 4: expected a place inside a shard"),
        ("shard", 9, "image 4: expected a place inside a shard"),
        ("length", -1, "image 4: expected a place inside a shard"),
        ("label", 3, r"label of image 4: expected 0 .. 2, got 3"),
    ):
        wrong = index.copy()
        wrong[4][column] = value
        np.save(copy / "train.index.npy", wrong)
        with pytest.raises(DataError, match=r"train.index.npy: damaged file \(its checksum"):
            open_packed(copy)
        seal(copy)
        with pytest.raises(DataError, match=expected):
            open_packed(copy)
    np.save(copy / "train.index.npy", index[:-1])
    with pytest.raises(DataError, match=r"expected an index of 30 images, got .*29"):
        open_packed(copy)


def test_damage_inside_a_shard_is_named_when_read(copy: Path) -> None:
    train, _ = open_packed(copy, cache_bytes=0)
    row = train.index[9]
    with (copy / "train-000001.tar").open("r+b") as shard:
        shard.seek(row["offset"])
        shard.write(bytes(50))
    train.read([8])
    with pytest.raises(DataError, match=r"train-000001.tar: 000000009.jpg: expected an image"):
        train.read([8, 9])
    os.truncate(copy / "train-000001.tar", int(row["offset"]) + 20)
    with pytest.raises(DataError, match=r"000000009.jpg: expected \d+ bytes, got 20"):
        train.read([9])
    (copy / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000002.tar: expected a readable file, got No such"):
        train.read([16])


# ---- checksums of what is beside the shards ------------------------------------------------------


def test_one_changed_bit_of_labels_classes_or_sums_is_found(copy: Path) -> None:
    compute_sums(open_packed(copy)[0], 1)
    assert check_packed(copy).endswith("6 shards, statistics")
    for name, word in (("train.index.npy", b""), ("val.index.npy", b""), ("packed.json", b"dog")):
        content = (copy / name).read_bytes()
        at = content.index(word) if word else len(content) - 1
        changed = bytearray(content)
        changed[at] ^= 1
        (copy / name).write_bytes(changed)
        with pytest.raises(DataError, match=rf"{name}: damaged file \(its checksum"):
            open_packed(copy)
        (copy / name).write_bytes(content)
    sums = bytearray((copy / "statistics.safetensors").read_bytes())
    sums[-5] ^= 1
    (copy / "statistics.safetensors").write_bytes(sums)
    for read in (read_sums, check_packed):
        with pytest.raises(DataError, match=r"statistics.safetensors: .*its checksum does not"):
            read(copy)


def test_what_was_packed_before_there_were_checksums_still_loads(copy: Path) -> None:
    labels = open_packed(copy)[0].labels
    said = json.loads((copy / "packed.json").read_text())
    del said["blake2b"], said["parts"]["train"]["index"], said["parts"]["val"]["index"]
    (copy / "packed.json").write_text(json.dumps({**said, "version": 1}))
    digest = digest_of((copy / "packed.json").read_bytes())
    sums = {
        "total": np.zeros((16, 16, 3), np.int64),
        "products": np.zeros((3, 3), np.int64),
        "count": np.array([30]),
    }
    (copy / "statistics.safetensors").write_bytes(safetensors.save(sums, {"manifest": digest}))
    train, val = open_packed(copy)
    np.testing.assert_array_equal(train.labels, labels)
    assert train.description.endswith(
        "packed by an earlier convnet, without a checksum of the labels"
    )
    assert "earlier" not in val.description
    found = read_sums(copy)
    assert found is not None
    assert found.count == 30
    assert check_packed(copy).endswith(
        "the labels have no checksum: they were packed by an earlier convnet"
    )
    # The version alone, without the checksums, is damage.
    (copy / "packed.json").write_text(json.dumps({**said, "version": 2}))
    with pytest.raises(DataError, match=r"packed.json: damaged file"):
        open_packed(copy)


# ---- size of ImageNet ----------------------------------------------------------------------------


def test_a_million_images_open_quickly_and_take_little_memory(copy: Path) -> None:
    count, shards = 1_281_167, 641
    index = np.zeros(count, INDEX)
    index["key"] = np.arange(count)
    index["shard"] = index["key"] // 2000
    index["offset"] = 512 + (index["key"] % 2000) * 50_000
    index["length"] = 40_000
    index["label"] = index["key"] % 3
    np.save(copy / "train.index.npy", index)
    said = json.loads((copy / "packed.json").read_text())
    said["parts"]["train"] = {"pictures": count, "shards": []}
    digest = "0" * 32
    for number in range(shards):
        with (copy / f"train-{number:06}.tar").open("wb") as shard:
            shard.truncate(100_001_024)  # takes no space
        said["parts"]["train"]["shards"].append({"bytes": 100_001_024, "blake2b": digest})
    seal(copy, said)
    del index
    start = time.perf_counter()
    train, _ = open_packed(copy)
    seconds = time.perf_counter() - start
    assert seconds < 2
    assert not train.in_memory
    tracemalloc.start()
    try:
        again, _ = open_packed(copy)
        held, _ = tracemalloc.get_traced_memory()
        items = again.items(np.array([1_281_166, 0, 2000]))
    finally:
        tracemalloc.stop()
    assert held < 12e6  # labels: 4 bytes an image; the index stays in the file
    assert items == [(1_281_166, 512 + 1166 * 50_000, 40_000, 640), (0, 512, 40_000, 0),
                     (2000, 512, 40_000, 1)]  # fmt: skip


# ---- statistics ----------------------------------------------------------------------------------


def test_stored_statistics_are_those_of_the_images(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_module, "_JOB", 8)
    train, val = open_packed(copy)
    expected = {mean: statistics(train, mean) for mean in ("image", "channel", "none")}
    seen: list[tuple[int, int]] = []
    compute_sums(train, 2, lambda done, count: seen.append((done, count)))
    assert seen[-1] == (30, 30)
    sums = read_sums(copy)
    assert sums is not None
    assert sums.count == 30
    again, _ = open_packed(copy)
    again.read = None  # type: ignore[assignment, method-assign]
    for mean, stats in expected.items():
        found = statistics(again, mean)
        np.testing.assert_array_equal(found.mean, stats.mean)
        np.testing.assert_array_equal(found.eigenvalues, stats.eigenvalues)
        np.testing.assert_array_equal(found.eigenvectors, stats.eigenvectors)
    scaled, _ = open_packed(copy, (8, 8))
    assert statistics(scaled).mean.shape == (8, 8, 3)
    assert not np.array_equal(statistics(val, "channel").mean, expected["channel"].mean)
    text = (copy / "packed.json").read_text()
    (copy / "packed.json").write_text(text + " ")
    with pytest.raises(DataError, match=r"got those of others; run: convnet data mean"):
        statistics(open_packed(copy)[0])
