"""Diagrams in the documents are what their scripts draw today."""

from __future__ import annotations

import importlib.util

from paths import ROOT


def test_the_diagram_of_two_devices():
    path = ROOT / "docs" / "parallel_diagram.py"
    spec = importlib.util.spec_from_file_location("parallel_diagram", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.diagram() == (ROOT / "docs" / "parallel.svg").read_text(encoding="utf-8")
