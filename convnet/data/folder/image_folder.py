"""Images in folders: one sub-folder per class, or `train/` and `val/` that hold such sub-folders.

Every file's header and end are checked when the folder is opened, so that a broken download is
named before training starts and not in the middle of it. Images are decoded by a thread pool
when they are read; small sets stay in memory after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import DataError, Images, expanded, shown
from convnet.data.folder.class_folders import (
    Listing,
    in_threads,
    list_classes,
    require_all_classes,
    split_by_content,
    sub_folders,
)
from convnet.data.image import check_file, decode
from convnet.data.workers.decoded import CACHE_BYTES, DecodedDataset

_VALIDATION_NAMES = ("val", "valid", "validation", "test")

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
        raise DataError(f"data.size: expected a height and a width, or [0, 0], got {list(size)}")
    parts = find_parts(root)
    listings = [list_classes(parts[0])]
    require_all_classes(listings[0])
    if parts[1] is not None:
        listings.append(list_classes(parts[1], listings[0].classes))
        if not listings[1].files:
            raise DataError(f"{shown(parts[1])}: expected images, got none")
    notes = _Notes(_passed_over(listings))
    size, listings = _check_files(listings, size, bad_files, threads, notes)
    if parts[1] is None:
        train, val, duplicates = split_by_content(listings[0], val_fraction, threads)
        notes.how = "held out by content"
        notes.duplicates = duplicates
    else:
        require_all_classes(listings[0])
        train, val = listings
        notes.how = f"from {shown(parts[1].name)}/"
    keep = (len(train.files) + len(val.files)) * size[0] * size[1] * 3 <= cache_bytes
    says = _description(root, size, train, val, notes)
    return (
        FolderDataset(train, size, f"{says[0]}; {says[2]}", keep, threads),
        FolderDataset(val, size, f"{says[1]}; {says[2]}", keep, threads),
    )


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
    if inner and not counts.images:
        return root / "train", None
    return root, None


@dataclass
class _Notes:
    """What the description tells beside the numbers of images."""

    passed_over: str
    how: str = ""
    duplicates: int = 0
    bad: list[str] = field(default_factory=list)


def _passed_over(listings: list[Listing]) -> str:
    """How many files of which kind are no part of the set; empty where there are none."""
    kinds = (
        (sum(part.hidden for part in listings), "hidden"),
        (sum(part.other for part in listings), "not images"),
        (sum(part.stray for part in listings), "images in no class folder"),
    )
    return ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)


def _description(
    root: Path, size: tuple[int, int], train: Listing, val: Listing, notes: _Notes
) -> tuple[str, str, str]:
    """Training, validation, and what holds for both."""
    start = f"images in {shown(root)}"
    common = [f"{len(train.classes)} classes at {size[0]}x{size[1]}"]
    if notes.duplicates:
        common.append(f"{notes.duplicates:,} exact copies, none on the other side of the split")
    if notes.bad:
        common.append(f"{len(notes.bad):,} bad files left out, the first {notes.bad[0]}")
    if notes.passed_over:
        common.append(f"passed over: {notes.passed_over}")
    return (
        f"{start}: {len(train.files):,} training images",
        f"{start}: {len(val.files):,} validation images ({notes.how})",
        "; ".join(common),
    )


def _check_files(
    listings: list[Listing], size: tuple[int, int], bad_files: str, threads: int, notes: _Notes
) -> tuple[tuple[int, int], list[Listing]]:
    """Checks every file; returns the size to use and the listings without the bad files."""
    checked: list[Listing] = []
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

    for listing in listings:
        results = in_threads(check, [listing.path(i) for i in range(len(listing.files))], threads)
        good: list[int] = []
        for index, result in enumerate(results):
            if isinstance(result, DataError):
                bad.append(result)
            else:
                good.append(index)
                sizes.setdefault(result, shown(listing.path(index)))
        checked.append(listing.take(np.asarray(good, np.int64)))
    notes.bad = [str(error).split(": expected")[0] for error in bad]
    if bad and bad_files != "skip":
        more = ", ".join(notes.bad[1:3]) + (", ..." if len(bad) > 3 else "")
        raise DataError(
            str(bad[0]) + (f" (and {len(bad) - 1} more bad files: {more})" if len(bad) > 1 else "")
        )
    if min(size) > 0:
        return size, checked
    if len(sizes) != 1:
        examples = " and ".join(f"{h}x{w} ({name})" for (h, w), name in list(sizes.items())[:2])
        raise DataError(
            f"data.size: expected the height and width to scale images to, got {list(size)},"
            f" and the images are of {len(sizes)} sizes: {examples}"
        )
    return next(iter(sizes)), checked
