"""Reads TOML within limits, and writes the part of it that configurations use.

The standard library's reader takes time that grows with the square of the parts of a key, and calls
itself for every bracket; what is too deep is refused before it is called.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

PARTS = 16  # of a dotted key
_DEPTH = 16  # brackets within one another
# What counts: texts and comments (to be passed over), and the characters that make structure.
# A text that does not end counts as one to the end: there the library's reader stops, too.
_TOKEN = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)|'{3}(?:[^']|'(?!''))*+(?:'{3,5}|\Z)'''
    r"""|"(?:[^"\\\n]|\\.)*+(?:"|(?=\n)|\Z)|'[^'\n]*+'?|#[^\n]*|[.=,\n\[\]{}]""",
    re.DOTALL,
)


class TomlError(ValueError):
    """Text that is not TOML, or too deep; one line."""


def from_toml(text: str) -> dict[str, Any]:
    """The table that TOML text describes.

    Raises:
        TomlError: it is not valid, or has keys of more than 16 parts or brackets nested more than
            16 deep.
    """
    _check_depth(text)
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError) as error:  # a ValueError: a date that is none
        raise TomlError(f"not valid TOML: {error}") from None


def _check_depth(text: str) -> None:
    dots = depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == ".":
            dots += 1
        elif token in "=,\n[]{}":
            dots = 0
            depth = max(0, depth + (token in "[{") - (token in "]}"))
        if dots >= PARTS or depth > _DEPTH:
            line = text.count("\n", 0, match.start()) + 1
            what = f"keys of at most {PARTS} parts" if dots else f"brackets at most {_DEPTH} deep"
            raise TomlError(f"line {line}: expected {what}, got more")


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
