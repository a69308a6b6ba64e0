"""How the tests pack a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnet.data.folder.trees import find_listings
from convnet.data.packed.pack import PackReport, PackSettings, pack

SETTINGS = PackSettings(size=(16, 16), shard=8)


def packed(
    root: Path, out: Path, settings: PackSettings = SETTINGS, workers: int = 1, **options: Any
) -> PackReport:
    """Packs `root`, which has training and validation folders."""
    parts = find_listings(root)
    return pack(parts["train"], parts["val"], out, settings, workers, **options)
