"""`convnet data check|pack|mean` and `convnet bench data`; training on packed images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
import trees

from convnet.cli import progress as cli_progress
from convnet.cli.main import main
from convnet.common.progress import progress as told
from convnet.common.progress import shown_by
from convnet.data import Statistics, statistics
from convnet.data.packed.dataset import open_packed
from convnet.training.train import train

NET = {
    "layers": [
        {"name": "conv1", "type": "conv", "filters": 4, "size": 3, "pad": 1, "init": "he"},
        {"name": "relu1", "type": "relu"},
        {"name": "drop1", "type": "dropout", "drop": 0.2},
        {"name": "fc2", "type": "dense", "units": 3, "init": "xavier"},
        {"name": "softmax", "type": "softmax_cross_entropy"},
    ]
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.class_folders(tmp_path_factory.mktemp("pictures") / "all", 12)


@pytest.fixture(scope="module")
def packed(images: Path) -> Path:
    out = images.parent / "packed"
    words = ["--size", "16", "--val-fraction", "0.25", "--workers", "1"]
    assert main(["data", "pack", str(images), str(out), *words]) == 0
    return out


def config(packed: Path, **data: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "data": {"source": "folder", "path": str(packed), "mean": "image", **data},
        "augment": {"crop": [14, 14], "mirror": True, "colour_noise": 0.1},
        "net": NET,
        "train": {"batch": 8, "epochs": 2, "checkpoint_steps": 1},
    }
    return tiny.config(packed, **changes)


# ---- check ---------------------------------------------------------------------------------------


def test_check(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shutil.copytree(images, tmp_path / "in")
    words = ["data", "check", str(root), "--workers", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "36 images" in out
    assert "3 classes of 12 to 12 images" in out
    assert "height x width: smallest 20x24, median 26x24, largest 31x24" in out
    assert "bad files: 0" in out
    assert "exact copies of another file: 0" in out

    trees.bomb(root / "cat/bomb.png")
    (root / "dog/empty.jpg").touch()
    (root / "dog/page.png").write_text("<html>")
    whole = (root / "emu/001.jpg").read_bytes()
    (root / "emu/cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.link(root / "cat/000.png", root / "dog/copy.png")
    (root / "cat/notes.txt").touch()
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "bad files: 4 (1 damaged, 1 empty, 1 huge, 1 no image)" in out
    way_out = "--set data.bad_files=skip leaves them out of training, --bad-files skip of a pack"
    assert f"\n  {way_out}\n" in out
    assert "cat/bomb.png: expected an image of at most 89,478,485 pixels" in out
    assert "exact copies of another file: 1 (1 of the groups under several classes)" in out
    assert "cat/000.png = dog/copy.png" in out
    assert "passed over: 1 not images" in out

    assert main([*words, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["pictures"] == 41
    assert sorted(kind for kind, _, _ in said["bad"]) == ["damaged", "empty", "huge", "no image"]
    assert said["classes"]["all"] == {"cat": 13, "dog": 15, "emu": 13}


def test_check_of_both_parts_and_long_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trees.ilsvrc(tmp_path / "in")
    for number in range(22):
        (root / f"train/cat/bad{number}.png").touch()
    os.link(root / "val/val_00000001.JPEG", root / "train/dog/leak.jpeg")
    assert main(["data", "check", str(root), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "train: 3 classes" in out
    assert "val: 1 classes of 6 to 6 images" in out
    assert "1 in both training and validation" in out
    assert "... and 2 more (--all lists them)" in out
    assert main(["data", "check", str(root), "--workers", "1", "--all"]) == 1
    assert "more (--all" not in capsys.readouterr().out


def test_check_of_packed_images(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(packed)]) == 0
    assert "packed images, whole: 27 for training and 9 for validation" in capsys.readouterr().out
    copy = shutil.copytree(packed, tmp_path / "copy")
    with (copy / "train-000000.tar").open("r+b") as shard:
        shard.seek(5000)
        shard.write(b"damage")
    assert main(["data", "check", str(copy)]) == 2
    assert "train-000000.tar: expected the content it was packed" in capsys.readouterr().err


# ---- pack and mean -------------------------------------------------------------------------------


def test_pack_and_mean(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shutil.copytree(images, tmp_path / "in")
    for number in range(3):
        shutil.copy(root / "cat/000.png", root / f"dog/copy{number}.png")
    out = tmp_path / "out"
    words = ["data", "pack", str(root), str(out), "--size", "16", "--workers", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"out: 3\d images for training and \d for validation, 3 classes, ", said)
    assert "3 exact copies of another image" in said
    assert f"next: convnet data mean {out}" in said
    sides = [
        {line.split("\t")[2] for line in (out / f"{part}.tsv").read_text().splitlines()}
        for part in ("train", "val")
    ]
    copies = {"cat/000.png", *(f"dog/copy{number}.png" for number in range(3))}
    assert copies <= sides[0] or copies <= sides[1]
    assert main(["data", "mean", str(out), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "mean of red, green, blue" in said
    assert main(["data", "mean", str(out), "--json", "--workers", "1"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    stats: Statistics = statistics(open_packed(out)[0], "channel")
    assert numbers["mean"] == stats.mean.reshape(-1).tolist()
    assert numbers["eigenvectors"] == stats.eigenvectors.T.tolist()

    dropped = tmp_path / "dropped"
    words[3] = str(dropped)
    assert main([*words, "--drop-copies", "--raw", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dropped_copies"] == 3
    assert report["pictures"]["train"] + report["pictures"]["val"] == 36
    assert report["copies"] == []


def test_pack_of_ilsvrc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.ilsvrc(tmp_path / "in")
    os.link(root / "val/val_00000001.JPEG", root / "train/cat/leak.jpeg")
    words = ["--size", "16", "--workers", "1", "--val", root / "val"]
    words += ["--val-labels", root / "numbers.txt", "--synsets", root / "synsets.txt"]
    out = tmp_path / "out"
    assert main(["data", "pack", str(root / "train"), str(out), *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "31 images for training and 6 for validation" in said
    assert "warning: 1 of the validation images are in training, too" in said
    assert open_packed(out)[1].labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_progress_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_progress._Lines, "EVERY", 0.0)
    with shown_by(cli_progress.bar), told("packing", "images") as progress:
        progress(10, 100)
        progress(60, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "packing: 10 of 100 images, 0/s"
    assert lines[1].startswith("packing: 60 of 100 images, ")
    assert lines[1].endswith("ETA 0:00")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data"], "the following arguments are required: COMMAND"),
        (["data", "chek", "x"], '"chek": no such command; did you mean "check"?'),
        (["data", "check", "absent"], "absent: expected a folder of images, got No such file"),
        (["data", "check", "IN", "--workers", "0"], "expected a whole number from 1 to 1024"),
        (["data", "pack", "absent", "out"], "absent: expected a folder of images"),
        (["data", "pack", "IN", "IN/out"], "IN/out: expected a folder outside of the images"),
        (["data", "pack", "IN", "IN"], "IN: expected a folder outside of the images"),
        (["data", "pack", "IN", "out", "--size", "7"], "expected a whole number from 8 to 4096"),
        (["data", "pack", "IN", "out", "--quality", "101"], "a whole number from 1 to 100"),
        (["data", "pack", "IN", "out", "--shard", "-1"], "whole number from 1 to 1000000"),
        (["data", "pack", "IN", "out", "--val-fraction", "1"], "above 0 and below 1, got \"1\""),
        (["data", "pack", "IN", "out", "--val", "absent"], "absent: expected a folder of images"),
        (["data", "pack", "IN", "out", "--val-labels", "x"], "x: expected labels of a folder of"),
        (["data", "mean", "IN"], "packed.json: expected packed images (convnet data pack)"),
        (["bench"], "the following arguments are required: COMMAND"),
        (["bench", "data", "nothing"], '"nothing": no such file or preset'),
        (["bench", "data", "folder", "--seconds", "0"], "expected a number above 0 and up to 3600"),
        (["bench", "data", "folder", "--workers", "1,x"], "expected a whole number from 1 to"),
        (["bench", "data", "folder", "--data", "absent"], "absent: expected a folder of images"),
    ],
)  # fmt: skip
def test_bad_input(
    words: list[str],
    expected: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IN").symlink_to(images)
    try:
        code = main(words)
    except SystemExit as error:  # argparse's way out
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("convnet: error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_bad_images_are_named_with_the_way_out(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(images, tmp_path / "in")
    (root / "cat/page.png").write_text("<html>")
    words = ["data", "pack", str(root), str(tmp_path / "out"), "--size", "16", "--workers", "1"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "cat/page.png: expected an image, got a file that starts" in err
    assert err.endswith("(--bad-files skip leaves such files out)\n")
    assert main(["data", "check", str(tmp_path / "out")]) == 2  # nothing that passes for a result


# ---- training and bench --------------------------------------------------------------------------


def test_training_is_the_same_for_any_number_of_workers(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is resumed with another number, without repeating an image."""
    assert open_packed.__kwdefaults__ is not None
    monkeypatch.setitem(open_packed.__kwdefaults__, "cache_bytes", 0)
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        result = train(config(packed, workers=workers), "cpu", run_dir=run, quiet=True)
        assert result.status == "done"
    whole = tiny.metrics(tmp_path / "run0")
    assert tiny.metrics(tmp_path / "run2") == whole

    part = tmp_path / "part"
    steps = iter([False] * 1 + [True] * 99)
    stop = [lambda record: next(steps)]
    settings = config(packed, workers=1)
    settings["train"]["log_steps"] = 1
    assert train(settings, "cpu", run_dir=part, callbacks=stop, quiet=True).status == "stopped"
    resumed = train(resume=part, device="cpu", overrides=["data.workers=0"], quiet=True)
    assert resumed.status == "done"
    last = [record for record in whole if record["kind"] == "epoch"]
    assert [record for record in tiny.metrics(part) if record["kind"] == "epoch"] == last


def test_eval_and_workers_in_configurations(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(config(packed), "cpu", epochs=1, run_dir=run, quiet=True).status == "done"
    assert 'workers = "auto"' in (run / "config.toml").read_text()
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    assert "9 images (packed images in" in capsys.readouterr().out
    for value, expected in (
        ("-1", "data.workers: expected a value >= 0 and <= 1024, got -1"),
        ("many", 'data.workers: expected an integer or one of "auto", got "many"'),
        ("1.5", 'data.workers: expected an integer or one of "auto", got 1.5'),
    ):
        assert main(["train", "folder", "--set", f"data.workers={value}"]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("source", ["packed", "folder"])
def test_bench_data(
    source: str, packed: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = packed if source == "packed" else images
    words = ["bench", "data", "folder", "--data", str(folder), "--device", "cpu", "--json"]
    words += ["--set", "data.size=[16, 16]", "--set", "augment.crop=[14, 14]"]
    words += ["--set", "train.batch=8", "--seconds", "0.05", "--workers", "1"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in said["stages"]] == [
        "read, one thread",
        "read and decode, one thread",
        "augment",
        "all, by this process",
        "all, by 1 worker",
    ]
    assert all(stage["images_per_s"] > 0 and stage["images"] > 0 for stage in said["stages"])


def test_bench_ends_an_epoch_before_its_workers(packed: Path) -> None:
    """The measured time ends within an epoch, which has a thread that reads ahead."""
    words = [*tiny.command(), "bench", "data", "folder", "--data", str(packed), "--device", "cpu"]
    words += ["--set", "data.size=[16, 16]", "--set", "augment.crop=[14, 14]"]
    words += ["--set", "train.batch=2", "--seconds", "0.4", "--workers", "1,2"]
    done = subprocess.run(
        words, env=tiny.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert "died" not in done.stderr


def test_bench_of_a_set_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_data(tmp_path / "data")
    path = tiny.write_config(tmp_path / "tiny.toml", data)
    assert main(["bench", "data", str(path), "--device", "cpu", "--seconds", "0.05"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("augment")
    assert "all, by this process" in out
    assert "worker" not in out
