"""Event files for TensorBoard: what they hold, when a run is resumed, and without the library."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from convnet.cli.main import main
from convnet.training.tensorboard import Board, scalars
from convnet.training.train import train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def events(path: Path) -> list[Any]:
    """The events of a file: each a length, its checksum, the message, and that one's."""
    from tensorboardX.proto.event_pb2 import Event

    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        found.append(Event.FromString(content[at + 12 : at + 12 + size]))
        at += size + 16
    return found


def files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "tensorboard").iterdir())


def shown(paths: list[Path]) -> dict[tuple[str, int], float]:
    """What TensorBoard shows of these files: (name, step) -> value, less what is void."""
    values: dict[tuple[str, int], float] = {}
    for path in paths:
        for event in events(path):
            if event.HasField("session_log"):
                values = {key: value for key, value in values.items() if key[1] < event.step}
            values |= {(item.tag, event.step): item.simple_value for item in event.summary.value}
    return values


def expected(run_dir: Path) -> dict[tuple[str, int], float]:
    return {
        (name, line["step"]): pytest.approx(value, rel=1e-6)
        for line in tiny.metrics(run_dir)
        for name, value in scalars(line)
    }


def timeless(values: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {
        key: value
        for key, value in values.items()
        if not key[0].endswith(("/images_per_s", "/wait"))
    }


def test_names() -> None:
    step = {"kind": "step", "epoch": 1, "step": 3, "loss": 2.0, "lr": 0.1}
    assert dict(scalars(step)) == {"train/loss": 2.0, "train/lr": 0.1}
    epoch = {**step, "kind": "epoch", "val_top1": 50, "update_ratio": {"conv1": 0.5}, "x": "text"}
    assert dict(scalars(epoch)) == {
        "epoch/loss": 2.0,
        "epoch/lr": 0.1,
        "val/top1": 50.0,
        "update_ratio/conv1": 0.5,
    }


def test_a_run_writes_all_its_figures(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    config = tiny.write_config(tmp_path / "tiny.toml", data)
    words = ["train", str(config), "--device", "cpu", "--run-dir", str(tmp_path / "run"), "-q"]
    assert main([*words, "--tensorboard", "--epochs", "1"]) == 0
    (path,) = files(tmp_path / "run")
    assert events(path)[0].file_version == "brain.Event:2"
    found = shown([path])
    assert timeless(found) == expected(tmp_path / "run")
    names = {name for name, _ in found}
    assert {"train/loss", "train/lr", "train/images_per_s", "val/top5", "epoch/wait"} <= names
    assert {"update_ratio/conv1", "update_ratio/fc2"} <= names


def test_not_unless_asked(data: Path, tmp_path: Path) -> None:
    train(tiny.config(data), device="cpu", epochs=1, run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_resumed_run_shows_as_if_it_had_not_stopped(
    data: Path, tmp_path: Path, from_the_start: bool
) -> None:
    """Also where it was killed after its last checkpoint, and where it was begun without."""
    pytest.importorskip("tensorboardX")
    run_dir = tmp_path / "run"
    cfg = tiny.config(data, train={"tensorboard": from_the_start, "log_steps": 1})
    stop: dict[str, Any] = {"callbacks": [lambda record: record["step"] >= 13]}
    train(cfg, device="cpu", run_dir=run_dir, quiet=True, **stop)
    (run_dir / "checkpoints" / "step-00000013.safetensors").unlink()
    more = ["train.tensorboard=true"]
    train(resume=run_dir, device="cpu", quiet=True, overrides=more)
    assert len(files(run_dir)) == 1 + from_the_start
    found = timeless(shown(files(run_dir)))
    assert found == expected(run_dir)
    assert {step for name, step in found if name == "train/loss"} == set(range(1, 31))
    logs = [event.step for event in events(files(run_dir)[-1]) if event.HasField("session_log")]
    assert logs == [12] * from_the_start  # what the first file says of step 12 and on is void


def test_without_the_library(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = tiny.write_config(tmp_path / "tiny.toml", data)
    words = ["train", str(config), "--device", "cpu", "--run-dir", str(tmp_path / "run"), "-q"]
    assert main([*words, "--tensorboard"]) == 2
    assert capsys.readouterr().err == (
        "convnet: error: train.tensorboard: tensorboardX is not installed: "
        "pip install 'convnet-kernels[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
    assert main([*words, "--epochs", "1"]) == 0


def test_a_file_that_may_not_grow(data: Path, tmp_path: Path) -> None:
    """A full disk ends the run in one line; it does not hang or go on without its file."""
    pytest.importorskip("tensorboardX")
    config = tiny.write_config(tmp_path / "tiny.toml", data)
    words = ["train", config, "--device", "cpu", "--run-dir", tmp_path / "run", "-q"]
    more = ["--tensorboard", "--set", "train.log_steps=1", "--set", "train.checkpoint_steps=0"]
    done = subprocess.run(
        tiny.command(*words, *more),
        env=tiny.environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"convnet: error: {tmp_path / 'run'}/")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_board_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    record = {"kind": "step", "epoch": 1, "step": 4, "loss": 1.5}
    board = Board()
    board.open(tmp_path / "a" / "b", [record])
    board({**record, "step": 5, "loss": 1.0})
    board.end()
    assert os.fspath(board.path).startswith(os.fspath(tmp_path / "a" / "b" / "events.out.tfevents"))
    assert shown([board.path]) == {("train/loss", 4): 1.5, ("train/loss", 5): 1.0}


def test_the_viewer_reads_what_is_written(tmp_path: Path) -> None:
    """The extra brings both: what writes the files, and TensorBoard itself."""
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    board = Board()
    board.open(tmp_path, [{"kind": "step", "epoch": 1, "step": 3, "loss": 2.0, "lr": 0.1}])
    board.end()
    code = (
        "import sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "found = EventAccumulator(sys.argv[1]).Reload()\n"
        "(event,) = found.Scalars('train/loss')\n"
        "print(sorted(found.Tags()['scalars']), event.step, event.value)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "['train/loss', 'train/lr'] 3 2.0\n"
