"""Members that are imported when they are first asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import convnet
import convnet.data


@pytest.mark.parametrize("package", [convnet, convnet.data], ids=lambda package: package.__name__)
def test_every_public_name_is_found_and_listed(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(
        AttributeError, match=f"module '{package.__name__}' has no attribute 'nets'"
    ):
        package.nets  # noqa: B018


def test_a_member_is_not_hidden_by_a_module_of_its_name():
    code = """
import importlib, pkgutil, types, convnet, convnet.data
for package in (convnet, convnet.data):
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for name in names & set(package.__all__):
        assert isinstance(getattr(package, name), types.ModuleType), name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_process_that_only_decodes_images_imports_no_nets():
    code = """
import sys, convnet
from convnet.data.workers import worker
assert not {"convnet.nn", "convnet.backend", "convnet.training", "rich"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
