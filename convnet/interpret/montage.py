"""Images put together from small ones, by Pillow: filters, and rows of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from convnet.common.files import replace
from convnet.data.dataset import DataError, shown
from convnet.interpret.fonts import cut, drawable, font_for, plain_font

Pixels = npt.NDArray[np.uint8]

WHITE, BLACK, GREY, PALE = (255, 255, 255), (0, 0, 0), (110, 110, 110), (210, 210, 210)
LOSSY = {"quality": 90}  # of JPEG and WebP files
RIGHT, WRONG = (30, 140, 60), (200, 40, 40)  # frames of neighbours of the same class, of another


def save_image(image: Image.Image, path: Path) -> None:
    """Writes an image in the format that its name ends with; the file is whole or not there.

    Raises:
        DataError: an ending that Pillow writes nothing for. OSError: it cannot be written.
    """
    Image.init()
    kind = Image.EXTENSION.get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"{shown(path)}: expected a name that ends in .png or another image's")
    options: dict[str, Any] = {"optimize": True} if kind == "PNG" else LOSSY
    replace(path, lambda file: image.save(file, format=kind, **options))


# ---- filters -------------------------------------------------------------------------------------


def filter_sheet(
    w: npt.NDArray[np.float32], towers: int = 1, scale: int = 0, each: bool = False
) -> Image.Image:
    """Filters as an image, those of each tower in a block of their own (paper, figure 3).

    Zero is mid-grey, and one scale holds for all filters, so that a faint one has small weights.
    With one or three channels a filter is one panel, in grey or colour. With another number it is a
    row of grey panels, one a channel.

    Args:
        w: float32 [K, R, S, C].
        towers: divides K; the first K / towers filters are the first tower's.
        scale: pixels a weight; 0 chooses.
        each: bring every filter to full contrast by itself.

    Raises:
        DataError: weights that are not finite.
    """
    count, height, width, channels = w.shape
    if not np.isfinite(w).all():
        raise DataError("filters: expected finite weights, got NaN or infinity")
    top = np.abs(w).max(axis=(1, 2, 3), keepdims=True)
    top = top if each else top.max(keepdims=True)
    levels = np.rint(127.5 + 127.5 * w / np.where(top > 0, top, 1)).astype(np.uint8)
    if channels in (1, 3):
        size = count // towers
        columns = _columns(size)
        rows_a_tower = -(-size // columns)
        panels = [
            list(levels[tower * size : (tower + 1) * size][first : first + columns])
            for tower in range(towers)
            for first in range(0, size, columns)
        ]
    else:
        panels = [[one[..., c : c + 1] for c in range(channels)] for one in levels]
        columns, rows_a_tower = channels, count // towers
    scale = scale or max(1, min(64 // max(height, width), 1600 // (columns * width)))
    gap = max(1, scale // 3)
    return _sheet(panels, (height * scale, width * scale), gap, rows_a_tower, 4 * gap + scale)


def _columns(count: int) -> int:
    """Tiles in a row: 16, or what is near it and leaves no row ragged."""
    for columns in range(min(16, count), 5, -1):
        if count % columns == 0:
            return columns
    return min(16, count)


def _sheet(
    panels: Sequence[Sequence[Pixels]], size: tuple[int, int], gap: int, block: int, between: int
) -> Image.Image:
    """Rows of panels, scaled to (height, width) without smoothing; every `block` rows a wider gap
    of `between` pixels."""
    height, width = size
    columns = max(map(len, panels))
    blocks = -(-len(panels) // block)
    whole = (
        gap + columns * (width + gap),
        gap + len(panels) * (height + gap) + (blocks - 1) * (between - gap),
    )
    sheet = Image.new("RGB", whole, WHITE)
    for row, line in enumerate(panels):
        y = gap + row * (height + gap) + (row // block) * (between - gap)
        for column, panel in enumerate(line):
            one = as_image(panel).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(one, (gap + column * (width + gap), y))
    return sheet


def as_image(pixels: Pixels) -> Image.Image:
    """uint8 [H, W, 1] or [H, W, 3] as an RGB image."""
    grey = pixels.shape[2] == 1
    return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")


# ---- rows of neighbours --------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """An image in a row.

    Attributes:
        pixels: uint8 [H, W, 1 or 3].
        caption: lines below it.
        same: whether it is of the query's class; None where that is not known.
    """

    pixels: Pixels
    caption: tuple[str, ...] = ()
    same: bool | None = None


_SIDE, _FRAME, _GAP, _BEFORE, _TEXT = 112, 3, 8, 28, 11  # pixels


def neighbour_rows(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """A row for each query: the query, a gap, its neighbours from the nearest on (paper, figure 4).

    Frames are green around images of the query's class and red around those of another.
    """
    lines = max((len(panel.caption) for row in rows for panel in row), default=0)
    step_x = _SIDE + 2 * _FRAME + _GAP
    step_y = _SIDE + 2 * _FRAME + lines * (_TEXT + 4) + _GAP + 2
    columns = max(map(len, rows))
    size = (_GAP + columns * step_x + (_BEFORE if columns > 1 else 0), _GAP + len(rows) * step_y)
    sheet = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            x, y = _GAP + j * step_x + (_BEFORE if j else 0), _GAP + i * step_y
            colour = {None: PALE, True: RIGHT, False: WRONG}[panel.same]
            edge = _SIDE + 2 * _FRAME
            draw.rectangle((x, y, x + edge - 1, y + edge - 1), fill=colour)
            inside = fitted(panel.pixels, _SIDE, 3.0)
            at = (x + _FRAME + (_SIDE - inside.width) // 2, y + _FRAME)
            sheet.paste(WHITE, (x + _FRAME, y + _FRAME, x + _FRAME + _SIDE, y + _FRAME + _SIDE))
            sheet.paste(inside, (at[0], at[1] + (_SIDE - inside.height) // 2))
            for number, text in enumerate(panel.caption):
                place = (x + edge / 2, y + edge + 2 + number * (_TEXT + 4))
                (known,), _ = drawable([text])
                font = font_for(known, _TEXT) or plain_font(_TEXT)
                shade = GREY if number else BLACK
                draw.text(place, cut(known, font, edge), shade, font, anchor="ma")
    return sheet


def fitted(pixels: Pixels, side: int, blocks: float) -> Image.Image:
    """An image scaled to fit in a square; by a factor of `blocks` and more, with its pixels as
    blocks."""
    image = as_image(pixels)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    way = Image.Resampling.NEAREST if factor >= blocks else Image.Resampling.LANCZOS
    return image.resize(size, way)
