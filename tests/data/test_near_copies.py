"""Near-copies: groups of perceptual hashes, and both sides of a split."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from convnet.cli.main import main
from convnet.config import ConfigError
from convnet.data.folder import near_copies
from convnet.data.folder.image_folder import FolderDataset, open_folder


@pytest.mark.parametrize("distance", [0, 1, 4])
def test_groups_are_those_of_all_pairs(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where few bits differ from hash to hash, and chains join what lies apart."""
    monkeypatch.setattr(near_copies, "_PAIRS", 50)
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 1 << 64, 30, np.uint64).repeat(4)
    for _ in range(3):
        flips = rng.integers(0, 2, len(hashes), np.uint64)
        hashes ^= flips << rng.integers(0, 64, len(hashes), np.uint64)
    rng.shuffle(hashes)
    group = np.arange(len(hashes))
    for _ in hashes:
        for i, j in np.argwhere(np.bitwise_count(hashes[:, None] ^ hashes) <= distance):
            group[i] = group[j] = min(group[i], group[j])
    expected = [np.flatnonzero(group == number).tolist() for number in np.unique(group)]
    expected = [rows for rows in expected if len(rows) > 1]
    assert near_copies.near_groups(hashes, distance) == expected
    assert len(expected) > 1
    assert near_copies.near_groups(hashes[:0]) == []


def image(number: int, side: int = 60) -> Image.Image:
    """An image with as much in it as a photograph."""
    small = np.random.default_rng(number).integers(0, 256, (10, 10, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def near_tree(root: Path) -> Path:
    """Class folders in which half of the images come a second time, smaller and as JPEG."""
    for label, name in enumerate(trees.CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(8):
            image(label * 8 + i).save(root / name / f"{i:03}.png")
        for i in range(0, 8, 2):
            image(label * 8 + i).resize((40, 40)).save(root / name / f"again-{i}.jpg", quality=60)
    return root


def numbers(data: FolderDataset) -> set[tuple[str, int]]:
    """(class, number) of the images, whichever copy they are."""
    files = (Path(file) for file in data.listing.files)
    return {(file.parent.name, int(file.stem.removeprefix("again-"))) for file in files}


def test_near_copies_are_on_one_side(tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    root = near_tree(tmp_path / "in")
    train, val = open_folder(root, (8, 8), 0.4)
    assert numbers(train) & numbers(val)  # or it would show nothing
    train, val = open_folder(root, (8, 8), 0.4, copies="similar")
    assert not numbers(train) & numbers(val)
    assert len(train) + len(val) == 36
    assert "12 copies and near-copies, none on the other side of the split" in train.description


def test_check_lists_near_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imagehash")
    near_tree(tmp_path / "in/train")
    trees.class_folders(tmp_path / "in/val", 1, start=100)
    image(8, 90).save(tmp_path / "in/val/dog/leak.bmp")
    words = ["data", "check", str(tmp_path / "in"), "--workers", "1"]
    assert main([*words, "--similar"]) == 0
    out = capsys.readouterr().out
    assert "files that look alike: 12, 1 in both training and validation" in out
    lines = out.partition("look alike")[2].splitlines()
    assert lines[1] == "  train/dog/000.png ~ train/dog/again-0.jpg ~ val/dog/leak.bmp"


def test_the_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trees.class_folders(tmp_path / "in", 2)
    monkeypatch.setitem(sys.modules, "imagehash", None)
    expected = r'data.copies="similar": imagehash is not installed: pip install .*\[dedup\]'
    with pytest.raises(ConfigError, match=expected):
        open_folder(root, (8, 8), copies="similar")
