"""Imports go one way: from the commands down to the backend, and never back."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "convnet"

# A subpackage may import from those on the lines above its own, and from itself.
ORDER = (
    ("_build_info", "_cpu", "_cuda", "_vgpu"),
    ("common",),
    ("counters",),
    ("backend",),
    ("ops",),
    ("layers",),
    ("optim",),
    ("parallel",),
    ("nn",),
    ("models",),
    ("config",),
    ("data",),
    ("training",),
    ("evaluation",),
    ("interpret", "exchange"),
    ("retrieval",),
    ("report",),
    ("cli",),
    ("__main__",),
)
LEVEL = {subpackage: level for level, names in enumerate(ORDER) for subpackage in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file names, those for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                is_module = whole in MODULES or node.module == "convnet"
                found.add(whole if is_module else str(node.module))
    return {name for name in found if name.split(".")[0] == "convnet"}


IMPORTS = {module: imported(path) for module, path in MODULES.items()}


def subpackage(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place_and_its_sentence():
    assert {subpackage(module) for module in MODULES if module != "convnet"} <= set(LEVEL)
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{module} says nothing"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"convnet"}))
def test_imports_go_one_way(module):
    own = LEVEL[subpackage(module)]
    for other in IMPORTS[module]:
        assert other != "convnet", f"{module} imports the whole package"
        below = LEVEL[subpackage(other)] < own
        assert below or subpackage(other) == subpackage(module), f"{module} imports {other}"


def test_there_are_no_circles():
    try:
        tuple(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_only_the_backend_imports_cupy():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in getattr(node, "names", ())]
            names.append(getattr(node, "module", None) or "")
            uses = any(name.split(".")[0] == "cupy" for name in names if isinstance(name, str))
            assert not uses or subpackage(module) == "backend", f"{module} imports cupy"


@pytest.mark.parametrize("folder", ["benchmarks", "experiments", "docs"])
def test_programs_use_public_names_only(folder):
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("convnet"):
                names = [name.name for name in node.names] + str(node.module).split(".")
            elif isinstance(node, ast.Attribute) and "torch" not in ast.unparse(node.value):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                names = [] if own or node.attr.startswith("__") else [node.attr]
            else:
                continue
            private = [name for name in names if name.startswith("_")]
            assert not private, f"{path.name}, line {node.lineno}: {', '.join(private)}"
