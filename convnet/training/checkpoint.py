"""Checkpoints: one safetensors file each, written so that a crash cannot leave half of one.

The file holds the arrays of a run (parameters, velocities, statistics of the data); everything
else about it (step, epoch, schedule, best result, configuration) is JSON in the metadata of the
same file, so that a checkpoint is there as a whole or not at all. A SHA-256 over both finds damage.

Writing goes to a temporary file in the same folder, which is flushed to the disk, then renamed,
and the rename flushed too: at every moment the folder holds whole checkpoints only. The format is
https://huggingface.co/docs/safetensors: a length, a JSON header, the arrays.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.files import TEMPORARY, replace, sync_folder
from convnet.common.reading import parse_json
from convnet.common.tensor_header import DTYPES, read_tensors
from convnet.common.typecheck import shown

FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: missing, damaged, or of something else."""


class DamagedCheckpointError(CheckpointError):
    """The file is not whole, or its contents do not match its checksum."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: `state` (JSON values) and `arrays` (name -> host array)."""

    state: dict[str, Any]
    arrays: dict[str, np.ndarray]
    path: Path


def write(path: Path, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint; a file of that name is replaced at once or, on failure, left alone.

    Args:
        path: where; its folder must exist.
        state: JSON values; floats are kept to the bit.
        arrays: host arrays, float32, float64, int32, int64 or uint8.

    Raises:
        OSError: the file cannot be written (the path and the system's reason are in it).
    """
    held = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    text = json.dumps({"format": FORMAT, **state}, allow_nan=False)
    header: dict[str, Any] = {
        "__metadata__": {"convnet": text, "sha256": _digest(text, held)},
    }
    offset = 0
    for name, array in held.items():
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)

    def write_all(file: Any) -> None:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in held.values():
            file.write(_bytes(array))

    replace(path, write_all)


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array, as bytes."""
    return array.reshape(-1).view(np.uint8).data


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks all of it.

    Raises:
        DamagedCheckpointError: truncated, altered, or not a checkpoint of this library.
        CheckpointError: no such file, or written by a later version.
    """
    try:
        metadata, arrays = read_tensors(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: expected a checkpoint, got a folder") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: damaged checkpoint ({_first_line(error)})") from None
    if not {"convnet", "sha256"} <= set(metadata):
        raise DamagedCheckpointError(f"{path}: damaged checkpoint, or none of convnet's")
    if _digest(metadata["convnet"], arrays) != metadata["sha256"]:
        raise DamagedCheckpointError(f"{path}: damaged checkpoint (its checksum does not match)")
    try:
        state = _State.of(parse_json(metadata["convnet"]), path)
    except CheckpointError:
        raise
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: damaged checkpoint ({_first_line(error)})") from None
    return Checkpoint(state, arrays, path)


class _State(dict[str, Any]):
    """The state in a checkpoint. Its checksum says that it is as it was written, and not by whom:
    what is read from it has the type that a run writes, and what is not there is an error."""

    path: Path

    @classmethod
    def of(cls, said: Any, path: Path) -> _State:
        """Raises: CheckpointError: a later version's, or values of other types."""
        if not isinstance(said, dict) or type(said.get("format")) is not int:
            raise DamagedCheckpointError(f"{path}: damaged checkpoint, or none of convnet's")
        if said["format"] > FORMAT:
            raise CheckpointError(
                f"{path}: format {said['format']} was written by a later convnet; this one reads "
                f"up to {FORMAT}"
            )
        for key, (expected, fits) in _STATE.items():
            if key in said and not fits(said[key]):
                raise DamagedCheckpointError(
                    f"{path}: damaged checkpoint ({key}: expected {expected}, got"
                    f" {shown(said[key])})"
                )
        state = cls(said)
        state.path = path
        return state

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self.path}: expected the checkpoint of a run, got one without {key}"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_list(value: Any, length: int | None, fits: Callable[[Any], bool]) -> bool:
    right = isinstance(value, list) and length in (None, len(value))
    return right and all(map(fits, value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_fact(value: Any) -> bool:
    return isinstance(value, dict) and {"pictures", "labels"} <= set(value)


# What a run writes, as far as it is used without looking: key -> (in words, whether it is so).
_STATE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "step": ("a whole number", _is_count),
    "epoch": ("a whole number", _is_count),
    "step_in_epoch": ("a whole number", _is_count),
    "epoch_tally": ("three numbers", lambda value: _is_list(value, 3, _is_number)),
    "window_tally": ("three numbers", lambda value: _is_list(value, 3, _is_number)),
    "best": ("a table or nothing", lambda value: value is None or isinstance(value, dict)),
    "lr": ("a number", _is_number),
    "schedule": ("a table", lambda value: isinstance(value, dict)),
    "config": ("a table", lambda value: isinstance(value, dict)),
    "training": ("facts about images", _is_fact),
    "validation": ("facts about images", _is_fact),
    "classes": (
        "a list of names",
        lambda value: _is_list(value, None, lambda one: isinstance(one, str)),
    ),
    "picture": (
        "height, width and channels",
        lambda value: _is_list(value, 3, lambda one: _is_count(one) and one > 0),
    ),
}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Checkpoints:
    """The checkpoints of one run: `step-<n>.safetensors`, the newest `keep` of them, and
    `best.safetensors`.

    Args:
        folder: where they are; made by the first `save`.
        keep: how many of the newest to keep, at least 2.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @property
    def best(self) -> Path:
        """Where the best checkpoint is, once there is one."""
        return self.folder / "best.safetensors"

    def paths(self) -> list[Path]:
        """The numbered checkpoints, newest first."""
        found = [(int(match[1]), path) for path in self._files() if (match := _match(path))]
        return [path for _, path in sorted(found, reverse=True)]

    def _files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def save(
        self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], best: bool = False
    ) -> Path:
        """Writes the checkpoint of `state["step"]`, then removes those no longer kept.

        Args:
            state: JSON values, with an int "step".
            arrays: name -> host array.
            best: write it as the best one too, before the numbered one: a crash between the two
                then repeats the epoch's end and writes the same best again.

        Returns:
            The path of the numbered checkpoint.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        if best:
            write(self.best, state, arrays)
        path = self.folder / f"step-{state['step']:08d}.safetensors"
        write(path, state, arrays)
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def tidy(self) -> None:
        """Removes temporary files that a killed process left."""
        for path in self._files():
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where none was ever written.

        Args:
            warn: told about each damaged one.

        Raises:
            DamagedCheckpointError: there are some, and every one is damaged.
        """
        return self._first(self.paths(), warn)

    def best_or_newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The best checkpoint; without one, or where it is damaged, the newest."""
        return self._first([self.best, *self.paths()] if self.best.exists() else self.paths(), warn)

    def _first(self, paths: list[Path], warn: Callable[[str], None]) -> Checkpoint | None:
        for number, path in enumerate(paths):
            try:
                return read(path)
            except DamagedCheckpointError as error:
                rest = paths[number + 1 :]
                if not rest:
                    raise
                warn(f"{error}; falling back to {rest[0].name}")
        return None


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)
