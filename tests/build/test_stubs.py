"""convnet/_cpu.pyi is what bindings/stubs.py makes of the schema of the compiled modules."""

from __future__ import annotations

import ast
import importlib.util
from typing import Any

from paths import ROOT

STUBS = ROOT / "convnet" / "_cpu.pyi"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "bindings" / "stubs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stubs_are_fresh() -> None:
    written = STUBS.read_text(encoding="utf-8")
    assert written == generator().stubs(), "run: python bindings/stubs.py > convnet/_cpu.pyi"


def test_the_stubs_have_every_function(backend: Any) -> None:
    names = {getattr(node, "name", "") for node in ast.parse(STUBS.read_text("utf-8")).body}
    found = {name for name in dir(backend.module) if not name.startswith("_")}
    assert found - {"counters", "counters_start"} == names - {""}  # the virtual GPU's own
