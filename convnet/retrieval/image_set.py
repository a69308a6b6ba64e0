"""Images to compute features of: where they are, what they are called, whether they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from convnet.common.reading import LINES, read_text
from convnet.config import DataConfig
from convnet.data import Dataset, open_data
from convnet.data.dataset import Images, check_labels, expanded
from convnet.data.folder.class_folders import list_flat, sub_folders
from convnet.data.folder.image_folder import FolderDataset
from convnet.data.packed.dataset import PackedDataset
from convnet.data.packed.manifest import is_packed
from convnet.evaluation.evaluate import Trained
from convnet.training.datasets import with_path

Part = Literal["train", "val", "all"]
PARTS: tuple[Part, ...] = ("train", "val", "all")
SOURCE_KEYS = (
    "source",
    "path",
    "size",
    "resize",
    "val_fraction",
    "copies",
    "bad_files",
)  # of a DataConfig
_SAMPLE = 64  # images of a set whose pixels are hashed


class Joined(Dataset):
    """Several sets of the same classes, one after the other."""

    def __init__(self, sets: Sequence[Dataset]) -> None:
        self.sets = list(sets)
        self.classes, self.shape = sets[0].classes, sets[0].shape
        labels = np.concatenate([one.labels for one in sets])
        self.labels = check_labels(labels, len(self.classes), sets[0].description)
        self.description = "; ".join(one.description for one in sets)
        self._ends = np.cumsum([len(one) for one in sets])

    def place(self, index: int) -> tuple[Dataset, int]:
        """The set that an image belongs to, and its number there."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.sets[which], int(index - (self._ends[which] - len(self.sets[which])))

    def read(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Images:
        wanted = np.asarray(indices, np.int64)
        pixels = np.empty((len(wanted), *self.shape), np.uint8)
        which = np.searchsorted(self._ends, wanted, side="right")
        for number, one in enumerate(self.sets):
            own = which == number
            if own.any():
                pixels[own] = one.read(wanted[own] - (self._ends[number] - len(one)))
        return pixels


@dataclass
class Source:
    """Where images come from: what `open_source` needs to find them again."""

    cfg: DataConfig
    part: Part

    def as_dict(self) -> dict[str, Any]:
        """JSON values: `SOURCE_KEYS` and the part."""
        data = {key: getattr(self.cfg, key) for key in SOURCE_KEYS}
        return {**data, "size": list(self.cfg.size), "part": self.part}


def source_for(trained: Trained, data: str | os.PathLike[str] | None, part: Part) -> Source:
    """The images at a path, as this net takes them."""
    cfg = with_path(trained.cfg, data).data
    if cfg.source == "folder":
        cfg = with_changes(cfg, size=(trained.image_shape[0], trained.image_shape[1]))
    return Source(cfg, part)


def open_source(source: Source) -> tuple[Dataset, bool]:
    """The images, and whether they have classes. A folder of images without sub-folders has
    none, and no parts either.

    Raises: DataError.
    """
    if source.cfg.source == "folder" and source.cfg.path:
        root = expanded(source.cfg.path)
        if not is_packed(root):
            folders, counts = sub_folders(root)
            if not folders and counts["images"]:
                size, resize = source.cfg.size, source.cfg.resize
                return FolderDataset(list_flat(root), size, resize=resize), False
    train, val = open_data(source.cfg)
    if source.part == "all":
        return Joined([train, val]), True
    return (train if source.part == "train" else val), True


def image_names(data: Dataset) -> list[str] | None:
    """The file that each image was made from; None where the set knows none."""
    if isinstance(data, FolderDataset):
        return list(data.listing.files)
    if isinstance(data, PackedDataset):
        path = data.packed.root / f"{data.packed.part}.tsv"
        try:
            text = read_text(path, LINES, "surrogateescape")
        except OSError:
            return None  # the list is for people; nothing else needs it
        rows = [line.split("\t") for line in text.split("\n")]
        by_key = {int(row[0]): row[2] for row in rows if len(row) == 3 and _is_key(row[0])}
        return [by_key.get(key, "") for key in data.index["key"].tolist()]
    if isinstance(data, Joined):
        parts = [image_names(one) for one in data.sets]
        return [name for part in parts for name in part or []] if all(parts) else None
    return None


def _is_key(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def data_facts(data: Dataset, names: list[str] | None) -> dict[str, Any]:
    """What tells this set from others: names, labels, and the pixels of some images of it."""
    some = np.unique(np.linspace(0, len(data) - 1, _SAMPLE).astype(np.int64))
    digest = hashlib.sha256(np.ascontiguousarray(data.labels, np.int32).tobytes())
    digest.update("\n".join(names or []).encode(errors="surrogateescape"))
    digest.update(np.ascontiguousarray(data.read(some)).tobytes())
    return {
        "pictures": len(data),
        "shape": list(data.shape),
        "description": data.description,
        "sha256": digest.hexdigest(),
    }
