"""Members of a package that are imported when they are first asked for.

A process that only decodes images has no use for nets, nor has `convnet --version`: importing
everything takes longer than either.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_members(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) that imports its members one by one.

    Args:
        package: its `__name__`.
        places: member -> the module that defines it; a subpackage is in the package itself.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        if place == package:
            return importlib.import_module(f"{package}.{name}")
        member = getattr(importlib.import_module(place), name)
        setattr(sys.modules[package], name, member)  # found without us from now on
        return member

    return get
