"""Finding the images of training and validation in what people have on their disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnet.data.dataset import DataError, shown
from convnet.data.folder.class_folders import (
    Listing,
    content_hash,
    in_threads,
    list_classes,
    require_all_classes,
    sub_folders,
)
from convnet.data.folder.image_folder import find_parts
from convnet.data.folder.label_file import list_flat, list_labelled


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
        val_labels, synsets: for validation images without class folders, see `list_labelled`.
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
            raise DataError(
                f"{shown(val_labels)}: expected labels of a folder of validation images (--val),"
                " got none"
            )
        return {"all": train}
    if val_labels is not None:
        return {"train": train, "val": list_labelled(val_root, val_labels, train.classes, synsets)}
    folders, counts = sub_folders(val_root)
    if counts.images and not folders:
        if unlabelled:
            return {"train": train, "val": list_flat(val_root)}
        raise DataError(
            f"{shown(val_root)}: expected class folders, got {counts.images:,} images; the file"
            " with their labels, one a line, goes to --val-labels"
        )
    found = list_classes(val_root, train.classes)
    if not found.files:
        raise DataError(f"{shown(val_root)}: expected images, got none")
    return {"train": train, "val": found}


def drop_copies(parts: dict[str, Listing]) -> tuple[dict[str, Listing], int]:
    """Leaves one of each group of files with the same content: a validation image, if there is
    one, and else the first. Returns the rest, and how many files were left out."""
    seen: set[bytes] = set()
    kept = {}
    for part in sorted(parts, key=lambda name: name != "val"):
        listing = parts[part]
        paths = [listing.path(index) for index in range(len(listing.files))]
        rows = []
        for index, digest in enumerate(in_threads(content_hash, paths, 0)):
            if digest not in seen:
                seen.add(digest)
                rows.append(index)
        kept[part] = listing.take(np.asarray(rows, np.int64))
    dropped = sum(len(parts[part].files) - len(kept[part].files) for part in parts)
    if "val" in parts and not kept["val"].files:
        raise DataError(f"{shown(parts['val'].root)}: expected images, got none")
    require_all_classes(kept["train" if "train" in kept else "all"])
    return {part: kept[part] for part in parts}, dropped
