"""The distribution's name: in messages, beside its extras, and next to another project's files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
import typing
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

import convnet
from convnet.cli import doctor
from convnet.cli import main as cli
from convnet.common import distribution
from convnet.common.typecheck import ConfigError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLACES = ("convnet", "src", "tests", "benchmarks", "experiments", "docs", ".ci")
TEXT = {".py", ".pyi", ".md", ".toml", ".sh", ".txt", ".cpp", ".h", ".cu", ".yaml", ".yml", ""}
# As a requirement: with an extra, or what pip is told to install; not a path, not convnet-kernels.
OTHER_S = re.compile(r"\bconvnet(\[[a-z]|[=~<>]=)|\binstall [^\n`|]*(?<![-./\w])convnet(?![-./\w])")


def test_the_name_is_that_of_the_project():
    assert PROJECT["name"] == convnet.__distribution__ == distribution.DISTRIBUTION
    assert PROJECT["version"] == convnet.__version__
    assert f"\nversion: {convnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["scripts"] == {"convnet": "convnet.cli.main:main"}


def test_messages_know_every_extra_for_users_and_no_other():
    extras = set(PROJECT["optional-dependencies"]) - {"test", "dev", "nvcc"}
    assert set(typing.get_args(distribution.Extra)) == extras


def texts():
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT)
    for place in PLACES:
        for path in (ROOT / place).rglob("*"):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


def test_nothing_tells_to_install_the_other_project():
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if OTHER_S.search(line) and path != Path(__file__):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    ["pip install 'convnet[plot]'", "pip install -U convnet", "convnet[mpi]", "convnet>=0.1"],
)
def test_what_would_be_found(line):
    assert OTHER_S.search(line)
    assert not OTHER_S.search(line.replace("convnet", "convnet-kernels"))
    assert not OTHER_S.search("pip install . && .venv/bin/convnet train")


def test_an_optional_module_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    expected = r"^engine: faiss is not installed: pip install 'convnet-kernels\[faiss\]'$"
    with pytest.raises(ConfigError, match=expected):
        distribution.require("faiss", "faiss", "engine")


@pytest.mark.parametrize("body", ["import no_such_thing", "raise ImportError('no lib\\nadvice')"])
def test_an_optional_module_that_is_broken(monkeypatch, tmp_path, body):
    (tmp_path / "half_a_module.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    why = "(no lib|No module named 'no_such_thing')"
    with pytest.raises(ConfigError, match=f"^plot: half_a_module cannot be imported: {why}$"):
        distribution.require("half_a_module", "plot", "plot")


def test_doctor_sees_the_other_project(monkeypatch):
    versions = {"convnet-kernels": convnet.__version__, "convnet": "2.5.3"}
    monkeypatch.setattr(distribution, "version", versions.get)
    (problem,) = (each for each in doctor.examine()["problems"] if "beside" in each)
    assert problem.startswith("the distribution convnet 2.5.3 is installed beside convnet-k")
    assert "pip uninstall convnet convnet-kernels, then install" in problem
    del versions["convnet"]
    assert not any("beside" in problem for problem in doctor.examine()["problems"])


# ---- files of both in one folder ----------------------------------------------------------------


@pytest.fixture
def run_python(tmp_path):
    """Runs a program that finds this package's sources in `site`, where a test may spoil them."""
    package = Path(convnet.__file__).parent
    leave = shutil.ignore_patterns("*.so", "__pycache__", "sample")
    shutil.copytree(package, tmp_path / "site" / "convnet", ignore=leave)
    others = tmp_path / "others"  # what is installed beside convnet, which may be there as well
    others.mkdir()
    for path in Path(np.__file__).parents[1].iterdir():
        if not path.name.startswith("convnet"):
            (others / path.name).symlink_to(path)

    def run(program):
        places = [str(tmp_path / "site"), str(others)]
        program = f"import sys; sys.path[:0] = {places}\n" + textwrap.dedent(program)
        words = [sys.executable, "-I", "-S", "-c", program]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    run.package = tmp_path / "site" / "convnet"
    return run


def test_the_other_project_installed_over_this_one(run_python):
    (run_python.package / "__init__.py").write_text("from .model import Model\n")
    (run_python.package / "model.py").write_text("from .layers import Layer, NAME2LAYER\n")
    (run_python.package / "layers.py").write_text("NAME2LAYER = {}\n")
    result = run_python("from convnet.cli.main import main\nmain(['doctor'])")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(
        r"convnet\.common\.distribution\.InstallationError: /.*/convnet/__init__\.py is not that "
        r"of convnet-kernels\. convnet on PyPI is another project, .*: pip uninstall convnet ",
        last,
    ), result.stderr


def test_the_other_project_has_taken_away_what_it_had_overwritten(run_python):
    (run_python.package / "__init__.py").unlink()
    result = run_python("from convnet.cli.main import main\nsys.exit(main(['presets']))")
    assert result.returncode == cli.FAILED
    assert result.stderr.startswith("convnet: error: "), result.stderr
    assert "/convnet/__init__.py (which is missing) is not that of convnet-kernels" in result.stderr
    assert result.stderr.count("\n") == 1
