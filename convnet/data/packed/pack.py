"""Packing images: every one scaled and cut to one size, in a few large files.

Workers read, decode, scale and encode; this process writes the shards in a fixed order. So the
bytes of the result depend on the images and the settings (and on the version of the JPEG encoder)
alone: not on the number of workers, and not on whether it was interrupted. A shard is complete once
it has its name; what was complete is not made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.common.files import replace
from convnet.common.progress import progress
from convnet.data.augment import epoch_order
from convnet.data.dataset import DataError, mismatch, shown
from convnet.data.folder.class_folders import Listing, content_hash, groups_of_copies
from convnet.data.image import Resize, decode
from convnet.data.packed.dataset import INDEX, member_name, ppm_head
from convnet.data.packed.manifest import VERSION, digest_of
from convnet.data.packed.shards import NOTES, Output
from convnet.data.workers.pool import each, warn_plainly

_REPORTED = 16  # images between two times that it is told how far it is


@dataclass(frozen=True)
class PackSettings:
    """How images are packed.

    Attributes:
        size: (height, width).
        resize: how images get it, as for `convnet.data.image.decode`.
        encoding: "jpeg", or "raw": uncompressed PPM, exact, about five times as large, and read
            without decoding.
        quality: quality of the JPEG files, 1 to 100.
        shard: images a tar file holds.
        bad_files: "error": a file that cannot be decoded ends it; "skip": it is left out.
    """

    size: tuple[int, int] = (256, 256)
    encoding: Literal["jpeg", "raw"] = "jpeg"
    quality: int = 95
    shard: int = 2000
    bad_files: Literal["error", "skip"] = "error"
    resize: Resize = field(default="crop", repr=False)  # which `_digest` adds

    @property
    def notes(self) -> dict[str, str]:
        """What packed.json says besides; nothing, as before, of images that were cropped."""
        return {} if self.resize == "crop" else {"resize": self.resize}


@dataclass
class PackReport:
    """What was packed.

    Attributes:
        pictures: how many images in each part.
        classes: how many classes.
        bad: (file, why) of the images left out.
        copies: groups of files with the same content, each a list of paths.
        across: how many validation images are copies of a training image.
        bytes: size of all shards together.
        reused: shards that were complete before.
    """

    pictures: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)
    across: int = 0
    bytes: int = 0
    reused: int = 0


# ---- in the workers ------------------------------------------------------------------------------


def _packed(settings: PackSettings, path: Path) -> tuple[str, bytes, str]:
    """The hash of a file, the packed image, and why there is none."""
    name, digest = shown(path), ""
    try:
        digest = content_hash(path).hex()
        pixels = decode(path, name, settings.size, resize=settings.resize)
        return digest, encode(pixels, settings), ""
    except DataError as error:
        if settings.bad_files == "error":
            raise
        return digest, b"", str(error).removeprefix(f"{name}: ")


def encode(pixels: npt.NDArray[np.uint8], settings: PackSettings) -> bytes:
    """An image, uint8 [H, W, 3], as the content of a file."""
    if settings.encoding == "raw":
        return ppm_head(settings.size) + pixels.tobytes()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=settings.quality)
    return file.getvalue()


# ---- packing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    part: str
    number: int
    keys: range  # of its images: their places in the listing of the part


def pack(
    train: Listing,
    val: Listing,
    out: Path,
    settings: PackSettings | None = None,
    workers: int | None = None,
    warn: Callable[[str], None] = warn_plainly,
) -> PackReport:
    """Packs images into a folder; called again after it was interrupted, goes on.

    Args:
        train, val: the images.
        out: the folder; new, empty, or with an unfinished packing of the same images.
        settings: how; by default as the paper's authors did.
        workers: number of processes; None: one for each usable CPU, at most 16.
        warn: called with a line of text when a worker died and was replaced.

    Raises:
        DataError: the folder holds something else, or an image is bad and may not be.
        OSError: something cannot be written.
    """
    settings = settings or PackSettings()
    total = len(train.files) + len(val.files)
    digest = _digest(settings, train, val)
    with Output(out, digest) as output, progress("packing", "images") as tell:
        # Training images are shuffled, for programs that read shards from front to back.
        listings = {"train": train.take(epoch_order(0, 0, len(train.files))), "val": val}
        shards = [
            _Shard(part, number, range(len(listing.files))[start : start + settings.shard])
            for part, listing in listings.items()
            for number, start in enumerate(range(0, len(listing.files), settings.shard))
        ]
        missing = [shard for shard in shards if not output.has(shard.part, shard.number)]
        done = total - sum(len(shard.keys) for shard in missing)
        tell(done, total)
        paths = (listings[shard.part].path(key) for shard in missing for key in shard.keys)
        task = partial(_packed, settings)
        with contextlib.closing(each(task, paths, workers, warn)) as results:
            for shard in missing:
                labels = listings[shard.part].labels
                with output.shard(shard.part, shard.number) as writer:
                    for key, (found, content, why) in zip(shard.keys, results, strict=False):
                        if why:
                            writer.add_bad(key, found, why)
                        else:
                            name = member_name(key, settings.encoding)
                            writer.add(key, name, int(labels[key]), found, content)
                        done += 1
                        if (key + 1) % _REPORTED == 0 or key == shard.keys[-1]:
                            tell(done, total)
                    writer.complete()
        report = PackReport(classes=len(train.classes), reused=len(shards) - len(missing))
        _finish(listings, shards, settings, output, report)
    return report


def _digest(settings: PackSettings, *listings: Listing) -> str:
    """Of everything that decides what comes out, but for the content of the files."""
    said = (VERSION, NOTES, settings, *settings.notes.values())
    digest = hashlib.blake2b(repr(said).encode(), digest_size=16)
    for listing in listings:
        digest.update(repr((listing.classes, len(listing.files))).encode())
        digest.update(np.ascontiguousarray(listing.labels).tobytes())
        for file in listing.files:
            digest.update(os.fsencode(file) + b"\0")
    return digest.hexdigest()


# ---- finishing -----------------------------------------------------------------------------------


def _finish(
    listings: dict[str, Listing],
    shards: Sequence[_Shard],
    settings: PackSettings,
    output: Output,
    report: PackReport,
) -> None:
    """Writes the indices, lists and the manifest."""
    parts: dict[str, Any] = {}
    digests: list[str] = []
    for part, listing in listings.items():
        rows, told = [], []
        for shard in (shard for shard in shards if shard.part == part):
            notes = output.notes(part, shard.number)
            report.bad += [(shown(listing.files[key]), why) for key, why in notes.pop("bad")]
            rows += [tuple(row) for row in notes.pop("rows")]
            digests += notes.pop("digests")
            told.append(notes)
        index = np.array(rows, INDEX)
        _check_classes(listing, part, index)
        content = io.BytesIO()
        np.save(content, index)
        replace(output.out / f"{part}.index.npy", content.getbuffer())
        replace(output.out / f"{part}.tsv", _list(listing, index))
        checksum = digest_of(content.getvalue())
        parts[part] = {"pictures": len(index), "index": checksum, "shards": told}
        report.pictures[part] = len(index)
        report.bytes += sum(shard["bytes"] for shard in told)
    report.copies, report.across = _copies(listings, digests)
    output.finish(
        {
            "size": list(settings.size),
            **settings.notes,
            "encoding": settings.encoding,
            "quality": settings.quality if settings.encoding == "jpeg" else None,
            "classes": list(listings["train"].classes),
            "bad_files": report.bad,
            "copies": report.copies,
            "copies_across": report.across,
            "parts": parts,
        }
    )


def _check_classes(listing: Listing, part: str, index: npt.NDArray[np.void]) -> None:
    """Raises DataError where bad files were all there was."""
    counts = np.bincount(index["label"], minlength=len(listing.classes))
    if part == "train" and not counts.all():
        raise mismatch(listing.classes[int(counts.argmin())], "training images", "bad files only")
    if not counts.any():
        raise mismatch(listing.root, "validation images", "bad files only")


def _list(listing: Listing, index: npt.NDArray[np.void]) -> bytes:
    """For people: the number of each image, its class, and the file it was made from."""
    return "".join(
        f"{key:09d}\t{shown(listing.classes[label])}\t{shown(listing.files[key])}\n"
        for key, label in zip(index["key"].tolist(), index["label"].tolist(), strict=True)
    ).encode()


def _copies(listings: dict[str, Listing], digests: list[str]) -> tuple[list[list[str]], int]:
    """Groups of files with the same content, and how many of validation are in training too."""
    train, files = len(listings["train"].files), listings["train"].files + listings["val"].files
    groups = groups_of_copies(digests)
    across = [group for group in groups if group[0] < train <= group[-1]]  # their rows ascend
    count = sum(row >= train for group in across for row in group)
    return sorted(sorted(shown(files[row]) for row in group) for group in groups), count
