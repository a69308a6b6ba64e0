"""Listing the images in class folders, and splitting them by the content of the files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from convnet.common.progress import Tell, progress, untold
from convnet.common.reading import open_file
from convnet.data.dataset import Labels, check_labels, mismatch, readable, shown
from convnet.data.image import EXTENSIONS, quiet_pillow

_CHUNK = 16  # files a thread takes at a time
# Kinds of files; the last: images that lie in none of the class folders.
_IMAGES, _HIDDEN, _OTHER, _STRAY = "images", "hidden", "not images", "in no class folder"

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The image files of one class-folder tree, by class and then by path.

    Attributes:
        root: the folder that holds the class folders.
        files: paths relative to root.
        labels: the class of each file, int32 [N].
        passed_over: how many files were left out, by what they are: "hidden", "not images", "in no
            class folder".
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Labels
    passed_over: Counter[str] = field(default_factory=Counter)

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
    folders, passed_over = sub_folders(root)
    stray = passed_over.pop(_IMAGES, 0)
    if not folders:
        got = f"none ({stray} images directly in it)" if stray else "none"
        raise mismatch(name, "one sub-folder of images per class", got)
    if classes is None:
        classes = sorted(folders)
    elif strange := sorted(folders - set(classes)):
        expected = "only classes that training has too"
        raise mismatch(name, expected, f"the folder {shown(strange[0])}")
    passed_over[_STRAY] = stray
    files: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        found = _images_below(root, folder, passed_over) if folder in folders else []
        files += found
        labels += [label] * len(found)
    checked = check_labels(np.asarray(labels, np.int32), len(classes), name)
    return Listing(root, tuple(classes), tuple(files), checked, passed_over)


def list_flat(root: Path) -> Listing:
    """The images directly in a folder, by name, as one class.

    Raises:
        DataError: there are none.
    """
    _, passed_over = sub_folders(root)
    passed_over.pop(_IMAGES, 0)
    names = sorted(
        entry.name for entry in root.iterdir() if _kind(entry.name) == _IMAGES and entry.is_file()
    )
    if not names:
        raise mismatch(root, "images directly in this folder", "none")
    labels = np.zeros(len(names), np.int32)
    return Listing(root, ("unlabelled",), tuple(names), labels, passed_over)


def images_below(root: Path) -> list[str]:
    """Paths relative to root of all images in a folder, at any depth, sorted, but for hidden ones.

    Raises: DataError: it cannot be read.
    """
    return _images_below(root, "", Counter())


def _kind(file: str) -> str:
    if file.startswith("."):
        return _HIDDEN
    return _IMAGES if Path(file).suffix.lower() in EXTENSIONS else _OTHER


def sub_folders(root: Path) -> tuple[set[str], Counter[str]]:
    """The folders directly in root, and how many files of each kind lie beside them: "images",
    "hidden", "not images"."""
    counts: Counter[str] = Counter()
    folders: set[str] = set()
    with readable(root, "a folder of images"), os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                folders.add(entry.name)
            else:
                counts[_kind(entry.name)] += 1
    return folders, counts


def _images_below(root: Path, folder: str, passed_over: Counter[str]) -> list[str]:
    """Paths relative to root of the images below one class folder, sorted."""
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise mismatch(error.filename, "a folder of images", error.strerror) from None

    for base, below, files in os.walk(root / folder, onerror=fail):
        passed_over[_HIDDEN] += sum(name.startswith(".") for name in below)
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = Path(base).relative_to(root)
        kinds = {file: _kind(file) for file in sorted(files)}
        found += [str(relative / file) for file, kind in kinds.items() if kind == _IMAGES]
        passed_over.update(kind for kind in kinds.values() if kind != _IMAGES)
    return found


def passed_over(parts: Iterable[Listing]) -> dict[str, int]:
    """How many files were left out of several listings, by what they are."""
    total = sum((listing.passed_over for listing in parts), Counter[str]())
    return {kind: total[kind] for kind in (_HIDDEN, _OTHER, _STRAY) if total[kind]}


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


def groups_of_copies(hashes: Iterable[Hashable]) -> list[list[int]]:
    """The files with the same content: groups of two and more, by the first of them.

    Args:
        hashes: of the files; an empty one stands for a file that could not be read.

    Returns:
        For each group its numbers among the hashes, ascending.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, digest in enumerate(hashes):
        if digest:
            rows.setdefault(digest, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def split_by_content(
    listing: Listing,
    fraction: float,
    threads: int = 0,
    hashes: Sequence[bytes] | None = None,
) -> tuple[Listing, Listing, int]:
    """Splits by the hash of each file's content: always the same way, wherever the files lie.

    Exact copies stay on one side, even under several classes (they count for the first). In each
    class the different images with the smallest hashes are held out: the fraction, rounded, but
    at least one where there are two, and never all.

    Args:
        listing: what to split.
        fraction: the share to hold out, above 0 and below 1.
        threads: how many threads hash; 0: one per usable CPU.
        hashes: of the content of each file, where they are known; equal for what is to count as
            copies of one image.

    Returns:
        Training, validation, and how many files are copies of an earlier one.

    Raises:
        DataError: a fraction outside (0, 1), a file that cannot be read, or nothing to hold out.
    """
    if not 0 < fraction < 1:
        raise mismatch("data.val_fraction", "a number above 0 and below 1", fraction)
    if hashes is None:
        with progress("reading", "files") as tell:
            hashes = in_threads(content_hash, listing.paths, threads, tell)
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


def in_threads(
    function: Callable[[Path], T], paths: Sequence[Path], threads: int, tell: Tell = untold
) -> list[T]:
    """function(path) for every path, in order; `tell` is called with how many are done."""

    def several(chunk: Sequence[Path]) -> list[T]:
        return [function(path) for path in chunk]

    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with quiet_pillow(), thread_pool(threads) as pool:
        found: list[T] = []
        for results in pool.map(several, chunks):
            found += results
            tell(len(found), len(paths))
        return found
