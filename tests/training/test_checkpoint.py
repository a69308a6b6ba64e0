"""Checkpoint files: contents, damage, and writing that fails half way."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tiny

from convnet.training import checkpoint as checkpoints
from convnet.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    DamagedCheckpointError,
    read,
    write,
)

STATE = {"step": 3, "loss": 0.1 + 0.2, "best": None, "names": ["a", "ä"]}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "conv1.w": rng.standard_normal((4, 3, 3, 2)).astype(np.float32),
        "conv1.b": rng.standard_normal(4).astype(np.float32),
        "statistics:mean": rng.standard_normal((1, 1, 1)),
        "one": np.array(2.5, np.float32),
        "none": np.zeros((0, 3), np.float32),
    }


def test_what_is_written_is_read_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays())
    found = read(path)
    assert {key: found.state[key] for key in STATE} == STATE
    assert set(found.arrays) == set(arrays())
    for name, array in arrays().items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays())
    loaded = safetensors.numpy.load_file(path)
    assert np.array_equal(loaded["conv1.w"], arrays()["conv1.w"])


def test_strided_arrays_are_written_in_order(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    write(tmp_path / "a", {"step": 0}, {"x": array})
    assert np.array_equal(read(tmp_path / "a").arrays["x"], array)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays())
    whole = path.read_bytes()
    spaces = whole.rindex(b"}", 0, 8 + int.from_bytes(whole[:8], "little"))
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        if spaces < place < 8 + int.from_bytes(whole[:8], "little"):
            continue  # padding after the header
        with pytest.raises(DamagedCheckpointError):
            read(path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncation_is_found(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(DamagedCheckpointError, match=r"a\.safetensors: damaged checkpoint"):
        read(path)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, other)
    with pytest.raises(DamagedCheckpointError, match="none of convnet's"):
        read(other)
    with pytest.raises(CheckpointError, match="no such file"):
        read(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="got a folder"):
        read(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    write(tmp_path / "a", STATE, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="written by a later convnet"):
        read(tmp_path / "a")


class TestCheckpoints:
    """The folder of a run's checkpoints."""

    def folder(self, tmp_path: Path, steps: tuple[int, ...]) -> Checkpoints:
        kept = Checkpoints(tmp_path / "checkpoints", keep=2)
        for step in steps:
            kept.save({"step": step}, arrays(step), best=step == 2)
        return kept

    def test_keeps_the_newest_and_the_best(self, tmp_path: Path) -> None:
        kept = self.folder(tmp_path, (1, 2, 3, 10))
        assert [path.name for path in kept.paths()] == [
            "step-00000010.safetensors",
            "step-00000003.safetensors",
        ]
        assert read(kept.best).state["step"] == 2

    def test_falls_back_loudly(self, tmp_path: Path) -> None:
        kept = self.folder(tmp_path, (1, 2, 3))
        newest = kept.paths()[0]
        newest.write_bytes(newest.read_bytes()[:-1])
        said: list[str] = []
        found = kept.newest(said.append)
        assert found is not None
        assert found.state["step"] == 2
        assert len(said) == 1
        assert "step-00000003.safetensors: damaged checkpoint" in said[0]
        assert "falling back to step-00000002.safetensors" in said[0]

    def test_all_damaged_is_an_error_not_a_new_start(self, tmp_path: Path) -> None:
        kept = self.folder(tmp_path, (1, 3))
        for path in kept.paths():
            path.write_bytes(b"")
        with pytest.raises(DamagedCheckpointError):
            kept.newest(lambda text: None)

    def test_a_damaged_best_gives_the_newest(self, tmp_path: Path) -> None:
        kept = self.folder(tmp_path, (1, 2, 3))
        kept.best.write_bytes(b"nothing")
        said: list[str] = []
        found = kept.best_or_newest(said.append)
        assert found is not None
        assert found.state["step"] == 3
        assert len(said) == 1

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        kept = Checkpoints(tmp_path / "absent")
        assert kept.newest(lambda text: None) is None
        kept.tidy()
        assert kept.paths() == []


def test_a_full_disk_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays(1))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(path, STATE, arrays(2))
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert np.array_equal(read(path).arrays["conv1.w"], arrays(1)["conv1.w"])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_real_write_error_leaves_the_file_before(tmp_path: Path) -> None:
    """A process that may not write large files: the system refuses in the middle of a write."""
    path = tmp_path / "a.safetensors"
    write(path, STATE, arrays(1))
    script = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from convnet.training.checkpoint import write\n"
        "try:\n"
        "    write(Path(sys.argv[1]), {'step': 1}, {'x': np.ones(100_000, np.float32)})\n"
        "except OSError as error:\n"
        "    print(error.strerror, error.filename)\n"
    )
    limits: dict[str, Any] = {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(path)],
        env=tiny.environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        **limits,
    )
    assert done.stdout.strip() == f"File too large {path}", done.stderr
    assert read(path).state["step"] == STATE["step"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_values_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a", {"step": 1, "loss": float("nan")}, {})
    assert list(tmp_path.iterdir()) == []
