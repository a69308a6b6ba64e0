"""Reads TOML within limits, and writes it as configurations are laid out.

The standard library's reader takes time that grows with the square of the parts of a key, and calls
itself for every bracket; what is too deep is refused before it is called.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w

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
    """The table as TOML text: plain values first, then sub-tables and lists of tables.

    Args:
        table: strings, booleans, numbers, lists and tuples of those, and mappings; a list whose
            members are all mappings becomes `[[...]]` tables.

    Raises:
        TypeError: a value that TOML cannot hold (None, for example).
    """
    # The indent is that of lists: so wide that tomli-w writes no table within a line. Each list is
    # then put back on one line; newlines within strings are escaped, so these are all of lists.
    text = tomli_w.dumps(table, indent=100)
    return re.sub(r",\n +", ", ", re.sub(r",\n *\]", "]", re.sub(r"\[\n +", "[", text)))
