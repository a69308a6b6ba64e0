"""Listing the images in class folders, and splitting them by the content of the files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from convnet.common.reading import open_file
from convnet.data.dataset import Labels, check_labels, mismatch, readable, shown
from convnet.data.image import EXTENSIONS, quiet_pillow

_CHUNK = 64  # files a thread takes at a time

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The image files of one class-folder tree, by class and then by path.

    Attributes:
        root: the folder that holds the class folders.
        files: paths relative to root.
        labels: the class of each file, int32 [N].
        hidden, other, stray: how many hidden files, files that are no images, and images beside
            the class folders were passed over.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Labels
    hidden: int = 0
    other: int = 0
    stray: int = 0

    def path(self, index: int) -> Path:
        return self.root / self.files[index]

    @property
    def paths(self) -> list[Path]:
        """Where the files are."""
        return [self.root / file for file in self.files]

    def take(self, indices: npt.NDArray[np.int64]) -> Listing:
        """The same listing with only these files."""
        files = tuple(self.files[i] for i in indices)
        return replace(self, files=files, labels=self.labels[indices])


def list_classes(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """Lists the images below each class folder, at any depth; hidden ones are passed over.

    Args:
        root: the folder that holds one sub-folder per class.
        classes: the classes to expect, numbered in this order; a folder of another name is an
            error. None: the sub-folders found, in the order of their names.

    Raises:
        DataError: no such folder, no sub-folders, a class without images, or an unexpected class.
    """
    name = shown(root)
    folders, counts = sub_folders(root)
    if not folders:
        got = f"none ({counts.images} images directly in it)" if counts.images else "none"
        raise mismatch(name, "one sub-folder of images per class", got)
    if classes is None:
        classes = sorted(folders)
    elif strange := sorted(folders - set(classes)):
        expected = "only classes that training has too"
        raise mismatch(name, expected, f"the folder {shown(strange[0])}")
    files: list[str] = []
    labels: list[int] = []
    stray = counts.images
    for label, folder in enumerate(classes):
        found = _images_below(root, folder, counts) if folder in folders else []
        files += found
        labels += [label] * len(found)
    return Listing(
        root,
        tuple(classes),
        tuple(files),
        check_labels(np.asarray(labels, np.int32), len(classes), name),
        counts.hidden,
        counts.other,
        stray,
    )


@dataclass
class _Counts:
    images: int = 0
    hidden: int = 0
    other: int = 0

    def add(self, file: str) -> bool:
        """Counts a file; True where it is an image."""
        if file.startswith("."):
            self.hidden += 1
        elif Path(file).suffix.lower() not in EXTENSIONS:
            self.other += 1
        else:
            self.images += 1
            return True
        return False


def sub_folders(root: Path) -> tuple[set[str], _Counts]:
    """The folders directly in root, and the kinds of files beside them."""
    counts = _Counts()
    folders: set[str] = set()
    with readable(root, "a folder of images"), os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir():
                counts.add(entry.name)
            elif entry.name.startswith("."):
                counts.hidden += 1
            else:
                folders.add(entry.name)
    return folders, counts


def _images_below(root: Path, folder: str, counts: _Counts) -> list[str]:
    """Paths relative to root of the images below one class folder, sorted."""
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise mismatch(error.filename, "a folder of images", error.strerror) from None

    for base, below, files in os.walk(root / folder, onerror=fail):
        counts.hidden += sum(name.startswith(".") for name in below)
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = Path(base).relative_to(root)
        found += [str(relative / file) for file in sorted(files) if counts.add(file)]
    return found


def require_all_classes(listing: Listing) -> None:
    counts = np.bincount(listing.labels, minlength=len(listing.classes))
    for name, count in zip(listing.classes, counts, strict=True):
        if count == 0:
            raise mismatch(listing.root / name, "images", "none")
    if len(listing.classes) < 2:
        raise mismatch(listing.root, "at least two classes", f"one ({shown(listing.classes[0])})")


# ---- splitting -----------------------------------------------------------------------------------


def content_hash(path: Path) -> bytes:
    """BLAKE2b (16 bytes) of a file's content.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with readable(path), open_file(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def split_by_content(
    listing: Listing, fraction: float, threads: int = 0
) -> tuple[Listing, Listing, int]:
    """Splits by the hash of each file's content: always the same way, wherever the files lie.

    Exact copies stay on one side, even under several classes (they count for the first). In each
    class the different images with the smallest hashes are held out: the fraction, rounded, but
    at least one where there are two, and never all.

    Args:
        listing: what to split.
        fraction: the share to hold out, above 0 and below 1.

    Returns:
        Training, validation, and how many files are copies of an earlier one.

    Raises:
        DataError: a fraction outside (0, 1), a file that cannot be read, or nothing to hold out.
    """
    if not 0 < fraction < 1:
        raise mismatch("data.val_fraction", "a number above 0 and below 1", fraction)
    hashes = in_threads(content_hash, listing.paths, threads)
    held_out = set(_smallest_by_class(hashes, listing.labels, fraction))
    is_val = np.asarray([digest in held_out for digest in hashes], bool)
    train, val = (listing.take(np.flatnonzero(side)) for side in (~is_val, is_val))
    if not val.files:
        expected = "at least two different images in a class, to hold one out for validation"
        raise mismatch(listing.root, expected, f"{len(set(hashes))} in all")
    require_all_classes(train)
    return train, val, len(hashes) - len(set(hashes))


def _smallest_by_class(hashes: Sequence[bytes], labels: Labels, fraction: float) -> Iterable[bytes]:
    by_class: dict[int, list[bytes]] = {}
    seen: set[bytes] = set()
    for digest, label in zip(hashes, labels.tolist(), strict=True):
        if digest not in seen:
            seen.add(digest)
            by_class.setdefault(label, []).append(digest)
    for different in by_class.values():
        count = min(max(1, round(fraction * len(different))), len(different) - 1)
        yield from sorted(different)[:count]


# ---- threads ------------------------------------------------------------------------------------


def thread_pool(threads: int) -> ThreadPoolExecutor:
    """Threads that decode; 0: one for each usable CPU."""
    return ThreadPoolExecutor(threads or usable_cpus(), thread_name_prefix="convnet-decode")


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def in_threads(function: Callable[[Path], T], paths: Sequence[Path], threads: int) -> list[T]:
    """function(path) for every path, in order."""

    def several(chunk: Sequence[Path]) -> list[T]:
        return [function(path) for path in chunk]

    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with quiet_pillow(), thread_pool(threads) as pool:
        return [result for results in pool.map(several, chunks) for result in results]
