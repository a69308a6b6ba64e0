"""The folder in which what was found out is kept: it can be found out again at any time."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CONVNET_CACHE"  # a folder, or "off"


def cache_folder() -> Path | None:
    """$CONVNET_CACHE, else `convnet` in $XDG_CACHE_HOME or ~/.cache; it need not exist.

    Returns: None where it is switched off (CONVNET_CACHE=off), or there is no home.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    try:
        folder = Path(chosen).expanduser() if chosen else Path(base).expanduser() / "convnet"
        return folder.absolute()
    except (RuntimeError, OSError):
        return None
