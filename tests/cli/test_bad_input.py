"""Bad input: one line that names the thing, exit code 2, no traceback."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from convnet.cli.main import main
from convnet.data.idx import write_idx
from convnet.training import checkpoint
from convnet.training.checkpoint import read, write
from convnet.training.train import train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def complaint(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    """The error line of a command that must fail; nothing else may be on standard error."""
    try:
        found = main([str(word) for word in words])
    except SystemExit as error:  # argparse's way out
        found = int(error.code or 0)
    err = capsys.readouterr().err
    assert found == code, err
    assert err.startswith("convnet: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("convnet: error: ").rstrip("\n")


def train_words(tmp_path: Path, folder: Path, **changes: Any) -> list[str | Path]:
    config = tiny.write_config(tmp_path / "tiny.toml", folder, **changes)
    return ["train", config, "--device", "cpu", "--run-dir", tmp_path / "run", "-q"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], '"trian": no such command; did you mean "train"?'),
        (["train"], "train: expected a configuration file, a preset or a run to resume"),
        (["train", "fashion-mnits"], 'did you mean "fashion-mnist"?'),
        (["train", "x.toml"], "x.toml: no such file"),
        (["train", "mnist", "--epochs", "0"], 'expected a whole number, at least 1; got "0"'),
        (["train", "mnist", "--epochs", "x"], 'expected a whole number, at least 1; got "x"'),
        (["train", "mnist", "--precision", "half"], 'train.precision: expected one of "fp32"'),
        (["train", "mnist", "--batch"], "unrecognized arguments: --batch"),
        (["train", "mnist", "--device", "gpu"], "device: expected one of auto, cpu, cuda"),
        (["train", "mnist", "--set", "sgd.lr"], "--set sgd.lr: expected key=value"),
        (["train", "mnist", "--set", "sgd.rl=1"], "mnist: sgd.rl: unknown key"),
        (["train", "--resume", "x"], "x: no such run folder"),
        (["train", "--resume", "x", "--run-dir", "y"], "run_dir: cannot be given with resume"),
        (["eval", "absent"], "absent: no such run folder or checkpoint"),
        (["eval", "."], ".: no checkpoint in this folder"),
        (["predict", "absent", "a.png"], "absent: no such run folder or checkpoint"),
        (["summary", "nothing"], '"nothing": no such file or preset'),
    ],
)
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in complaint(capsys, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sgdd": {}}, 'sgdd: unknown key; did you mean "sgd"?'),
        ({"train": {"batch": "many"}}, 'train.batch: expected an integer, got "many"'),
        ({"train": {"batch": 1000}}, "expected at most 160, the number of training images"),
        ({"augment": {"crop": [9, 40]}}, "augment.crop: width: expected at most 10"),
        ({"data": {"size": [5, 5]}}, "data.size: expected [0, 0] or [8, 8]"),
    ],
)
def test_configurations_that_do_not_fit(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    expected: str,
) -> None:
    assert expected in complaint(capsys, *train_words(tmp_path, data, **changes))
    assert not (tmp_path / "run").exists()


def test_layers_that_do_not_fit(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = tiny.config(data)["net"]["layers"]
    layers[0]["size"] = 12
    text = complaint(capsys, *train_words(tmp_path, data, net={"layers": layers}))
    assert "tiny.toml: net: node 'conv1' (Conv)" in text
    assert "(8, 8, 1)" in text
    layers[0]["size"] = 3
    layers[3]["inputs"] = "pool9"
    text = complaint(capsys, *train_words(tmp_path, data, net={"layers": layers}))
    assert "unknown input 'pool9'; did you mean \"pool1\"?" in text


def test_data_that_are_missing_or_damaged(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = train_words(tmp_path, data)
    assert "absent: expected train-images" in complaint(capsys, *words, "--data", "absent")

    labels = data / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-3])
    assert "train-labels-idx1-ubyte: expected 160 bytes" in complaint(capsys, *words)
    wrong = np.frombuffer(whole, np.uint8)[8:].copy()
    wrong[17] = 12
    write_idx(labels, wrong)
    text = complaint(capsys, *words)
    assert "train-labels-idx1-ubyte: label of image 17: expected 0 .. 9, got 12" in text
    labels.unlink()
    assert "expected train-labels-idx1-ubyte" in complaint(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_an_image_that_breaks_during_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.full((12, 12, 3), number, np.uint8)
            pixels[number % 12] = 200 if name == "cats" else 50
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    layers = tiny.config("")["net"]["layers"]
    layers[4]["units"] = 2
    source = {"source": "folder", "size": [8, 8], "val_fraction": 0.2}
    changes = {"data": source, "net": {"layers": layers}, "train": {"batch": 8}}
    words = train_words(tmp_path, tmp_path / "data", **changes)
    assert main([str(word) for word in words]) == 0
    image = tmp_path / "data" / "cats" / "3.png"
    good = image.read_bytes()
    words[5] = tmp_path / "again"
    for content, expected in (
        (b"", "expected an image, got an empty file"),
        (b"GIF8 nothing", "3.png: expected an image"),
        (good[: len(good) // 2], "3.png: expected a whole image"),
    ):
        image.write_bytes(content)
        assert expected in complaint(capsys, *words)
    words[5] = tmp_path / "without it"
    assert main([*map(str, words), "--set", "data.bad_files=skip"]) == 0
    image.write_bytes(good)

    for content, expected in (
        (b"", "got an empty file"),
        (good[: len(good) // 2], "cannot be decoded"),
    ):
        other = tmp_path / "other.png"
        other.write_bytes(content)
        text = complaint(capsys, "predict", tmp_path / "run", image, other)
        assert text.startswith(f"{other}: ")
        assert expected in text
    assert "gone.png: expected a readable file" in complaint(
        capsys, "predict", tmp_path / "run", tmp_path / "gone.png"
    )
    large = tmp_path / "large.png"
    Image.new("1", (12_000, 8_000)).save(large)
    assert "expected an image of at most 89,478,485 pixels" in complaint(
        capsys, "predict", tmp_path / "run", large
    )


def test_a_run_folder_that_exists(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = train_words(tmp_path, data)
    assert main([str(word) for word in words]) == 0
    text = complaint(capsys, *words)
    assert text.startswith(f"{tmp_path / 'run'}: holds a run already; continue it with --resume ")
    file = tmp_path / "file"
    file.write_text("")
    words[5] = file
    assert f"{file}: expected a folder for the run, got a file" == complaint(capsys, *words)


def test_a_checkpoint_of_another_net(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(word) for word in train_words(tmp_path, data)]) == 0
    path = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    held = read(path)
    write(path, held.state, {**held.arrays, "conv1.w": held.arrays["conv1.w"][:4]})
    for words in (("eval", path), ("train", "--resume", tmp_path / "run", "--epochs", "4", "-q")):
        text = complaint(capsys, *words)
        assert f"{path}: checkpoint of another net" in text
        assert "conv1.w: expected shape (8, 3, 3, 1), got (4, 3, 3, 1)" in text


def test_no_space_left(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk is full when the third checkpoint is written; with room again the run goes on."""
    real, calls = checkpoint.write, 0

    def write_on_full_disk(path: Path, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", no_room)
                real(path, *arguments)
        real(path, *arguments)

    def no_room(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", write_on_full_disk)
        text = complaint(capsys, *train_words(tmp_path, data))
    kept = tmp_path / "run" / "checkpoints"
    assert text.startswith(f"{kept}/best.safetensors: No space left on device; ")
    assert f"the last checkpoint is {kept}/step-00000008.safetensors" in text
    assert f"resume with: convnet train --resume {tmp_path / 'run'}" in text
    assert read(kept / "step-00000008.safetensors").state["step"] == 8
    assert train(resume=tmp_path / "run", device="cpu", quiet=True).status == "done"


@pytest.mark.parametrize("limit", [1500, 9000])
def test_files_that_may_not_grow(tmp_path: Path, data: Path, limit: int) -> None:
    """A real refusal by the system: of a line of the metrics, or of a checkpoint."""
    words = train_words(tmp_path, data, train={"epochs": 50, "log_steps": 1})
    done = subprocess.run(
        tiny.command(*words),
        env=tiny.environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"convnet: error: {tmp_path / 'run'}/")
    assert ": File too large; " in done.stderr
    assert done.stderr.count("\n") == 1


def test_folders_that_cannot_be_written(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = train_words(tmp_path, data)
    words[5] = tmp_path / "file" / "run"
    assert "Not a directory" in complaint(capsys, *words)


def test_unexpected_errors_are_one_line_too(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("convnet.nn.net.Net.start_step", broken)
    words = train_words(tmp_path, data)
    assert complaint(capsys, *words, code=1) == "RuntimeError: two lines (--debug shows where)"
    words[5] = tmp_path / "other"
    with pytest.raises(RuntimeError, match="two"):
        main([*map(str, words), "--debug"])
    monkeypatch.setenv("CONVNET_DEBUG", "1")
    words[5] = tmp_path / "third"
    with pytest.raises(RuntimeError, match="two"):
        main([str(word) for word in words])
