"""Writing the shards of packed images: tar files that appear under their names when complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convnet.common.files import lock, replace
from convnet.common.reading import JSON, parse_json, read_text
from convnet.data.dataset import DataError, mismatch, shown
from convnet.data.packed.dataset import shard_name
from convnet.data.packed.manifest import MANIFEST, manifest_text

WORK = ".packing"  # the folder inside the result for what is not complete
NOTES = 2  # version of the notes that an unfinished packing goes on from
_BLOCK = 512  # of a tar file


class ShardWriter:
    """Writes one shard under a temporary name, and the records of its images beside it.

    Args:
        out: the folder of the result.
        part, number: which shard.
    """

    def __init__(self, out: Path, part: str, number: int) -> None:
        self._out, self._number = out, number
        self._name = shard_name(part, number)
        self._path = out / WORK / f"{self._name}.tmp"
        self._file = self._path.open("wb")
        self._digest = hashlib.blake2b(digest_size=16)
        self._offset = 0
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._digests: list[str] = []
        self._bad: list[tuple[int, str]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: int, name: str, label: int, digest: str, content: bytes) -> None:
        """An image and its label; `digest` is that of the file it was made from."""
        self._digests.append(digest)
        self._rows.append((key, self._offset + _BLOCK, len(content), self._number, label))
        self._member(name, content)
        self._member(f"{name.partition('.')[0]}.cls", b"%d" % label)

    def add_bad(self, key: int, digest: str, why: str) -> None:
        """An image that is left out."""
        self._digests.append(digest)
        self._bad.append((key, why))

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # owned by 0, of the year 1970: always the same bytes
        member.size = len(content)
        self._write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Gives an OSError the name of the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _write(self, data: bytes) -> None:
        with self._named():
            self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)

    def complete(self) -> None:
        """Ends the shard and gives it its name, last of all."""
        self._write(bytes(2 * _BLOCK))
        with self._named():
            self._file.flush()
            os.fsync(self._file.fileno())
        notes = {"bytes": self._offset, "blake2b": self._digest.hexdigest(), "bad": self._bad}
        notes |= {"rows": self._rows, "digests": self._digests}
        replace(self._out / WORK / f"{self._name}.json", json.dumps(notes).encode())
        self._path.replace(self._out / self._name)


class Output:
    """The folder of a result, for one process at a time.

    Args:
        out: the folder; new, empty, or with an unfinished packing.
        digest: checksum of what is to be packed, and how; an unfinished packing must have the same.

    Raises:
        DataError: the folder holds something else, or another process is at it.
    """

    def __init__(self, out: Path, digest: str) -> None:
        self.out, self.work, self.plan = out, out / WORK, out / WORK / "plan"
        if out.exists() and not out.is_dir():
            raise mismatch(out, "a folder, new or empty", "a file")
        found = {path.name for path in out.iterdir()} if out.is_dir() else set()
        if MANIFEST in found and not self.plan.is_file():
            raise DataError(f"{shown(out)}: holds packed images already; name another folder")
        if found and WORK not in found:
            raise mismatch(out, "a new or empty folder", f"one with {shown(min(found))} in it")
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock(self.work)
        except BlockingIOError:
            raise DataError(f"{shown(out)}: another process is packing into it") from None
        try:
            self._check_plan(digest)
        except BaseException:
            os.close(self._lock)
            raise

    def _check_plan(self, digest: str) -> None:
        if self.plan.is_file():
            if read_text(self.plan, JSON, "replace").strip() != digest:
                raise DataError(
                    f"{shown(self.out)}: holds an unfinished packing of other images, or with"
                    " other settings; remove it, or name another folder"
                )
            return
        replace(self.plan, digest.encode())

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def has(self, part: str, number: int) -> bool:
        """Whether a shard is complete."""
        return (self.out / shard_name(part, number)).is_file()

    def shard(self, part: str, number: int) -> ShardWriter:
        return ShardWriter(self.out, part, number)

    def notes(self, part: str, number: int) -> dict[str, Any]:
        """Of a complete shard: "bytes", "blake2b"; "bad", the keys of images that were left out,
        and why; "rows", of the index; "digests", the hash of each file."""
        place = self.work / f"{shard_name(part, number)}.json"
        try:
            notes = parse_json(read_text(place, JSON))
            return {key: notes[key] for key in ("bytes", "blake2b", "bad", "rows", "digests")}
        except (ValueError, KeyError, TypeError) as error:
            got = f"damaged ones ({error}); remove {shown(self.out)} and pack again"
            raise mismatch(place, "notes of a packing that was interrupted", got) from None

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest, and removes what was needed to go on."""
        text = manifest_text(manifest)
        replace(self.out / MANIFEST, text)
        self.plan.unlink()
        shutil.rmtree(self.work, ignore_errors=True)
