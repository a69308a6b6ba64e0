"""A folder of images, and what it was packed into."""

from __future__ import annotations

from pathlib import Path

import pytest
import trees
from packing import packed


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
