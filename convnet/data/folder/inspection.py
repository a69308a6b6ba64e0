"""Checking and hashing the files of a folder, each once: what was found is kept (`verdicts.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from convnet.common.progress import progress
from convnet.data.dataset import DataError, Images, shown
from convnet.data.folder.class_folders import content_hash, in_threads
from convnet.data.folder.verdicts import Stamp, Verdict, Verdicts
from convnet.data.image import check_file

Decoder = Callable[[str], Images]
T = TypeVar("T")


@dataclass
class Inspection:
    """Looks at files, as far as nothing is known of them.

    Attributes:
        known: what is known of the files of the folder.
        threads: how many look; 0: one per usable CPU.
        pixels: images that were decoded on the way and asked for, by path.
    """

    known: Verdicts
    threads: int = 0
    pixels: dict[Path, Images] = field(default_factory=dict)

    def check(
        self, paths: Sequence[Path], decoder: Decoder | None, keep: bool = False
    ) -> list[Verdict]:
        """Looks at the header and the end of each file and, where there is a decoder, at all of it.

        Args:
            paths: the files.
            decoder: decodes a file.
            keep: put what it returns in `pixels`.
        """

        def missing(verdict: Verdict) -> bool:
            if verdict.why:
                return False
            return verdict.size is None or (decoder is not None and not verdict.decoded)

        def look(path: Path) -> tuple[Verdict, Images | None]:
            name = shown(path)
            try:
                size = check_file(path, name)
                pixels = None if decoder is None else decoder(str(path))
            except DataError as error:
                return Verdict(why=str(error).removeprefix(f"{name}: ")), None
            return Verdict(size, decoder is not None), pixels if keep else None

        def found(path: Path, verdict: Verdict, result: tuple[Verdict, Images | None]) -> Verdict:
            if result[1] is not None:
                self.pixels[path] = result[1]
            return replace(result[0], digest=verdict.digest)

        return self._each("checking", paths, missing, look, found)

    def hashes(self, paths: Sequence[Path]) -> list[bytes]:
        """The hash of each file's content. Raises: DataError: a file that cannot be read."""

        def found(_: Path, verdict: Verdict, digest: bytes) -> Verdict:
            return replace(verdict, digest=digest)

        verdicts = self._each(
            "comparing", paths, lambda verdict: not verdict.digest, content_hash, found
        )
        return [verdict.digest for verdict in verdicts]

    def _each(
        self,
        what: str,
        paths: Sequence[Path],
        missing: Callable[[Verdict], bool],
        look: Callable[[Path], T],
        found: Callable[[Path, Verdict, T], Verdict],
    ) -> list[Verdict]:
        """The verdict of each file: the one that is known, or where that lacks something, what
        `found` makes of it and of what `look` has seen."""
        stamps = [Stamp.of(path) for path in paths]
        verdicts = [self.known.get(*pair) for pair in zip(paths, stamps, strict=True)]
        rows = [row for row, verdict in enumerate(verdicts) if missing(verdict)]
        if rows:
            with progress(what, "files") as tell:
                seen = in_threads(look, [paths[row] for row in rows], self.threads, tell)
            for row, result in zip(rows, seen, strict=True):
                verdicts[row] = found(paths[row], verdicts[row], result)
                self.known.put(paths[row], stamps[row], verdicts[row])
        return verdicts


def identity(decoder: Any, root: Path, files: Iterable[str]) -> str:
    """Tells these files, as they are and as this decoder reads them, from all others; empty where
    one of them has just changed."""
    digest = hashlib.blake2b(repr(decoder).encode(), digest_size=16)
    for file in files:
        stamp = Stamp.of(root / file)
        if stamp is None:
            return ""
        digest.update(f"{file}\0{tuple(stamp)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
