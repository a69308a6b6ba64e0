"""Writes the part of TOML that configurations use (the standard library only reads it)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_toml(table: Mapping[str, Any]) -> str:
    """The table as TOML text: plain values first, then sub-tables, then lists of tables.

    Args:
        table: strings, booleans, finite or infinite numbers, lists and tuples of those, and
            mappings; a list whose members are all mappings becomes `[[...]]` tables.

    Raises:
        TypeError: a value that TOML cannot hold (None, for example).
    """
    return "\n".join(_lines(table, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [
        f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _is_table(value)
    ]
    for key, value in table.items():
        here = (*path, _key(key))
        if isinstance(value, Mapping):
            body = _lines(value, here)
            lines += ["", f"[{'.'.join(here)}]", *body]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{'.'.join(here)}]]", *_lines(item, here)]
    return lines


def _is_table(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    def escape(char: str) -> str:
        control = ord(char) < 0x20 or ord(char) == 0x7F
        return _ESCAPES.get(char) or (f"\\u{ord(char):04x}" if control else char)

    return '"' + "".join(escape(char) for char in text) + '"'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)  # nan, inf, -inf are TOML
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise TypeError(f"TOML cannot hold {type(value).__name__}: {value!r}")
