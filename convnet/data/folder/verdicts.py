"""What earlier runs have found out about the files of a folder, so that nothing is looked at twice.

A verdict holds for a file as it was: its path, size, and times of change (of the content, and of
the inode, which no program can set). A file that changed in the last two seconds gets none, since
it could change again without its times showing it. Verdicts lie in the user's cache folder, never
beside the images: a data set from elsewhere then cannot bring its own. docs/data.md describes the
file. Whatever is wrong with it, it counts as not there; what cannot be written is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import PIL

from convnet.common.cache import cache_folder
from convnet.common.distribution import VERSION
from convnet.common.tensor_header import read_tensors, sha256_of, write_tensors

FORMAT = "1"
SETTLED_NS = 2_000_000_000  # file systems count time in steps of up to two seconds
_HASH = 16  # bytes of a file's hash
_SOUND, _DECODED, _HASHED = 1, 2, 4  # bits of a state


class Stamp(NamedTuple):
    """A file as it was: its size, and the times of change of its content and its inode, in ns."""

    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """The stamp of a file; None where it cannot be had, or the file has just changed."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        stamp = cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        settled = max(stamp.mtime, stamp.ctime) < time.time_ns() - SETTLED_NS
        return stamp if settled else None


@dataclass(frozen=True)
class Verdict:
    """What is known of a file.

    Attributes:
        size: (height, width) as its header says; None: not looked at, or bad.
        decoded: whether all of it was decoded.
        why: what is wrong with it; empty where nothing was found.
        digest: hash of the content, or empty.
    """

    size: tuple[int, int] | None = None
    decoded: bool = False
    why: str = ""
    digest: bytes = b""


class Verdicts:
    """Verdicts of the files below one folder.

    Args:
        root: the folder; where: the file that keeps them, None: none does.
    """

    def __init__(self, root: Path, where: Path | None) -> None:
        self._root, self._where = root, where
        self._known: dict[str, tuple[Stamp, Verdict]] = {}
        self._changed = False

    @classmethod
    def of(cls, root: Path) -> Self:
        """The verdicts that are kept of a folder, as far as there is a usable file of them."""
        found = cls(root, file_for(root, "verdicts"))
        if found._where is not None:
            with contextlib.suppress(OSError, ValueError):
                found._known = dict(_read(found._where))
        return found

    def get(self, path: Path, stamp: Stamp | None) -> Verdict:
        """What is known of a file that is as this stamp says."""
        known = self._known.get(self._name(path))
        return known[1] if known is not None and known[0] == stamp else Verdict()

    def put(self, path: Path, stamp: Stamp | None, verdict: Verdict) -> None:
        """Notes what was found; of a file without a stamp nothing is kept."""
        name = self._name(path)
        if stamp is None:
            self._changed |= self._known.pop(name, None) is not None
        elif self._known.get(name) != (stamp, verdict):
            self._known[name] = stamp, verdict
            self._changed = True

    def save(self) -> None:
        """Writes the file, if there is something new; forgets files that are gone."""
        if not self._changed or self._where is None:
            return
        there = {name: one for name, one in self._known.items() if (self._root / name).exists()}
        with contextlib.suppress(OSError):
            self._where.parent.mkdir(parents=True, exist_ok=True)
            _write(self._where, there)
            self._changed = False

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)


def file_for(root: Path, what: str) -> Path | None:
    """The file in the cache folder that keeps something of this folder; None: nothing is kept."""
    cache = cache_folder()
    if cache is None:
        return None
    place = os.fsencode(os.path.realpath(root))
    key = hashlib.blake2b(place, digest_size=12).hexdigest()
    return cache / "folders" / f"{key}.{what}"


# ---- the file ------------------------------------------------------------------------------------


def _by() -> str:
    """What the verdicts depend on besides the files."""
    return f"convnet {VERSION}, Pillow {PIL.__version__}"


def _text(parts: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(part + b"\0" for part in parts), np.uint8)


def _write(path: Path, known: dict[str, tuple[Stamp, Verdict]]) -> None:
    """Raises OSError."""
    verdicts = [verdict for _, verdict in known.values()]
    arrays = {
        "names": _text(map(os.fsencode, known)),
        "messages": _text(one.why.encode(errors="replace") for one in verdicts),
        "stamps": np.array([stamp for stamp, _ in known.values()], np.int64).reshape(-1, 3),
        "sizes": np.array([one.size or (0, 0) for one in verdicts], np.int32).reshape(-1, 2),
        "states": np.array([_state(one) for one in verdicts], np.uint8),
        "digests": np.frombuffer(
            b"".join(one.digest or bytes(_HASH) for one in verdicts), np.uint8
        ).reshape(-1, _HASH),
    }
    checksum = sha256_of(FORMAT, arrays).hex()
    write_tensors(path, {"format": FORMAT, "by": _by(), "sha256": checksum}, arrays)


def _state(one: Verdict) -> int:
    sound = one.size is not None and not one.why
    return _SOUND * sound | _DECODED * one.decoded | _HASHED * bool(one.digest)


def _read(path: Path) -> Iterator[tuple[str, tuple[Stamp, Verdict]]]:
    """Raises: OSError; ValueError: of another version, or damaged."""
    facts, arrays = read_tensors(path)
    if (facts.get("format"), facts.get("by")) != (FORMAT, _by()):
        raise ValueError("verdicts of another version")
    if facts.get("sha256") != sha256_of(FORMAT, arrays).hex():
        raise ValueError("its checksum does not match")
    try:
        columns = [arrays[name] for name in ("stamps", "sizes", "states", "digests")]
        texts = [arrays[name].tobytes().split(b"\0")[:-1] for name in ("names", "messages")]
    except KeyError:
        raise ValueError("its arrays are others") from None
    count = len(columns[2])
    shapes = [(count, 3), (count, 2), (count,), (count, _HASH)]
    types = [np.int64, np.int32, np.uint8, np.uint8]
    if [column.shape for column in columns] != shapes or [c.dtype for c in columns] != types:
        raise ValueError("its arrays are others")
    if any(len(text) != count for text in texts):
        raise ValueError("names of other files")
    stamps, sizes, states, digests = columns
    hashes = digests.tobytes()
    rows = zip(*texts, stamps.tolist(), sizes.tolist(), states.tolist(), strict=True)
    for number, (name, why, stamp, size, state) in enumerate(rows):
        yield (
            os.fsdecode(name),
            (
                Stamp(*stamp),
                Verdict(
                    (size[0], size[1]) if state & _SOUND else None,
                    bool(state & _DECODED),
                    why.decode(errors="replace"),
                    hashes[number * _HASH : (number + 1) * _HASH] if state & _HASHED else b"",
                ),
            ),
        )
