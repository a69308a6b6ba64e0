"""Bars appear on a terminal, where something takes long, and nowhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from convnet.cli import progress as cli
from convnet.common.progress import progress, shown_by


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
