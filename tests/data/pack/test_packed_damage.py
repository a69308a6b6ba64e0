"""Damage in packed folders is found and named; checksums, and sizes of ImageNet."""

from __future__ import annotations

import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as safetensors
from telling import told_to

from convnet.data import DataError, statistics
from convnet.data.folder.check import check_packed
from convnet.data.packed import mean as mean_module
from convnet.data.packed.dataset import INDEX, open_packed
from convnet.data.packed.manifest import digest_of, manifest_text
from convnet.data.packed.mean import compute_sums
from convnet.data.packed.sums import read_sums


@pytest.fixture
def copy(result: Path, tmp_path: Path) -> Path:
    return shutil.copytree(result, tmp_path / "copy")


def seal(folder: Path, said: dict[str, Any] | None = None) -> None:
    """Makes the checksums of a packed folder fit what is in it now."""
    said = said or json.loads((folder / "packed.json").read_text())
    for part, facts in said["parts"].items():
        facts["index"] = digest_of((folder / f"{part}.index.npy").read_bytes())
    (folder / "packed.json").write_bytes(manifest_text(said))


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


def test_stored_statistics_are_those_of_the_images(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_module, "_JOB", 8)
    train, val = open_packed(copy)
    expected = {mean: statistics(train, mean) for mean in ("image", "channel", "none")}
    seen: list[tuple[int, int]] = []
    with told_to(lambda done, count: seen.append((done, count))):
        compute_sums(train, 2)
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
