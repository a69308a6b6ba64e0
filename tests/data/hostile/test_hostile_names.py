"""Pipes and devices in place of files, and names that are no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import trees
from limited import limited
from refusals import refused

from convnet.common.reading import open_file
from convnet.config import load_config
from convnet.data import idx
from convnet.data.folder.class_folders import content_hash
from convnet.data.folder.label_file import list_labelled
from convnet.data.folder.meta_mat import read_synsets
from convnet.data.folder.trees import find_listings
from convnet.data.image import check_file, decode
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.pack import PackSettings, pack
from convnet.exchange.cuda_convnet.definition import read_sections
from convnet.exchange.cuda_convnet.report import Report
from convnet.retrieval.index import open_index
from convnet.training import checkpoint
from convnet.training.run_folder import open_checkpoint, read_metrics, run_config


def _readers(root: Path) -> dict[str, Callable[[Path], Any]]:
    return {
        "picture": lambda path: check_file(path, str(path)),
        "decode": lambda path: decode(path, str(path), (8, 8)),
        "hash": content_hash,
        "idx": lambda path: idx.read_idx(path, 3),
        "meta.mat": read_synsets,
        "labels": lambda path: list_labelled(root / "val", path, trees.CLASSES),
        "config": load_config,
        "checkpoint": checkpoint.read,
        "run": lambda path: open_checkpoint(path, print),
        "index": open_index,
    }


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    root = trees.ilsvrc(tmp_path / "set")
    path = tmp_path / "a.toml"
    os.mkfifo(tmp_path / "pipe")
    target = {"pipe": tmp_path / "pipe", "link to a pipe": tmp_path / "pipe", "device": "/dev/zero"}
    if kind == "pipe":
        (tmp_path / "pipe").rename(path)
    else:
        path.symlink_to(target[kind])
    message = (
        "a.toml: .*a device, not a reg" if kind == "device" else "a.toml: .*a named pipe, not a"
    )
    for read in _readers(root).values():
        refused(message, read, path)
    with pytest.raises(OSError, match="not a regular file"):
        limited(lambda: read_sections(path, Report()))


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    trees.image(1).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert decode(tmp_path / "link.png", "link", (8, 8)).shape == (8, 8, 3)
    with open_file(tmp_path / "link.png") as file:
        assert file.read(4) == b"\x89PNG"


def test_folders_with_pipes_in_them(tmp_path: Path) -> None:
    """Packed images, a run, and class folders, each with a pipe in the place of a file."""
    trees.class_folders(tmp_path / "source" / "train", 2)
    trees.class_folders(tmp_path / "source" / "val", 1, start=50)
    parts = find_listings(tmp_path / "source")
    root = tmp_path / "packed"
    pack(parts["train"], parts["val"], root, PackSettings(size=(8, 8)), 1)
    (root / "statistics.safetensors").symlink_to("/dev/zero")
    refused(
        "folder of images, got|readable file, got|another", lambda: check_file(root / "x", "x: f")
    )
    train, _ = open_packed(root)
    for name in ("train-000000.tar", "train.index.npy"):
        (root / name).rename(tmp_path / name)
        os.mkfifo(root / name)
        refused(f"{name}: expected", lambda: open_packed(root)[0].read([0]))
        if name.endswith(".tar"):
            refused(f"{name}: expected a readable file, got a named pipe", train.read, [0])
        (root / name).unlink()
        (tmp_path / name).rename(root / name)
    os.mkfifo(tmp_path / "source" / "train" / "cat" / "pipe.png")
    refused(
        "pipe.png: .*named pipe",
        lambda: check_file(parts["train"].root / "cat/pipe.png", "pipe.png: f"),
    )
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "config.toml")
    os.mkfifo(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"no run in this folder"):
        limited(lambda: run_config(tmp_path / "run"))
    assert limited(lambda: read_metrics(tmp_path / "run" / "metrics.jsonl")) == []


def lines_of(path: Path, *words: str | bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "convnet", *words],
        cwd=path, env={**tiny.environment(), "PYTHONIOENCODING": ""},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    odd = os.fsencode(tmp_path) + b"/d\xff\nta"
    Path(os.fsdecode(odd)).symlink_to(data)
    config = tiny.write_config(tmp_path / "a.toml", data, train={"epochs": 1})
    # config.toml cannot hold such a path: nothing is begun.
    train = ("train", str(config), "--device", "cpu", "-q", "--run-dir")
    code, _, err = lines_of(tmp_path, *train, "no", "--data", odd)
    assert (code, err.count(b"\n")) == (2, 1)
    assert b"UTF-8" in err
    assert b"udcff" in err
    assert not (tmp_path / "no").exists()
    # A run folder and images may have such names.
    code, _, err = lines_of(tmp_path, *train, b"r\xffn")
    assert (code, err) == (0, b"")
    trees.image(1).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/p\xff.png"))
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"p\xff.png")
    assert (code, err) == (0, b"")
    assert out.startswith(b"p\\udcff.png\n")
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"p\xff.png", "--json")
    assert json.loads(out)["image"] == "p\udcff.png"
    code, out, err = lines_of(tmp_path, "predict", b"r\xffn", b"\xff\x1b[31m.png")
    assert (code, err.count(b"\n")) == (2, 1)
    assert b"\x1b" not in err
