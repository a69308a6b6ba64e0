"""What a record of results says of where it comes from."""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np


def commit() -> str:
    """The commit of this repository in short; empty outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a machine without git
        return ""


def versions() -> dict[str, str]:
    """Of what takes part in measurements."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("cupy", "torch"):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            found[name] = str(importlib.import_module(name).__version__)
        except ImportError as error:  # CuPy without its libraries, say
            found[name] = f"not importable: {error}".partition("\n")[0]
    return found


def read_record(path: Path) -> dict[str, Any]:
    """A record of results; precisions were called "math" in older ones."""
    return json.loads(
        path.read_text(),
        object_hook=lambda table: {
            "precision" if key == "math" else key: value for key, value in table.items()
        },
    )
