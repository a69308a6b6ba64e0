"""Checkpoints: one safetensors file each, written so that a crash cannot leave half of one.

The file holds the arrays of a run (parameters, velocities, statistics of the data); everything
else about it (step, epoch, schedule, best result, configuration) is JSON in the metadata of the
same file, so that a checkpoint exists as a whole or not at all. A SHA-256 over both detects damage.

Writing goes to a temporary file in the same folder, which is flushed to the disk, then renamed,
and the rename flushed too: at every moment the folder holds whole checkpoints only. The format is
https://huggingface.co/docs/safetensors: a length, a JSON header, the arrays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet.common.files import TEMPORARY, sync_folder
from convnet.common.reading import parse_json
from convnet.common.tensor_header import read_tensors, sha256_of, write_tensors
from convnet.common.typecheck import MismatchError, convert, shown
from convnet.config import Config, load_config
from convnet.data import Statistics
from convnet.nn.net import Net
from convnet.nn.weights import misfits

FORMAT = 1
CHECKPOINTS = "checkpoints"  # the folder in that of a run
_NOT_OURS = "or none of convnet's"
_STATISTICS = "statistics:"  # begins the names of the arrays that are statistics of the data
_NAME = re.compile(r"step-(\d+)\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: missing, damaged, or of something else."""


class DamagedCheckpointError(CheckpointError):
    """The file is not whole, or its contents do not match its checksum."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: JSON values: where the run stands, its configuration, what it says of its data.
        arrays: name -> host array: parameters, velocities, and statistics of the data.
        path: the file.
    """

    state: dict[str, Any]
    arrays: dict[str, np.ndarray]
    path: Path

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters and velocities, as `Net.load_state` takes them."""
        arrays = self.arrays.items()
        return {name: array for name, array in arrays if not name.startswith(_STATISTICS)}

    @property
    def run(self) -> Path | None:
        """The folder of its run, where the file still lies in one."""
        return self.path.parent.parent if self.path.parent.name == CHECKPOINTS else None

    def config(self) -> Config:
        """The configuration that it was trained with; the run's files of own code are beside it.

        Raises: ConfigError: it cannot be used, or names code where that is not allowed.
        """
        return load_config(self.state["config"], saved=True, folder=self.run)

    def statistics(self) -> Statistics:
        """The statistics of the training data.

        Raises:
            CheckpointError: they are not there, or do not fit the images of the run.
        """
        shape = tuple(self.state["picture"])
        channels = shape[2:]
        shapes = {
            "mean": (shape, (1, 1, *channels)),
            "eigenvalues": (channels,),
            "eigenvectors": (channels * 2,),
        }
        found = {name: self.arrays.get(_STATISTICS + name) for name in shapes}
        for name, array in found.items():
            if array is None or array.shape not in shapes[name]:
                raise CheckpointError(
                    f"{self.path}: expected the statistics of its images, got no {name}, or one"
                    " of another shape"
                )
        return Statistics(**found)  # type: ignore[arg-type]


def statistics_arrays(stats: Statistics) -> dict[str, np.ndarray]:
    """The statistics as arrays of a checkpoint."""
    return {_STATISTICS + name: np.asarray(array) for name, array in vars(stats).items()}


def check_weights(net: Net, checkpoint: Checkpoint) -> None:
    """Compares the parameters of a net, which may be one of sizes only, with those of a checkpoint.

    Raises:
        CheckpointError: it is of another net; names the parameter and both shapes.
    """
    try:
        misfits(net.whole_params, checkpoint.weights, strict=True)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: checkpoint of another net: {error}") from None


def load_weights(net: Net, checkpoint: Checkpoint) -> None:
    """Puts parameters, velocities and the step of a checkpoint into a net.

    Raises:
        CheckpointError: it is of another net; names the parameter and both shapes.
    """
    check_weights(net, checkpoint)
    net.load_state(checkpoint.weights)
    net.step = checkpoint.state["step"]


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
    write_tensors(path, {"convnet": text, "sha256": sha256_of(text, held).hex()}, held)


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks all of it.

    Raises:
        DamagedCheckpointError: truncated, altered, or not a checkpoint of this library.
        CheckpointError: no such file, or written by a later version.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: expected a checkpoint, got a folder") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError:
        raise
    except ValueError as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedCheckpointError(f"{path}: damaged checkpoint ({text})") from None


def _read(path: Path) -> Checkpoint:
    metadata, arrays = read_tensors(path)
    if not {"convnet", "sha256"} <= set(metadata):
        raise ValueError(_NOT_OURS)
    if sha256_of(metadata["convnet"], arrays).hex() != metadata["sha256"]:
        raise ValueError("its checksum does not match")
    state = parse_json(metadata["convnet"])
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise ValueError(_NOT_OURS)
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: format {state['format']} was written by a later convnet; this one reads "
            f"up to {FORMAT}"
        )
    _check_types(state)
    return Checkpoint(_State(path, state), arrays, path)


class _State(dict[str, Any]):
    """The state in a checkpoint; a key that is not there is an error for the user."""

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        super().__init__(state)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self.path}: expected the checkpoint of a run, got one without {key}"
        )


# What a run writes, as far as it is used without looking: the type of each value.
_STATE: dict[str, Any] = {
    "step": int,
    "epoch": int,
    "step_in_epoch": int,
    "epoch_tally": tuple[float, float, float],
    "window_tally": tuple[float, float, float],
    "best": dict | None,
    "lr": float,
    "schedule": dict,
    "config": dict,
    "training": dict,
    "validation": dict,
    "classes": tuple[str, ...],
    "picture": tuple[int, int, int],
}


def _check_types(state: dict[str, Any]) -> None:
    """Checks that values have the types that a run writes: a checksum does not say who wrote a
    file. Raises: ValueError."""
    for key, hint in _STATE.items():
        if key not in state:
            continue
        try:
            value = convert(state[key], hint)
        except MismatchError as error:
            raise ValueError(f"{key}: expected {error}, got {shown(state[key])}") from None
        sizes, least = ([value], 0) if hint is int else (value if key == "picture" else [], 1)
        if not all(least <= size < 1 << 62 for size in sizes):
            raise ValueError(f"{key}: expected integers from {least} on, got {shown(state[key])}")


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
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(int(match[1]), path) for path in files if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

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
        for path in self.folder.glob(f"*{TEMPORARY}"):
            path.unlink(missing_ok=True)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where none was ever written.

        Args:
            warn: called with a message for each damaged one.

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
