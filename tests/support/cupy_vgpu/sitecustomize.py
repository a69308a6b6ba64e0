"""Imports some modules from other places: what makes CuPy and convnet.cuda run on the virtual GPU.

Python imports this at its start where the folder is on PYTHONPATH, so that programs which tests
start have it too. ``VGPU_MODULES`` holds lines ``name=file``.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

FILES = dict(line.split("=", 1) for line in os.environ.get("VGPU_MODULES", "").splitlines())


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of ``FILES`` before anybody else does."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        file = FILES.get(name)
        return importlib.util.spec_from_file_location(name, file) if file else None


sys.meta_path.insert(0, Finder())
