"""Names of classes and files, shortened to what there is room for."""

from __future__ import annotations


def width_of(text: str) -> float:
    """The width of a text, in Latin letters; East Asian ones are wider."""
    return sum(map(_letters, text))


def _letters(char: str) -> float:
    return 1.75 if ord(char) > 0x2E7F else 1.0


def beginning(text: str, most: int) -> str:
    """As many characters as fit into the width of `most` Latin letters."""
    count, width = 0, 0.0
    while count < len(text) and (width := width + _letters(text[count])) <= most:
        count += 1
    return text[:count]


def ending(text: str, most: int) -> str:
    """As many of the last characters as fit into the width of `most` Latin letters."""
    return beginning(text[::-1], most)[::-1]


def cut(name: str, most: int = 48) -> str:
    """A name, shortened in its middle where it is wider than `most` Latin letters."""
    if width_of(name[: most + 1]) <= most and len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{beginning(name, most - 1 - half)}…{ending(name, half)}"
