"""What the Tab key offers, asked of the shell itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convnet.cli.main import main


@pytest.fixture(scope="module")
def script() -> str:
    return script_of("bash")


def script_of(shell: str) -> str:
    pytest.importorskip("shtab")
    words = [sys.executable, "-m", "convnet", "completion", shell]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("convnet tr", {"train"}),
        ("convnet eval run --te", {"--ten-crop"}),
        ("convnet train alexnet-h", {"alexnet-half"}),
        ("convnet train my", {"mynet.toml"}),
        ("convnet plot run cur", {"curves"}),
        ("convnet import ca", {"caffe"}),
        ("convnet completion z", {"zsh"}),
    ],
)
def test_bash(script: str, tmp_path: Path, words: str, offered: set[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    (tmp_path / "completion").write_text(script)
    (tmp_path / "mynet.toml").touch()
    last = len(words.split()) - 1
    asking = (
        f"source completion; COMP_WORDS=({words}); COMP_CWORD={last}; "
        '$(complete -p convnet | sed "s/.*-F //; s/ .*//"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asking], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh(tmp_path: Path) -> None:
    """As the tutorial has it, in a terminal of zsh: the Tab key completes a preset."""
    (tmp_path / "completion").write_text(script_of("zsh"))
    asking = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit; compinit -u -D; eval "$(<completion)"; echo REA""DY'
zpty -r -m shell shown '*READY*'
zpty -w -n shell $'convnet train cifar10-18\t'
zpty -r -m shell shown '*pct*'
print -r -- "$shown"
"""
    words = ["zsh", "-f", "-c", asking]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert "pct" in done.stdout


def test_without_the_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'convnet-kernels[completion]'" in capsys.readouterr().err
