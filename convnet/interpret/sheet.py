"""Sheets of small images with headings, put together by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from convnet.interpret.fonts import cut, font_for, plain_font
from convnet.interpret.montage import fitted

PAPER, INK, SOFT, LINE = (251, 250, 247), (29, 32, 37), (98, 105, 115), (227, 224, 217)
BLUE, RED = (43, 115, 184), (201, 80, 47)
_EDGE, _GAP = 24, 14  # pixels around the sheet, and between its rows
_LONGEST = 200  # characters of a text that are looked at
# Colours of small and large values: dark blue, blue, green, and nearly white.
_HEAT = np.array([[14, 17, 35], [38, 58, 122], [42, 126, 160], [122, 200, 152], [250, 247, 214]])


@dataclass
class Sheet:
    """Rows from top to bottom, each an image or a line of text, then drawn at once."""

    rows: list[tuple[Image.Image, int]] = field(default_factory=list)  # and the gap below each

    def title(self, text: str, note: str) -> None:
        """Adds the title of the sheet, and a line on how to read it."""
        self._text(text, 24, INK, 4)
        self._text(note, 13, SOFT, 18)

    def _text(self, text: str, size: int, colour: tuple[int, int, int], gap: int) -> None:
        font = font_for(text[:_LONGEST], size) or plain_font(size)
        width = round(font.getlength(text[:_LONGEST])) + 2
        image = Image.new("RGB", (max(1, width), round(size * 1.35)), PAPER)
        ImageDraw.Draw(image).text((0, 0), text[:_LONGEST], colour, font)
        self.rows.append((image, gap))

    def heading(self, text: str, note: str) -> None:
        """Adds a heading, and a line below it."""
        self.rows.append((Image.new("RGB", (1, 8), PAPER), 0))
        self._text(text, 18, INK, 1)
        self._text(note, 13, SOFT, 9)

    def image(self, image: Image.Image) -> None:
        """Adds an image."""
        self.rows.append((image, _GAP))

    def drawn(self) -> Image.Image:
        """The sheet."""
        width = max(row.width for row, _ in self.rows) + 2 * _EDGE
        height = sum(row.height + gap for row, gap in self.rows) + 2 * _EDGE - self.rows[-1][1]
        sheet = Image.new("RGB", (width, height), PAPER)
        y = _EDGE
        for row, gap in self.rows:
            sheet.paste(row, (_EDGE, y))
            y += row.height + gap
        return sheet


def grid(tiles: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Tiles of one size in rows of `columns`."""
    columns = max(1, min(columns, len(tiles)))
    lines = -(-len(tiles) // columns)
    width, height = tiles[0].size
    size = (columns * (width + gap) - gap, lines * (height + gap) - gap)
    whole = Image.new("RGB", size, PAPER)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        whole.paste(tile, (column * (width + gap), row * (height + gap)))
    return whole


def beside(images: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Images from left to right, their upper edges on one line."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    whole = Image.new("RGB", (width, max(image.height for image in images)), PAPER)
    x = 0
    for image in images:
        whole.paste(image, (x, 0))
        x += image.width + gap
    return whole


def captioned(image: Image.Image, *lines: str, colour: tuple[int, int, int] = SOFT) -> Image.Image:
    """An image with lines of text below it, the first darker; what is too long is cut."""
    size = 12
    whole = Image.new("RGB", (image.width, image.height + 4 + 17 * len(lines)), PAPER)
    whole.paste(image, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        font = font_for(line[:_LONGEST], size) or plain_font(size)
        shown = cut(line, font, image.width)
        place = (0, image.height + 4 + 17 * number)
        draw.text(place, shown, INK if number == 0 else colour, font)
    return whole


def heat(values: npt.NDArray[np.floating], top: float | None = None) -> npt.NDArray[np.uint8]:
    """Values from 0 to `top`, by default their largest, as colours: uint8 [..., 3]."""
    most = float(values.max(initial=0.0)) if top is None else top
    share = np.clip(values / (most or 1.0), 0.0, 1.0)
    place = share * (len(_HEAT) - 1)
    channels = [np.interp(place, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def around_grey(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Values [H, W, C] with zero as mid-grey, so that the strongest few are black or white."""
    size = np.abs(values[values != 0])
    top = float(np.quantile(size, 0.995)) if size.size else 1.0
    return np.rint(np.clip(127.5 + 127.5 * values / top, 0, 255)).astype(np.uint8)


def tile(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """An image [H, W, 1 or 3] scaled to fit a square; small ones with their pixels as blocks."""
    square = Image.new("RGB", (side, side), PAPER)
    scaled = fitted(pixels, side, 1.5)
    square.paste(scaled, ((side - scaled.width) // 2, (side - scaled.height) // 2))
    return square
