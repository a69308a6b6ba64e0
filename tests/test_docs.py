"""What the documents say to type works: commands are parsed, snippets run on tiny data."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import runpy
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from documents import BLOCK, PAGES, commands, is_name, refused, tiny_folder, words_of
from paths import ROOT

import convnet
from convnet.cli.main import main
from convnet.layers import Conv, Dense, SoftmaxCrossEntropy
from convnet.training.train import train


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_of_two_devices() -> None:
    module = module_at(ROOT / "docs" / "parallel_diagram.py")
    assert module.diagram() == (ROOT / "docs" / "parallel.svg").read_text(encoding="utf-8")


# ---- commands ------------------------------------------------------------------------------------


class ParsedError(Exception):
    """Ends a script once its parser has taken the command line."""


def script_refuses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Why a script refuses its command line, by its own parser; empty where it does not."""
    script = ROOT / words[1]
    if not script.exists():
        return "no such script"
    if "convnet" in words:  # a command to run
        return refused(words[words.index("convnet") :])
    text = script.read_text(encoding="utf-8")
    if '"-m", "pytest"' in text:  # it hands its options on
        return ""
    if "parse_args(" not in text:
        return " ".join(word for word in words if word.startswith("--"))
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(*arguments: Any) -> None:
        parse(*arguments)
        raise ParsedError

    said = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        patch.setattr(sys, "argv", words[1:])
        patch.syspath_prepend(script.parent)
        patch.setattr(os, "environ", os.environ.copy())
        try:
            runpy.run_path(str(script), run_name="__main__")
        except ParsedError:
            return ""
        except SystemExit:
            return said.getvalue()
    return "it has ended without reading its options"


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    for command in commands(PAGES[page]):
        words = words_of(command)
        if words and words[0] == "python":
            why = script_refuses(words, monkeypatch)
        else:
            why = refused(words) if words and not is_name(words) else ""
        if why:
            wrong.append(f"{command}: {why}")
    assert wrong == []


def test_the_tutorial_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of convnet in it, in order, in a folder of 60 images with a bad one."""
    images = tiny_folder(tmp_path / "drawings" / "images", names=("animals", "food", "tools"))
    (images / "food" / "bad.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    ended = {}
    for command in commands(PAGES["docs/tutorial.md"]):
        words = words_of(command)
        if words and words[0] == "convnet":
            ended[command] = main(words[1:])
    assert len(ended) >= 8
    refusals = ["convnet data check drawings/images", *list(ended)[1:2]]
    assert "convnet train" in refusals[1]  # without skip: the way out is shown
    assert {command for command, code in ended.items() if code} == set(refusals)
    assert "data.bad_files=skip leaves bad files out" in capsys.readouterr().err
    assert (tmp_path / "report.html").stat().st_size > 10_000


# ---- snippets ------------------------------------------------------------------------------------


def tiny_train(cfg: Any, data: Any = None, **options: Any) -> Any:
    """`convnet.train` for a moment: the same call, with a small net on few images."""
    small = ["net.model=small", "net.options.width=2", "train.report=false"]
    if cfg == "fashion-mnist":
        data, more = data or "sample", ["train.batch=1000"]
    else:
        more = ["data.size=[32,32]", "augment.crop=[32,32]"]
    options |= {"epochs": 1, "quiet": True, "device": "cpu"}
    return train(cfg, data=data, overrides=[*small, *more], **options)


def names_for(page: str, folder: Path) -> dict[str, Any]:
    """What the snippets of a page take as given."""
    rng = np.random.default_rng(0)
    if page == "README.md":
        tiny_folder(folder / "images")
        return {"x": np.zeros((1, 32, 32, 3), np.float32)}
    if page == "docs/interpret.md":
        nodes = [("conv1", Conv(4, 3)), ("fc8", Dense(3)), ("loss", SoftmaxCrossEntropy())]
        net = convnet.Net([convnet.Node(*node) for node in nodes], in_shape=(8, 8, 3), device="cpu")
        x = rng.standard_normal((2, 8, 8, 3), dtype=np.float32)
        return {"net": net, "x": x, "labels": np.array([0, 1]), "dy": np.ones((2, 3), np.float32)}
    if page == "docs/data.md":
        tiny_folder(folder / "holiday")
        result = tiny_train("folder", folder / "holiday", run_dir=folder / "runs" / "drawings")
        for shard in ("shard-000.tar", "shard-001.tar"):
            with tarfile.open(folder / shard, "w") as tar:
                picture = next((folder / "holiday" / "cat").iterdir())
                (folder / "class").write_text("1")
                tar.add(picture, "1.png")
                tar.add(folder / "class", "1.cls")
        return {"convnet": convnet, "pixels": np.zeros((40, 50, 3), np.uint8), "result": result}
    return {}


SNIPPETS = {
    page: found
    for page, text in PAGES.items()
    # Those of own-code.md run in tests/training/test_own_code.py.
    if (found := [body for language, body in BLOCK.findall(text) if language == "python"])
    and page != "docs/own-code.md"
}


@pytest.mark.parametrize("page", SNIPPETS)
def test_snippets(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page == "docs/virtual-gpu.md":
        request.getfixturevalue("vgpu")
    monkeypatch.chdir(tmp_path)
    names = names_for(page, tmp_path)
    monkeypatch.setattr(convnet, "train", tiny_train)
    for body in SNIPPETS[page]:
        if "Conv(32, 5" in body:  # a batch for this net
            names |= {"x": np.zeros((2, 28, 28, 1), np.float32), "labels": np.array([1, 2])}
        small = body.replace("(128, 224, 224, 3)", "(1, 64, 64, 3)")
        exec(compile(small, page, "exec"), names)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```toml" in text])
def test_configurations(page: str) -> None:
    for language, body in BLOCK.findall(PAGES[page]):
        if language == "toml":
            tomllib.loads(body)


# ---- the site ------------------------------------------------------------------------------------


def test_what_the_check_of_the_site_finds(tmp_path: Path) -> None:
    """`.ci/site.py` reads the site that CI builds; here, that it would see something."""
    site = module_at(ROOT / ".ci" / "site.py")
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="//a.example/x.css"><a href="https://b.example">far</a>'
        '<script src="https://c.example/x.js"></script><img src="near.png" srcset="//d.example/y">'
        "<style>p { background: url('https://e.example/z.png') }</style>"
        '<p style="background: url(https://f.example/z.png)">https://g.example</p>'
    )
    (tmp_path / "style.css").write_text("@import 'https://h.example/font.css';")
    found = " ".join(site.elsewhere(tmp_path))
    assert re.findall(r"//(\w)\.example", found) == list("acdefh")
    names = site.public_names()
    assert {"convnet.predict", "convnet.ops.conv_fprop", "convnet.layers.Conv"} <= names


def test_every_public_name_has_its_place_in_the_reference() -> None:
    """What CI asks the built site, asked of the pages: is a name, or its module, there?"""
    site = module_at(ROOT / ".ci" / "site.py")
    text = "".join(text for page, text in PAGES.items() if page.startswith("docs/api/"))
    places = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    missing = []
    for name in sorted(site.public_names()):
        package, _, member = name.rpartition(".")
        found = getattr(importlib.import_module(package), member)
        module = getattr(found, "__module__", "")
        if not {name, package, module, f"{name}.{member}"} & places:
            missing.append(name)
    assert missing == []


def test_docstrings_have_no_marks_that_the_site_would_show() -> None:
    roles = re.compile(r":[a-z]+:`")  # Sphinx's; the site's Markdown knows none
    sources = sorted((ROOT / "convnet").rglob("*.py"))
    assert sources
    assert [str(path) for path in sources if roles.search(path.read_text(encoding="utf-8"))] == []


# ---- the README ----------------------------------------------------------------------------------


def test_readme_shows_a_picture_and_then_the_two_commands() -> None:
    text = PAGES["README.md"]
    pictures = re.findall(r"^!\[[^]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert (ROOT / pictures[0]).is_file()
    places = [text.index(part) for part in (pictures[0], "<!-- train -->", "<!-- test -->", "\n- ")]
    assert places == sorted(places)
