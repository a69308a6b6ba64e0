"""Fonts that have the characters of a text, as far as there are some on this machine.

Pillow brings a font for Latin letters along, matplotlib one for many more scripts; the scripts of
East Asia need a font of the system.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Beginnings of the names of files of fonts that have Chinese, Japanese or Korean characters.
_EAST_ASIAN = (
    "NotoSansCJK",
    "NotoSansSC",
    "NotoSansJP",
    "SourceHanSans",
    "wqy",
    "DroidSansFallback",
    "ipag",
    "fonts-japanese-gothic",
    "TakaoGothic",
    "unifont",
    "PingFang",
    "Hiragino",
    "msyh",
    "msgothic",
    "malgun",
    "Arial Unicode",
)
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d"})
_LONGEST = 200  # characters of a text that are looked at
_FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/local/share/fonts",
    "/usr/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)


def font_for(text: str, size: int) -> Font | None:
    """The first font that has all characters of a text; None where there is none.

    Args:
        text: on one line.
        size: pixels.
    """
    for path in (None, *known_fonts()):
        font = _opened(path, size)
        if all(_has(path, char) for char in set(text)):
            return font
    return None


def plain_font(size: int) -> Font:
    """The font for texts of our own: matplotlib's, or else Pillow's."""
    return _opened(next(iter(known_fonts()[:1]), None), size)


@functools.cache
def known_fonts() -> tuple[str, ...]:
    """The files of matplotlib's font and of the East Asian fonts of the system."""
    found = [str(path) for path in _of_matplotlib()]
    for folder in _FOLDERS:
        for place, _, names in sorted(os.walk(Path(folder).expanduser())):
            found += [
                os.path.join(place, name)  # noqa: PTH118 - names that are no text stay bytes
                for name in sorted(names)
                if name.lower().endswith((".ttf", ".ttc", ".otf"))
                and name.lower().startswith(tuple(start.lower() for start in _EAST_ASIAN))
                and "bold" not in name.lower()
            ]
    return tuple(found)


def _of_matplotlib() -> Iterator[Path]:
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            yield path


@functools.lru_cache(maxsize=64)
def _opened(path: str | None, size: int) -> Font:
    if path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=1 << 14)
def _has(path: str | None, char: str) -> bool:
    """Whether a font has a character, rather than drawing the box that stands for none."""
    if char == " ":
        return True
    font = _opened(path, 24)
    try:
        drawn, none = font.getmask(char), font.getmask("\U000fffff")
    except (OSError, UnicodeError):
        return False
    return drawn.size != none.size or bytes(drawn) != bytes(none)


def cut(text: str, font: Font, width: float) -> str:
    """The text, shortened to so many pixels."""
    text = text[:_LONGEST]  # measured again for each character that goes
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def drawable(names: Sequence[str]) -> tuple[list[str], int]:
    """Names as they can be drawn here, and how many have characters that no font here has. These
    are written without the marks of their letters, or else called by their number, from 0."""
    shown, lacking = [], 0
    for number, name in enumerate(names):
        clean = "".join(char if char.isprintable() else "?" for char in name)
        if font_for(clean[:_LONGEST], 12) is None:
            lacking += 1
            clean = _without_marks(clean)
            clean = clean if font_for(clean[:_LONGEST], 12) else f"class {number}"
        shown.append(clean)
    return shown, lacking


def _without_marks(name: str) -> str:
    """Latin letters without accents and dots: "Größe" as "Grosse"."""
    parts = unicodedata.normalize("NFKD", name.translate(_LETTERS))
    return "".join(char for char in parts if not unicodedata.combining(char))


def lacking_text(names: Iterable[str]) -> str:
    """A sentence on names that cannot be drawn here; empty where all can."""
    _, lacking = drawable(list(names))
    if not lacking:
        return ""
    many = "name has" if lacking == 1 else "names have"
    return (
        f"; {lacking} {many} characters that no font here has: written in plain letters, or as a "
        "number from 0 (Debian's fonts-noto-cjk has those of East Asia)"
    )


def matplotlib_families(names: Iterable[str]) -> list[str]:
    """The families that a chart with these names needs, DejaVu Sans first."""
    families = ["DejaVu Sans"]
    for name in names:
        font = font_for(name[:_LONGEST], 12)
        if isinstance(font, ImageFont.FreeTypeFont) and font.path in known_fonts()[1:]:
            families.append(_registered(str(font.path)))
    return list(dict.fromkeys(families))


@functools.cache
def _registered(path: str) -> str:
    """Makes a font known to matplotlib; the name of its family."""
    from matplotlib import font_manager

    font_manager.fontManager.addfont(path)
    return str(font_manager.FontProperties(fname=path).get_name())
