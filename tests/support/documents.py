"""The documents: their pages, the commands in them, and images for those to work on."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from paths import ROOT
from PIL import Image

from convnet.cli.main import _parser
from convnet.config import load_config, presets

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
}
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:convnet |python |mpiexec |\.venv/bin/convnet )[^`]+)`")


def block_commands(text: str) -> Iterator[str]:
    """The commands in the blocks of a page, a line each."""
    for language, block in BLOCK.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines() if not language else ():
            # What follows several spaces, or #, explains; what is optional is in brackets.
            for part in re.split(r"\s{3,}|\s#", line.strip().lstrip("$ "))[0].split("&&"):
                yield part.strip()


def commands(text: str) -> Iterator[str]:
    """The commands of a page: lines of its blocks, and code within sentences."""
    yield from block_commands(text)
    yield from (" ".join(code.split()) for code in _INLINE.findall(BLOCK.sub("", text)))


def words_of(command: str) -> list[str]:
    """The words of a command of convnet or of one of its scripts; [] of any other."""
    command = re.sub(r"^(mpiexec -n \d+|[A-Z_]+=\S+) ", "", command)
    command = re.sub(r"(?<=\s)\[[^]]*\]|\.\.\.|…", "", command)  # optional, and so on
    command = re.sub(r"(?<=\w)\|\w+", "", re.sub(r"<[^>]*>", "X", command))  # one of several
    words = shlex.split(command.split(" > ")[0].split(" | ")[0])
    if words and Path(words[0]).name == "convnet" and words[1:2] != ["COMMAND"]:
        return words
    if words and words[0] == "python" and words[1:] and words[1].endswith(".py"):
        return words
    return []


def refused(words: list[str]) -> str:
    """Why the parser refuses the words of a command; empty where it does not."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            arguments = _parser().parse_args(words[1:])
        except SystemExit as stopped:
            return said.getvalue() if stopped.code else ""
    given = getattr(arguments, "config", None) or getattr(arguments, "cfg", None)
    if given in presets():
        load_config(given, getattr(arguments, "overrides", ()))
    elif given and re.fullmatch(r"[a-z0-9-]+", given):
        return f"no preset {given}"
    return ""


def is_name(words: list[str]) -> bool:
    """Whether this is the name of a command, perhaps with some of its arguments, in a sentence."""
    if "the following arguments are required" in refused(words):
        return True
    return words[1:] == ["train"]  # which needs one of several


def tiny_folder(
    root: Path, size: int = 32, names: tuple[str, ...] = ("cat", "dog", "emu"), count: int = 60
) -> Path:
    """`count` images of noise in class folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / names[number % len(names)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return root
