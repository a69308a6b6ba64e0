"""Packing images: every one scaled and cut to one size, in a few large files.

Workers read, decode, scale and encode; this process writes the shards in a fixed order. So the
bytes of the result depend on the images and the settings (and on the version of the JPEG encoder)
alone: not on the number of workers, and not on whether it was interrupted. A shard is complete once
it has its name; what was complete is not made again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.common.files import replace
from convnet.data.augment import epoch_order
from convnet.data.dataset import DataError, shown
from convnet.data.folder.class_folders import Listing, content_hash
from convnet.data.folder.copies import Digests, groups_of_copies
from convnet.data.image import decode
from convnet.data.packed.dataset import INDEX, member_name, ppm_head
from convnet.data.packed.manifest import VERSION, digest_of
from convnet.data.packed.shards import Output
from convnet.data.workers.pool import Pool, auto_workers, warn_plainly

_JOB = 16  # images a worker does at a time


@dataclass(frozen=True)
class PackSettings:
    """How images are packed.

    Attributes:
        size: (height, width); the shorter side is scaled to cover it, and the centre cut out.
        encoding: "jpeg", or "raw": uncompressed PPM, exact, about five times as large, and read
            without decoding.
        quality: of the JPEG files, 1 to 100.
        shard: images a tar file holds.
        bad_files: "error": a file that cannot be decoded ends it; "skip": it is left out.
    """

    size: tuple[int, int] = (256, 256)
    encoding: Literal["jpeg", "raw"] = "jpeg"
    quality: int = 95
    shard: int = 2000
    bad_files: Literal["error", "skip"] = "error"


@dataclass
class PackReport:
    """What was packed.

    Attributes:
        pictures: how many images in each part.
        classes: how many classes.
        bad: (file, why) of the images left out.
        copies: groups of files with the same content, each a list of paths.
        across: how many validation images are copies of a training image.
        bytes: of all shards.
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


@dataclass
class _PackTask:
    """Reads, scales and encodes images."""

    settings: PackSettings

    def attach(self, memory: int | None) -> None:
        pass

    def __call__(self, job: Sequence[str]) -> list[tuple[bytes, bytes, str]]:
        return [self._one(Path(path)) for path in job]

    def _one(self, path: Path) -> tuple[bytes, bytes, str]:
        """The hash of the file, the packed image, and why there is none."""
        name = shown(path)
        digest = b"\0" * 16
        try:
            digest = content_hash(path)
            return digest, encode(decode(path, name, self.settings.size), self.settings), ""
        except DataError as error:
            if self.settings.bad_files == "error":
                raise
            return digest, b"", str(error).removeprefix(f"{name}: ")


def encode(pixels: npt.NDArray[np.uint8], settings: PackSettings) -> bytes:
    """An image, uint8 [H, W, 3], as the content of a file."""
    if settings.encoding == "raw":
        return ppm_head(settings.size) + pixels.tobytes()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=settings.quality)
    return file.getvalue()


# ---- planning ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    part: str
    number: int
    keys: range  # of its images: their places in the order of the part


@dataclass
class _Plan:
    """Which image goes where."""

    settings: PackSettings
    listings: dict[str, Listing]
    orders: dict[str, npt.NDArray[np.int64]]

    @classmethod
    def of(cls, train: Listing, val: Listing, settings: PackSettings) -> _Plan:
        # Training images are shuffled, for programs that read shards from front to back.
        orders = {
            "train": epoch_order(0, 0, len(train.files)),
            "val": np.arange(len(val.files), dtype=np.int64),
        }
        return cls(settings, {"train": train, "val": val}, orders)

    def shards(self) -> Iterator[_Shard]:
        for part, listing in self.listings.items():
            for number, start in enumerate(range(0, len(listing.files), self.settings.shard)):
                stop = min(start + self.settings.shard, len(listing.files))
                yield _Shard(part, number, range(start, stop))

    def path(self, part: str, key: int) -> Path:
        return self.listings[part].path(int(self.orders[part][key]))

    def file(self, part: str, key: int) -> str:
        return self.listings[part].files[int(self.orders[part][key])]

    def label(self, part: str, key: int) -> int:
        return int(self.listings[part].labels[self.orders[part][key]])

    def digest(self) -> str:
        """Of everything that decides what comes out, but for the content of the files."""
        digest = hashlib.blake2b(repr((VERSION, self.settings)).encode(), digest_size=16)
        for listing in self.listings.values():
            digest.update(repr((listing.classes, len(listing.files))).encode())
            digest.update(np.ascontiguousarray(listing.labels).tobytes())
            for file in listing.files:
                digest.update(os.fsencode(file) + b"\0")
        return digest.hexdigest()


# ---- packing -------------------------------------------------------------------------------------


def pack(
    train: Listing,
    val: Listing,
    out: Path,
    settings: PackSettings | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, count: None,
    warn: Callable[[str], None] = warn_plainly,
) -> PackReport:
    """Packs images into a folder; called again after it was interrupted, goes on.

    Args:
        train, val: the images.
        out: the folder; new, empty, or with an unfinished packing of the same images.
        settings: how; by default as the paper's authors did.
        workers: processes; None: one for each usable CPU, at most 16.
        progress: called with (images done, images in all).
        warn: told when a worker died and was replaced.

    Raises:
        DataError: the folder holds something else, or an image is bad and may not be.
        OSError: something cannot be written.
    """
    plan = _Plan.of(train, val, settings or PackSettings())
    with Output(out, plan.digest()) as output:
        report = PackReport(classes=len(train.classes))
        total = len(train.files) + len(val.files)
        missing = []
        done = 0
        for shard in plan.shards():
            if output.has(shard.part, shard.number):
                report.reused += 1
                done += len(shard.keys)
            else:
                missing.append(shard)
        progress(done, total)
        if missing:
            _pack_shards(plan, output, missing, workers or auto_workers(), warn, progress, done)
        _finish(plan, output, report)
    return report


def _pack_shards(
    plan: _Plan,
    output: Output,
    shards: Sequence[_Shard],
    workers: int,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None],
    done: int,
) -> None:
    total = sum(len(listing.files) for listing in plan.listings.values())
    jobs = (
        [str(plan.path(shard.part, key)) for key in shard.keys[start : start + _JOB]]
        for shard in shards
        for start in range(0, len(shard.keys), _JOB)
    )
    with Pool(_PackTask(plan.settings), workers, warn=warn) as pool:
        results = pool.ordered(jobs)
        for shard in shards:
            with output.shard(shard.part, shard.number) as writer:
                for start in range(0, len(shard.keys), _JOB):
                    keys = shard.keys[start : start + _JOB]
                    for key, (digest, content, why) in zip(keys, next(results), strict=True):
                        if why:
                            writer.add_bad(key, digest, why)
                        else:
                            name = member_name(key, plan.settings.encoding)
                            writer.add(key, name, plan.label(shard.part, key), digest, content)
                    done += len(keys)
                    progress(done, total)
                writer.complete()


# ---- finishing -----------------------------------------------------------------------------------


def _finish(plan: _Plan, output: Output, report: PackReport) -> None:
    """Writes the indices, lists and the manifest."""
    parts: dict[str, Any] = {}
    digests: list[Digests] = []
    for part, listing in plan.listings.items():
        rows, hashes, shards = [np.empty(0, INDEX)], [np.empty((0, 2), np.uint64)], []
        for shard in (shard for shard in plan.shards() if shard.part == part):
            notes, index, digest = output.notes(part, shard.number)
            report.bad += [(shown(plan.file(part, key)), why) for key, why in notes.pop("bad")]
            rows.append(index)
            hashes.append(digest)
            shards.append(notes)
        index = np.concatenate(rows)
        _check_classes(listing, part, index)
        checksum = _write_index(output.out / f"{part}.index.npy", index)
        replace(output.out / f"{part}.tsv", partial(_write_list, plan, part, index))
        digests.append(np.concatenate(hashes))
        parts[part] = {"pictures": len(index), "index": checksum, "shards": shards}
        report.pictures[part] = len(index)
        report.bytes += sum(shard["bytes"] for shard in shards)
    report.copies, report.across = _copies(plan, digests)
    settings = plan.settings
    output.finish(
        {
            "size": list(settings.size),
            "encoding": settings.encoding,
            "quality": settings.quality if settings.encoding == "jpeg" else None,
            "classes": list(plan.listings["train"].classes),
            "bad_files": report.bad,
            "copies": report.copies,
            "copies_across": report.across,
            "parts": parts,
        }
    )


def _write_index(path: Path, index: npt.NDArray[np.void]) -> str:
    """Writes an index; returns the checksum of its file."""
    content = io.BytesIO()
    np.save(content, index)
    replace(path, lambda file: file.write(content.getbuffer()))
    return digest_of(content.getvalue())


def _check_classes(listing: Listing, part: str, index: npt.NDArray[np.void]) -> None:
    """Raises DataError where bad files were all there was."""
    counts = np.bincount(index["label"], minlength=len(listing.classes))
    if part == "train" and not counts.all():
        name = shown(listing.classes[int(counts.argmin())])
        raise DataError(f"{name}: expected training images, got bad files only")
    if not counts.any():
        raise DataError(f"{shown(listing.root)}: expected validation images, got bad files only")


def _write_list(plan: _Plan, part: str, index: npt.NDArray[np.void], file: BinaryIO) -> None:
    for key, label in zip(index["key"].tolist(), index["label"].tolist(), strict=True):
        name = plan.listings[part].classes[label]
        file.write(f"{key:09d}\t{shown(name)}\t{shown(plan.file(part, key))}\n".encode())


def _copies(plan: _Plan, digests: Sequence[Digests]) -> tuple[list[list[str]], int]:
    """Groups of files with the same content, and how many of validation are in training too."""
    rows = groups_of_copies(np.concatenate(digests))
    groups = [[_place(plan, row) for row in group] for group in rows]
    across = [group for group in groups if len({part for part, _ in group}) == 2]
    count = sum(part == "val" for group in across for part, _ in group)
    return sorted(sorted(file for _, file in group) for group in groups), count


def _place(plan: _Plan, place: int) -> tuple[str, str]:
    """The part and file of an image, counted through both parts."""
    first = len(plan.listings["train"].files)
    part, key = ("train", place) if place < first else ("val", place - first)
    return part, shown(plan.file(part, key))
