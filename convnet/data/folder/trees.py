"""Finding the images of training and validation in what people have on their disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnet.common.progress import progress
from convnet.data.dataset import mismatch
from convnet.data.folder.class_folders import (
    Listing,
    content_hash,
    in_threads,
    list_classes,
    list_flat,
    require_all_classes,
    sub_folders,
)
from convnet.data.folder.label_file import list_labelled

_VALIDATION_NAMES = ("val", "valid", "validation", "test")


def find_parts(root: Path) -> tuple[Path, Path | None]:
    """The folders of class folders for training and for validation (None: to be split off).

    `train` may also be the name of a class: it is one where it holds images directly and other
    classes lie beside it.
    """
    folders, _ = sub_folders(root)
    if "train" not in folders:
        return root, None
    inner, counts = sub_folders(root / "train")
    val = next((name for name in _VALIDATION_NAMES if name in folders), None)
    if val is not None and (inner or folders <= {"train", *_VALIDATION_NAMES}):
        return root / "train", root / val
    if inner and not counts["images"]:
        return root / "train", None
    return root, None


def find_listings(
    root: Path,
    val: Path | None = None,
    val_labels: Path | None = None,
    synsets: Path | None = None,
    unlabelled: bool = False,
) -> dict[str, Listing]:
    """Lists class folders: {"train": ..., "val": ...}, or {"all": ...} where there is one part.

    Args:
        root: a folder with one sub-folder per class, or with `train/` and perhaps `val/`.
        val: the validation images, where they are not in such a `val/`.
        val_labels, synsets: the label files of validation images that lie in no class folders, see
            `list_labelled`.
        unlabelled: whether validation images may have no labels at all.

    Raises:
        DataError: as `list_classes` and `list_labelled`.
    """
    train_root, val_root = find_parts(root)
    val_root = val or val_root
    train = list_classes(train_root)
    require_all_classes(train)
    if val_root is None:
        if val_labels is not None:
            labels = "labels of a folder of validation images (--val)"
            raise mismatch(val_labels, labels, "none")
        return {"all": train}
    if val_labels is not None:
        return {"train": train, "val": list_labelled(val_root, val_labels, train.classes, synsets)}
    folders, counts = sub_folders(val_root)
    if counts["images"] and not folders:
        if unlabelled:
            return {"train": train, "val": list_flat(val_root)}
        got = f"{counts['images']:,} images; convnet data pack --val-labels takes the file with"
        raise mismatch(val_root, "class folders", f"{got} their labels, one a line")
    found = list_classes(val_root, train.classes)
    if not found.files:
        raise mismatch(val_root, "images", "none")
    return {"train": train, "val": found}


def drop_copies(parts: dict[str, Listing]) -> tuple[dict[str, Listing], int]:
    """Leaves one of each group of files with the same content: a validation image, if there is
    one, and else the first. Returns the rest, and how many files were left out."""
    seen: set[bytes] = set()
    kept = {}
    for part in sorted(parts, key=lambda name: name != "val"):
        listing = parts[part]
        rows = []
        with progress("looking for copies", "files") as tell:
            digests = in_threads(content_hash, listing.paths, 0, tell)
        for index, digest in enumerate(digests):
            if digest not in seen:
                seen.add(digest)
                rows.append(index)
        kept[part] = listing.take(np.asarray(rows, np.int64))
    dropped = sum(len(parts[part].files) - len(kept[part].files) for part in parts)
    if "val" in parts and not kept["val"].files:
        raise mismatch(parts["val"].root, "images", "none")
    require_all_classes(kept["train" if "train" in kept else "all"])
    return {part: kept[part] for part in parts}, dropped
