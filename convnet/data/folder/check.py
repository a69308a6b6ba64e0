"""Looking through a folder of images before training: what is damaged, what is there twice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.progress import counted
from convnet.data.dataset import DataError, mismatch, shown
from convnet.data.folder import near_copies
from convnet.data.folder.class_folders import (
    Listing,
    content_hash,
    groups_of_copies,
    passed_over,
)
from convnet.data.image import check_file, decode
from convnet.data.packed.dataset import open_packed, shard_name
from convnet.data.packed.manifest import read_manifest
from convnet.data.packed.sums import read_sums
from convnet.data.workers.pool import each, warn_plainly

_WAY_OUT = "--set data.bad_files=skip leaves them out of training, --bad-files skip of a pack"
_LISTED = 20  # lines of each kind that `CheckReport.text` shows
_SMALL = (64, 64)  # images are decoded to this: JPEG files quickly, and all of every file


@dataclass
class CheckReport:
    """What was found. Files are paths relative to the folder.

    Attributes:
        root: the folder.
        classes: part ("train", "val" or "all") -> class -> files.
        sizes: smallest, median and largest (height, width), by the number of pixels.
        bad: (kind, file, message); kinds are those of `ImageError`.
        copies: groups of files with the same content.
        similar: groups of files that look alike, those of the same content among them, where that
            was asked for; None: it was not.
        copies_across_classes, copies_across_parts: how many of the groups lie in several.
        passed_over: kind -> files that are no part of the set.
    """

    root: str
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)
    copies_across_classes: int = 0
    copies_across_parts: int = 0
    similar: list[list[str]] | None = None
    similar_across_parts: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Files looked at."""
        return sum(sum(counts.values()) for counts in self.classes.values())

    def as_dict(self) -> dict[str, Any]:
        return {"pictures": self.images, **asdict(self)}

    def text(self, everything: bool = False) -> str:
        """The report for reading; `everything`: however long the lists are."""
        most = len(self.bad) + len(self.copies) + self.images if everything else _LISTED
        lines = [f"{self.root}: {self.images:,} images"]
        for part, counts in self.classes.items():
            lines += _class_lines(part, counts, most)
        if self.sizes:
            small, middle, large = (f"{h}x{w}" for h, w in self.sizes)
            lines.append(f"height x width: smallest {small}, median {middle}, largest {large}")
        kinds = Counter(kind for kind, _, _ in self.bad)
        told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        lines.append(f"bad files: {len(self.bad):,}" + (f" ({told})" if told else ""))
        lines += [f"  {kind:10}  {message}" for kind, _, message in self.bad[:most]]
        lines += _more(len(self.bad), most)
        if self.bad:
            lines.append(f"  {_WAY_OUT}")
        extra = sum(len(group) - 1 for group in self.copies)
        lines.append(f"exact copies of another file: {extra:,}" + self._where())
        lines += [f"  {' = '.join(group)}" for group in self.copies[:most]]
        lines += _more(len(self.copies), most)
        if self.similar is not None:
            lines += self._similar_lines(most)
        if self.passed_over:
            told = ", ".join(f"{count:,} {kind}" for kind, count in self.passed_over.items())
            lines.append(f"passed over: {told}")
        return "\n".join(lines)

    def _similar_lines(self, most: int) -> list[str]:
        """Near-copies: of the groups, those across the parts stand first."""
        groups = self.similar or []
        where = f", {self.similar_across_parts:,} in both training and validation"
        line = f"groups of files that look alike: {len(groups):,}"
        lines = [line + (where if self.similar_across_parts else "")]
        lines += [f"  {' ~ '.join(group)}" for group in groups[:most]]
        return lines + _more(len(groups), most)

    def _where(self) -> str:
        notes = []
        if self.copies_across_classes:
            notes.append(f"{self.copies_across_classes:,} of the groups under several classes")
        if self.copies_across_parts:
            notes.append(f"{self.copies_across_parts:,} in both training and validation")
        return f" ({'; '.join(notes)})" if notes else ""


def _class_lines(part: str, counts: dict[str, int], most: int) -> list[str]:
    name = "" if part == "all" else f"{part}: "
    numbers = sorted(counts.values())
    line = f"{name}{len(counts):,} classes of {numbers[0]:,} to {numbers[-1]:,} images"
    if len(counts) > most:
        fewest = sorted(counts, key=lambda key: (counts[key], key))[:3]
        return [f"{line}; the smallest are {', '.join(map(shown, fewest))}"]
    return [line, *(f"  {count:8,}  {shown(key)}" for key, count in counts.items())]


def _more(count: int, most: int) -> list[str]:
    return [f"  ... and {count - most:,} more (--all lists them)"] if count > most else []


def _check_one(similar: bool, path: Path) -> tuple[bytes, int, int, str, str, int | None]:
    """In a worker: hash, height, width, what is wrong with a file, its kind and the message, and
    where it is wanted and can be had the perceptual hash."""
    digest, height, width, look = b"", 0, 0, None
    try:
        digest = content_hash(path)
        height, width = check_file(path, shown(path))
        decode(path, shown(path), _SMALL)
        look = near_copies.perceptual_hash(path) if similar else None
    except DataError as error:
        return digest, height, width, getattr(error, "kind", "unreadable"), str(error), None
    return digest, height, width, "", "", look


def check(
    root: Path,
    parts: dict[str, Listing],
    workers: int | None = None,
    warn: Callable[[str], None] = warn_plainly,
    similar: bool = False,
) -> CheckReport:
    """Decodes every image once; twice where it looks for near-copies.

    Args:
        root: the folder, to which files in the report are relative.
        parts: name -> the images.
        workers: number of processes; None: one for each usable CPU, at most 16.
        warn: called with a line of text when a worker died and was replaced.
        similar: look for images that look alike, too.

    Raises: ConfigError: that needs imagehash, and it is not installed.
    """
    if similar:
        near_copies.require("--similar")
    report = CheckReport(shown(root))
    places = [
        (part, listing, index)
        for part, listing in parts.items()
        for index in range(len(listing.files))
    ]
    names = [_name(listing.path(index), root) for _, listing, index in places]
    sizes: list[tuple[int, int]] = []
    digests: list[bytes] = []
    paths = (listing.path(index) for _, listing, index in places)
    looks: list[int | None] = []
    task = partial(_check_one, similar)
    results = counted(each(task, paths, workers, warn), len(places), "checking", "files")
    for name, result in zip(names, results, strict=True):
        digest, height, width, kind, message, look = result
        digests.append(digest)
        looks.append(look)
        if kind:
            report.bad.append((kind, name, message))
        else:
            sizes.append((height, width))
    if sizes:
        sizes.sort(key=math.prod)
        report.sizes = [sizes[at] for at in (0, len(sizes) // 2, -1)]
    for group in groups_of_copies(digests):
        report.copies.append([names[index] for index in group])
        found = [places[index] for index in group]
        report.copies_across_parts += len({part for part, _, _ in found}) > 1
        report.copies_across_classes += len({listing.labels[at] for _, listing, at in found}) > 1
    for part, listing in parts.items():
        counts = np.bincount(listing.labels, minlength=len(listing.classes))
        report.classes[part] = dict(zip(listing.classes, counts.tolist(), strict=True))
    if similar:
        _find_similar(report, looks, names, [part for part, _, _ in places])
    report.passed_over = passed_over(parts.values())
    return report


def _find_similar(
    report: CheckReport, looks: list[int | None], names: list[str], parts: list[str]
) -> None:
    """Puts the groups of near-copies into the report, those across the parts first."""
    rows = [row for row, look in enumerate(looks) if look is not None]
    hashes = np.array([looks[row] for row in rows], np.uint64)
    groups = [[rows[at] for at in group] for group in near_copies.near_groups(hashes)]
    groups.sort(key=lambda group: len({parts[row] for row in group}) == 1)
    report.similar = [[names[row] for row in group] for group in groups]
    report.similar_across_parts = sum(len({parts[row] for row in group}) > 1 for group in groups)


def _name(path: Path, root: Path) -> str:
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def check_packed(root: Path) -> str:
    """Holds packed images, their labels and their statistics against their checksums.

    Returns:
        One line for reading.

    Raises:
        DataError: something is missing or damaged; the first such file is named.
    """
    train, val = open_packed(root, cache_bytes=0)
    manifest = read_manifest(root)
    shards = [
        (root / shard_name(part, number), shard)
        for part, said in manifest.parts.items()
        for number, shard in enumerate(said.shards)
    ]
    for path, shard in counted(shards, len(shards), "checking", "shards"):
        found = content_hash(path).hex()
        if found != shard.blake2b:
            got = f"another ({found})"
            raise mismatch(path, f"the content it was packed with (blake2b {shard.blake2b})", got)
    sums = ", statistics" if read_sums(root) is not None else ""
    old = "; the labels have no checksum: they were packed by an earlier convnet"
    return (
        f"{shown(root)}: packed images, whole: {len(train):,} for training and {len(val):,} for"
        f" validation, {len(train.classes):,} classes, {len(shards):,} shards{sums}"
        f"{'' if manifest.complete else old}"
    )
