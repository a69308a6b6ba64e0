"""HTML and SVG by construction: text is escaped wherever it is put into an element."""

from __future__ import annotations

import html
import unicodedata
from typing import Any

from convnet.common.names import cut, ending, width_of

_VOID = frozenset({"br", "img", "meta"})
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the text around them
_LONGEST = 300  # characters of a name that are shown anywhere
_END = 6  # the width of the end of a name that is shortened in front of it


class Markup(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: Any) -> Markup:
    """One element.

    Args:
        name: of the element.
        children: texts, which are escaped; `Markup`, which is not; None and False are left out.
        attributes: values are escaped; `class_` is class, `data_x` is data-x; None and False are
            left out, True stands without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{escaped(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    """Pieces of markup and texts, one after the other."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escaped(child)
            for child in children
            if child is not None and child is not False
        )
    )


def escaped(value: object) -> str:
    """A value as text within HTML. Characters that show nothing, or that change the direction of
    the text around them, are written as escapes."""
    text = "".join(_visible(char) for char in str(value))
    return html.escape(text, quote=True)


def _visible(char: str) -> str:
    if char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _TURNING):
        return char
    return ascii(char)[1:-1]


def name_of(name: str, most: int = 48, tag: str = "span", **attributes: Any) -> Markup:
    """An element with a name in it; one that is cut has the whole name as its title."""
    shown = cut(name, most)
    title = name[:_LONGEST] if shown != name else None
    return element(tag, shown, title=title, dir="auto", **attributes)


def line_of(name: str, tag: str = "span") -> Markup:
    """An element with a name on one line, which a browser shortens in front of its last letters
    where it is wider than the place it has: names often begin alike and end differently."""
    end = ending(name[:_LONGEST], _END)
    if width_of(name[: 3 * _END]) <= 2 * _END:
        return element(tag, name, dir="auto")
    start = cut(name[: -len(end)], _LONGEST)
    spans = element("span", start), element("span", end)
    return element(tag, *spans, title=name[:_LONGEST], dir="auto", class_="line")
