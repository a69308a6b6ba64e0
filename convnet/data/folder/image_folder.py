"""Images in folders: one sub-folder per class, or `train/` and `val/` that hold such sub-folders.

Every file's header and end are checked when the folder is opened, so that a broken download is
named before training starts and not in the middle of it; what was found is kept (`verdicts.py`),
and so are the sums for the statistics. Images are decoded by a thread pool when they are read;
small sets stay in memory after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from convnet.data.dataset import DataError, Images, expanded, mismatch, shown
from convnet.data.folder import near_copies
from convnet.data.folder.class_folders import (
    Listing,
    passed_over,
    require_all_classes,
    split_by_content,
)
from convnet.data.folder.inspection import Inspection
from convnet.data.folder.known_sums import read_sums, write_sums
from convnet.data.folder.trees import find_listings
from convnet.data.folder.verdicts import Verdicts
from convnet.data.image import ImageError, Resize, decode
from convnet.data.sums import Sums
from convnet.data.workers.decoded import CACHE_BYTES, DecodedDataset

BadFiles = Literal["error", "skip"]

# Ends the message about a bad file.
WAY_OUT = "--set data.bad_files=skip leaves bad files out"


# ---- the data set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderDecoder:
    """Decodes the file at a path to a (height, width), as `decode` does."""

    size: tuple[int, int]
    resize: Resize = "crop"

    def __call__(self, item: str) -> Images:
        try:
            return self.decoded(item)
        except ImageError as error:
            raise DataError(f"{error}; {WAY_OUT}") from None

    def decoded(self, item: str) -> Images:
        """The same, where bad files are no dead end."""
        path = Path(item)
        return decode(path, shown(path), self.size, resize=self.resize)


class FolderDataset(DecodedDataset):
    """Images decoded when they are read.

    Args:
        listing: the files and their labels.
        size: (height, width) to which `decode` brings every image.
        description: one line saying what this is and where it comes from.
        keep: keep decoded images in memory (N * H * W * 3 bytes).
        threads: how many threads decode; 0: one per CPU this process may use.
        resize: how images get their size, as for `decode`.
    """

    def __init__(
        self,
        listing: Listing,
        size: tuple[int, int],
        description: str = "",
        keep: bool = False,
        threads: int = 0,
        resize: Resize = "crop",
    ) -> None:
        self.listing = listing
        description = description or f"images in {shown(listing.root)}"
        shape = (size[0], size[1], 3)
        decoder = FolderDecoder(size, resize)
        super().__init__(
            listing.labels, listing.classes, shape, description, decoder, keep, threads
        )

    def items(self, indices: npt.NDArray[np.int64]) -> list[str]:
        return [str(self.listing.path(index)) for index in indices.tolist()]

    def stored_sums(self, colour: bool = True) -> Sums | None:
        return read_sums(self.listing, self.decoder, self.shape, colour)

    def keep_sums(self, sums: Sums, colour: bool) -> None:
        write_sums(self.listing, self.decoder, sums, colour)


# ---- opening -------------------------------------------------------------------------------------


def open_folder(
    root: Path,
    size: tuple[int, int] = (0, 0),
    val_fraction: float = 0.1,
    *,
    bad_files: BadFiles = "error",
    resize: Resize = "crop",
    copies: Literal["same", "similar"] = "same",
    threads: int = 0,
    cache_bytes: int = CACHE_BYTES,
    training: bool = True,
) -> tuple[FolderDataset, FolderDataset]:
    """Training and validation images of a folder.

    With `train/` and `val/` (or `valid/`, `validation/`, `test/`) these are the two parts. Else the
    class folders are split by the content of the files: see `split_by_content`.

    Args:
        root: the folder.
        size: (height, width) of the images; (0, 0): as they are, if all are of one size.
        val_fraction: the share of images held out where there is no folder of them.
        bad_files: "error": an image that is damaged, empty or too large is an error that names it.
            "skip": every image is decoded once now, and those that cannot be are left out. What an
            earlier run has found of files that have not changed since is not looked at again.
        resize: how images get their size, as for `decode`.
        copies: "similar": images that look alike, too, are on the same side of the split.
        threads: how many threads check and decode; 0: one per usable CPU.
        cache_bytes: images are kept decoded in memory if all of them take no more than this.
        training: whether the training images are wanted; if not, they are not checked where the
            split does not depend on it.

    Raises:
        DataError: no class folders, an empty class, a bad file, images of several sizes without
            `size`, or too few images to split.
    """
    root = expanded(root)
    if min(size) < 1 and max(size) != 0:
        raise mismatch("data.size", "a height and a width, or [0, 0]", list(size))
    parts = find_listings(root)
    left_out = passed_over(parts.values())
    inspection = Inspection(Verdicts.of(root), threads)
    images = sum(len(part.files) for part in parts.values())
    fits = min(size) > 0 and images * size[0] * size[1] * 3 <= cache_bytes
    checked = {name: part for name, part in parts.items() if training or name != "train"}
    repeated, kind = 0, "exact copies"
    try:
        size, good, bad = _check_files(inspection, checked, size, bad_files, fits, resize)
        parts |= good
        if "all" in parts:
            hashes = inspection.hashes(parts["all"].paths)
            if copies == "similar":
                hashes, kind = _joined(hashes, parts["all"], threads), "copies and near-copies"
            train, val, repeated = split_by_content(parts["all"], val_fraction, threads, hashes)
            how = "held out by content"
        else:
            train, val = parts["train"], parts["val"]
            require_all_classes(train)
            how = f"from {shown(val.root.name)}/"
    finally:
        inspection.known.save()
    notes = [f"{len(train.classes)} classes at {size[0]}x{size[1]}"]
    if repeated:
        notes.append(f"{repeated:,} {kind}, none on the other side of the split")
    if bad:
        notes.append(f"{len(bad):,} bad files left out, the first {bad[0]}")
    if left_out:
        kinds = (f"{count:,} {kind}" for kind, count in left_out.items())
        notes.append(f"passed over: {', '.join(kinds)}")
    keep = (len(train.files) + len(val.files)) * size[0] * size[1] * 3 <= cache_bytes
    sets = []
    for part, what in ((train, "training images"), (val, f"validation images ({how})")):
        text = "; ".join([f"images in {shown(root)}: {len(part.files):,} {what}", *notes])
        sets.append(FolderDataset(part, size, text, keep, threads, resize))
        if keep:
            sets[-1].keep_decoded(inspection.pixels)
    return sets[0], sets[1]


def _joined(hashes: list[bytes], listing: Listing, threads: int) -> list[bytes]:
    """Hashes of contents in which images that look alike have the same."""
    near_copies.require('data.copies="similar"')
    looks = near_copies.hashes_of(listing.paths, threads)
    return near_copies.as_one_file(hashes, near_copies.near_groups(looks))


def _check_files(
    inspection: Inspection,
    parts: dict[str, Listing],
    size: tuple[int, int],
    bad_files: str,
    keep: bool,
    resize: Resize,
) -> tuple[tuple[int, int], dict[str, Listing], list[str]]:
    """Checks every file; returns the size to use, the parts without the bad files, and these."""
    checked: dict[str, Listing] = {}
    sizes: dict[tuple[int, int], str] = {}
    bad: list[tuple[str, str]] = []
    target = size if min(size) > 0 else (8, 8)
    decoder = FolderDecoder(target, resize).decoded if bad_files == "skip" else None
    for part, listing in parts.items():
        good: list[int] = []
        for index, verdict in enumerate(inspection.check(listing.paths, decoder, keep)):
            if verdict.size is None:
                bad.append((shown(listing.path(index)), verdict.why))
            else:
                good.append(index)
                sizes.setdefault(verdict.size, shown(listing.path(index)))
        checked[part] = listing.take(np.asarray(good, np.int64))
    names = [f"{name}: {why}".split(": expected")[0] for name, why in bad]
    if bad and bad_files != "skip":
        more = ", ".join(names[1:3]) + (", ..." if len(bad) > 3 else "")
        more = f" (and {len(bad) - 1} more bad files: {more})" if len(bad) > 1 else ""
        raise DataError(f"{bad[0][0]}: {bad[0][1]}{more}; {WAY_OUT}")
    if min(size) > 0:
        return size, checked, names
    if len(sizes) != 1:
        examples = " and ".join(f"{h}x{w} ({name})" for (h, w), name in list(sizes.items())[:2])
        got = f"{list(size)}, and the images are of {len(sizes)} sizes: {examples}"
        raise mismatch("data.size", "the height and width to scale images to", got)
    return next(iter(sizes)), checked, names
