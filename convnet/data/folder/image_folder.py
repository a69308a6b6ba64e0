"""Images in folders: one sub-folder per class, or `train/` and `val/` that hold such sub-folders.

Every file's header and end are checked when the folder is opened, so that a broken download is
named before training starts and not in the middle of it. Images are decoded by a thread pool
when they are read; small sets stay in memory after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import DataError, Images, expanded, mismatch, shown
from convnet.data.folder.class_folders import (
    Listing,
    in_threads,
    passed_over,
    require_all_classes,
    split_by_content,
)
from convnet.data.folder.trees import find_listings
from convnet.data.image import check_file, decode
from convnet.data.workers.decoded import CACHE_BYTES, DecodedDataset

BadFiles = Literal["error", "skip"]


# ---- the data set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderDecoder:
    """Decodes the file at a path to a (height, width)."""

    size: tuple[int, int]

    def __call__(self, item: str) -> Images:
        path = Path(item)
        return decode(path, shown(path), self.size)


class FolderDataset(DecodedDataset):
    """Images decoded when they are read.

    Args:
        listing: the files and their labels.
        size: (height, width) to which `decode` brings every image.
        description: one line saying what this is and where it comes from.
        keep: keep decoded images in memory (N * H * W * 3 bytes).
        threads: how many threads decode; 0: one per CPU this process may use.
    """

    def __init__(
        self,
        listing: Listing,
        size: tuple[int, int],
        description: str = "",
        keep: bool = False,
        threads: int = 0,
    ) -> None:
        self.listing = listing
        description = description or f"images in {shown(listing.root)}"
        shape = (size[0], size[1], 3)
        decoder = FolderDecoder(size)
        super().__init__(
            listing.labels, listing.classes, shape, description, decoder, keep, threads
        )

    def items(self, indices: npt.NDArray[np.int64]) -> list[str]:
        return [str(self.listing.path(index)) for index in indices.tolist()]


# ---- opening -------------------------------------------------------------------------------------


def open_folder(
    root: Path,
    size: tuple[int, int] = (0, 0),
    val_fraction: float = 0.1,
    *,
    bad_files: BadFiles = "error",
    threads: int = 0,
    cache_bytes: int = CACHE_BYTES,
) -> tuple[FolderDataset, FolderDataset]:
    """Training and validation images of a folder.

    With `train/` and `val/` (or `valid/`, `validation/`, `test/`) these are the two parts. Else the
    class folders are split by the content of the files: see `split_by_content`.

    Args:
        root: the folder.
        size: (height, width) of the images; (0, 0): as they are, if all are of one size.
        val_fraction: the share of images held out where there is no folder of them.
        bad_files: "error": an image that is damaged, empty or too large is an error that names it.
            "skip": every image is decoded once now, and those that cannot be are left out.
        threads: how many threads check and decode; 0: one per usable CPU.
        cache_bytes: images are kept decoded in memory if all of them take no more than this.

    Raises:
        DataError: no class folders, an empty class, a bad file, images of several sizes without
            `size`, or too few images to split.
    """
    root = expanded(root)
    if min(size) < 1 and max(size) != 0:
        raise mismatch("data.size", "a height and a width, or [0, 0]", list(size))
    parts = find_listings(root)
    left_out = passed_over(parts.values())
    size, parts, bad = _check_files(parts, size, bad_files, threads)
    copies = 0
    if "all" in parts:
        train, val, copies = split_by_content(parts["all"], val_fraction, threads)
        how = "held out by content"
    else:
        train, val = parts["train"], parts["val"]
        require_all_classes(train)
        how = f"from {shown(val.root.name)}/"
    notes = [f"{len(train.classes)} classes at {size[0]}x{size[1]}"]
    if copies:
        notes.append(f"{copies:,} exact copies, none on the other side of the split")
    if bad:
        notes.append(f"{len(bad):,} bad files left out, the first {bad[0]}")
    if left_out:
        kinds = (f"{count:,} {kind}" for kind, count in left_out.items())
        notes.append(f"passed over: {', '.join(kinds)}")
    keep = (len(train.files) + len(val.files)) * size[0] * size[1] * 3 <= cache_bytes
    train_text, val_text = (
        "; ".join([f"images in {shown(root)}: {len(part.files):,} {what}", *notes])
        for part, what in ((train, "training images"), (val, f"validation images ({how})"))
    )
    return (
        FolderDataset(train, size, train_text, keep, threads),
        FolderDataset(val, size, val_text, keep, threads),
    )


def _check_files(
    parts: dict[str, Listing], size: tuple[int, int], bad_files: str, threads: int
) -> tuple[tuple[int, int], dict[str, Listing], list[str]]:
    """Checks every file; returns the size to use, the parts without the bad files, and these."""
    checked: dict[str, Listing] = {}
    sizes: dict[tuple[int, int], str] = {}
    bad: list[DataError] = []
    target = size if min(size) > 0 else (8, 8)

    def check(path: Path) -> tuple[int, int] | DataError:
        try:
            found = check_file(path, shown(path))
            if bad_files == "skip":
                decode(path, shown(path), target)
            return found
        except DataError as error:
            return error

    for part, listing in parts.items():
        good: list[int] = []
        for index, result in enumerate(in_threads(check, listing.paths, threads)):
            if isinstance(result, DataError):
                bad.append(result)
            else:
                good.append(index)
                sizes.setdefault(result, shown(listing.path(index)))
        checked[part] = listing.take(np.asarray(good, np.int64))
    names = [str(error).split(": expected")[0] for error in bad]
    if bad and bad_files != "skip":
        more = ", ".join(names[1:3]) + (", ..." if len(bad) > 3 else "")
        more = f" (and {len(bad) - 1} more bad files: {more})" if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}")
    if min(size) > 0:
        return size, checked, names
    if len(sizes) != 1:
        examples = " and ".join(f"{h}x{w} ({name})" for (h, w), name in list(sizes.items())[:2])
        got = f"{list(size)}, and the images are of {len(sizes)} sizes: {examples}"
        raise mismatch("data.size", "the height and width to scale images to", got)
    return next(iter(sizes)), checked, names
