"""Bars appear on a terminal, where something takes long, and nowhere else."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import trees
from rich.console import Console

from convnet.cli import progress as cli
from convnet.cli.main import main
from convnet.common.progress import Tell, counted, progress, shown_by
from convnet.data import WebDataset
from convnet.data.folder.class_folders import split_by_content
from convnet.data.folder.near_copies import hashes_of, near_groups
from convnet.data.folder.trees import drop_copies, find_listings
from convnet.training.train import train


@pytest.fixture(autouse=True)
def cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of these tests can move its cursor."""
    monkeypatch.setenv("TERM", "xterm")


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, after: float) -> str:
    """What a task writes; a bar is to appear after so many seconds."""
    file = io.StringIO()
    monkeypatch.setattr(cli, "_console", lambda: Console(file=file, force_terminal=terminal))
    monkeypatch.setattr(cli, "AFTER", after)
    with shown_by(cli.bar), progress("checking", "files") as tell:
        tell(3, 10)
        with progress("within", "parts") as inner:
            inner(1, 2)
        tell(10, 10)
    return file.getvalue()


def test_a_bar_appears_after_a_second_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True, after=0.0)
    assert "checking" in text
    assert "10/10 files" in text
    assert "within" not in text
    assert shown(monkeypatch, terminal=True, after=60.0) == ""
    assert shown(monkeypatch, terminal=False, after=0.0) == ""
    monkeypatch.setenv("TERM", "dumb")
    assert shown(monkeypatch, terminal=True, after=0.0) == ""


def test_a_bar_appears_although_the_first_piece_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(cli, "_console", lambda: Console(file=file, force_terminal=True))
    monkeypatch.setattr(cli, "AFTER", 0.01)
    with shown_by(cli.bar), progress("checking", "files") as tell:
        end = time.monotonic() + 10.0
        while "checking" not in file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        assert "checking" in file.getvalue()
        tell(1, 1)
    assert "1/1 files" in file.getvalue()


@contextlib.contextmanager
def noted(seen: dict[str, tuple[int, int]], what: str, unit: str) -> Iterator[Tell]:
    """Notes how far some work came, if it said."""
    seen[f"{what} {unit}"] = (0, -1)
    yield lambda done, total: seen.update({f"{what} {unit}": (done, total)})


def test_counted_things_end_at_their_number() -> None:
    seen: dict[str, tuple[int, int]] = {}
    with shown_by(lambda *words: noted(seen, *words)):
        assert list(counted(range(0, 10, 4), 10, "looking", "images", 4)) == [0, 4, 8]
    assert seen == {"looking images": (10, 10)}


def test_what_may_take_long_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that look at many images or try many parameters, and what reads shards."""
    cfg = tiny.config(
        trees.class_folders(tmp_path / "images"), data={"source": "folder", "size": [16, 16]}
    )
    cfg |= {"augment": {"crop": [8, 8]}}
    cfg["net"]["layers"].insert(-2, {"name": "fc1", "type": "dense", "units": 4, "init": "xavier"})
    cfg["net"]["layers"][-2]["units"] = 3
    run = str(train(cfg, run_dir=tmp_path / "run", device="cpu", quiet=True).run_dir)
    files = [str(path) for path in sorted((tmp_path / "images").rglob("*.jpg"))[:3]]
    seen: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr("convnet.cli.main.bar", lambda *words: noted(seen, *words))
    for words in (
        ["plot", run, "deconv"],
        ["plot", run, "saliency", "--count", "2"],
        ["plot", run, "predictions", *files],
        ["report", run],
        ["gradcheck", run + "/config.toml"],
    ):
        assert main(words) == 0
    assert {"looking images", "covering parts images", "reading images", "searching images"} < (
        seen.keys()
    )
    assert seen["measuring images"] == seen["looking images"]
    assert seen["checking parameters"] == (6, 6)
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name, content in (("1.jpg", Path(files[0]).read_bytes()), ("1.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with shown_by(lambda *words: noted(seen, *words)):
        WebDataset([shard, shard], size=(8, 8))
    assert seen["reading shards"] == (2, 2)


def test_preparing_a_folder_and_moving_nets_tell_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = trees.class_folders(tmp_path / "images")
    cfg = tiny.config(images, data={"source": "folder", "size": [16, 16]})
    cfg["augment"] = {"crop": [8, 8]}
    cfg["net"]["layers"][-2]["units"] = 3
    run = str(train(cfg, run_dir=tmp_path / "run", device="cpu", quiet=True).run_dir)
    seen: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr("convnet.cli.main.bar", lambda *words: noted(seen, *words))
    assert main(["export", "onnx", run, "-o", str(tmp_path / "net.onnx")]) == 0
    assert list(seen) == ["exporting files"]
    parts = find_listings(images)
    with shown_by(lambda *words: noted(seen, *words)):
        drop_copies(parts)
        split_by_content(parts["all"], 0.2)
        near_groups(hashes_of(parts["all"].paths))
    assert seen["looking for copies files"] == seen["reading files"] == (30, 30)
    assert seen["grouping copies parts of hashes"] == (5, 5)
