"""The commands of the documents are run: those of convnet, with small nets on few images.

What a page takes as given lies in a folder: images, runs, and what stands for a name in capitals.
There the commands of its blocks run in order, and then those in its sentences. Scripts of
`experiments` and `benchmarks` have tests of their own; `test_docs.py` has their parsers take what
the documents say.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import cifar_files
import pytest
from documents import PAGES, commands, is_name, tiny_folder, words_of

from convnet.cli.main import main

CLASSES = ("animals", "buildings", "food", "office", "people", "plants", "tools", "transportation")

# What is not run, and why; test_docs.py parses these, too.
NOT_RUN = {
    "ILSVRC2012": "needs ImageNet",
    "cuda:0": "needs GPUs",
    "--follow": "shows a run for as long as it goes on",
    "--counters": "minutes on a virtual GPU; tests/vgpu/test_bench_conv.py has a smaller one",
    "conv-local-11pct": "needs files of the original program",
    "18pct": "needs files of the original program",
    "layers.cfg": "needs files of the original program",
    "DEF PARAMS": "needs files of the original program; tests/exchange/test_convert.py has some",
    "import torch FILE": "needs published weights; tests/exchange/test_torch.py has smaller ones",
    "CAFFEMODEL": "needs files of Caffe; tests/exchange/test_caffe.py makes some",
    "CFG --resume": "needs the run's own configuration; tests/training/resume has one",
    "alexnet.pth": "needs published weights; tests/exchange/test_torch.py has smaller ones",
    "net.caffemodel": "needs files of Caffe; tests/exchange/test_caffe.py makes some",
    "my.toml": "tests/training/test_own_code.py runs the page",
}
# Pages whose commands other tests run in order.
ELSEWHERE = {"docs/tutorial.md", "docs/own-code.md"}

# What stands for the names in the documents.
GIVEN = {
    "RUN": "runs/first",
    "RUN1": "runs/first",
    "RUN2": "runs/second",
    "RUN3": "runs/first",
    "runs/X": "runs/first",
    "FOLDER": "images",
    "IMAGES": "images",
    "EVERYTHING": "images",
    "D": "images",
    "SHARDS": "shards",
    "DIR": "images",
    "ILSVRC": "images",
    "IMG": "photo.jpg",
    "IMAGE": "photo.jpg",
    "CFG": "small.toml",
    "FILE": "small.toml",
    "FILE.toml": "small.toml",
    "FILE.safetensors": "runs/clothes/checkpoints/best.safetensors",
    "NAME": "fashion-mnist",
    "F": "some.safetensors",
    "QUERIES": "some.safetensors",
    "CODES": "some-codes.safetensors",
}
# Fewer of what an option counts.
FEWER = {"--pick": "0,1,2", "--batch": "2,4", "--threads": "1"}
CONFIGURATION = """\
[data]
source = "fashion-mnist"
path = "sample"
[net]
model = "small"
options = { width = 2 }
[train]
batch = 1000
"""
# A net of every preset that is quick, on images of its data.
SMALL = {
    "alexnet": ["net.options.filters=[8,8,8,8,8]", "net.options.hidden=8", "data.size=[104,104]"],
    "fashion-mnist": ["net.model=small", "net.options.width=2", "train.batch=1000"],
    "folder": [
        *("net.options.width=2", "data.size=[32,32]", "augment.crop=[32,32]"),
        *("train.batch=4", "schedule.warmup_steps=0"),
    ],
    "cifar10": ["train.batch=8"],
}


def shrunken(words: list[str]) -> list[str]:
    """The same command with names that stand for something, and a net that is quick to train."""
    words = [GIVEN.get(word, word) for word in words]
    for option, value in FEWER.items():
        if option in words:
            several = "," in words[words.index(option) + 1]
            words[words.index(option) + 1] = value if several else value.split(",")[0]
    if words[1] not in ("train", "bench") or words[2] == "--resume":
        return words
    preset = words[3] if words[1] == "bench" else words[2]
    kind = next((name for name in SMALL if preset.startswith(name)), "")
    more = list(SMALL.get(kind, ()))
    if kind == "alexnet":
        more += ["augment.crop=[96,96]", "train.batch=16", "schedule.warmup_steps=0"]
    options = [word for setting in more for word in ("--set", setting)]
    if words[1] == "bench":
        return [*words, *options, "--seconds", "0.2"]
    data = [] if "--data" in words else ["--data", "cifar" if kind == "cifar10" else "sample"]
    return [*words, *data, *options, "--epochs", "1", "-q"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every page begins with."""
    root = tmp_path_factory.mktemp("documents")
    images = tiny_folder(root / "images", 104, CLASSES, count=160)
    for name in ("drawings/images", "holiday"):
        shutil.copytree(images, root / name)
    for name in ("PACKED", "drawings/packed"):
        words = ["data", "pack", str(images), str(root / name), "--size", "104", "--workers", "1"]
        assert main(words) == 0
    photo = next(images.rglob("*.png"))
    for name in ("photo.jpg", "some.jpg", "cat.jpg"):  # what a file is called does not matter
        shutil.copy(photo, root / name)
    (root / "small.toml").write_text(CONFIGURATION)
    cifar_files.write_binary(root / "cifar", "cifar10")
    with tarfile.open(root / "shard.tar", "w") as tar:
        (root / "label").write_text("1")
        for number in range(8):
            tar.add(photo, f"{number}.png")
            tar.add(root / "label", f"{number}.cls")
    (root / "shards").mkdir()
    (root / "shard.tar").rename(root / "shards" / "train-0.tar")
    settings = [word for setting in SMALL["folder"] for word in ("--set", setting)]
    for run in ("runs/first", "runs/second", "runs/alexnet", "demo/drawings", "runs/drawings"):
        words = ["train", "folder", "--data", str(images), "--run-dir", str(root / run)]
        assert main([*words, *settings, "--epochs", "1", "-q"]) == 0
    words = shrunken(["convnet", "train", "fashion-mnist", "--run-dir", str(root / "runs/clothes")])
    assert main(words[1:]) == 0
    return root


def reason_not_to_run(words: list[str]) -> str:
    """Why a command is only parsed; empty for one that is run."""
    command = " ".join(words)
    return next((why for part, why in NOT_RUN.items() if part in command), "")


def commands_of(page: str) -> list[list[str]]:
    """The words of each command of convnet in a page, but for mere names of commands."""
    found = [words_of(command) for command in commands(PAGES[page])]
    ours = [words for words in found if words and Path(words[0]).name == "convnet"]
    return [words for words in ours if not is_name(words)]


def remove_output(words: list[str]) -> None:
    """Removes what a command writes: other pages take it as given, or other parts of a page."""
    found = [words[at + 1] for at, word in enumerate(words) if word in ("-o", "--run-dir")]
    found += words[4:5] if words[1:3] == ["data", "pack"] else []
    for path in map(Path, found):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in ELSEWHERE and commands_of(page)]
)
def test_commands_run(
    page: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    ended = {}
    for words in commands_of(page):
        if not reason_not_to_run(words):
            remove_output(words)
            ended[" ".join(words)] = main(shrunken(words)[1:])
    assert {command: code for command, code in ended.items() if code} == {}


def test_what_is_not_run_is_there() -> None:
    """No reason stays when its command has gone."""
    every = [" ".join(words) for page in PAGES for words in commands_of(page)]
    assert [part for part in NOT_RUN if not any(part in command for command in every)] == []
