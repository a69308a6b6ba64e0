"""The options that a layer was made with, from its attributes."""

from __future__ import annotations

import inspect
from typing import Any

_MISSING = object()


def options_of(layer: Any) -> dict[str, Any]:
    """The arguments with which an equal layer is made, but for those that have their default.

    Args:
        layer: a layer, each of whose constructor's arguments is an attribute of the same name.

    Raises: ValueError naming an argument that is no attribute.
    """
    found = {}
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        value = getattr(layer, name, _MISSING)
        if value is _MISSING:
            kind = type(layer).__name__
            raise ValueError(
                f"{kind}: its argument {name} is no attribute: keep it as self.{name}; saving and "
                "copying the layer need it"
            )
        if not _same(value, parameter.default):
            found[name] = value
    return found


def _same(value: Any, default: Any) -> bool:
    """Whether a value is what the default became: 3 may be kept as (3, 3)."""
    try:
        return bool(value == default or (isinstance(value, tuple) and value == (default, default)))
    except ValueError:  # arrays
        return False


def described(layer: Any) -> str:
    """ "Conv(filters=96, size=(11, 11), stride=(4, 4))": a layer in one line."""
    try:
        options = options_of(layer)
    except ValueError:
        options = {}
    return f"{type(layer).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"
