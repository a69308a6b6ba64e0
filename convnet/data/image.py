"""One image file: a cheap check, and decoding to RGB (or grey) at a given size.

Transparent places become white, the EXIF orientation is applied, and grey, palette, CMYK and 16-bit
images become 8-bit RGB. What is too large, truncated or no image at all is a DataError that
names the file.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps

from convnet.common.reading import open_file
from convnet.data.dataset import DataError, Images, expanded, shown

# How an image gets its size: the shorter side is scaled to cover it and the centre cut out; or the
# longer side to fit, the rest filled with the mean colour of the edges there; or both sides apart.
Resize = Literal["crop", "pad", "stretch"]

# Larger images are refused before they are decoded: a few bytes can claim any size. This is also
# where Pillow starts to warn of decompression bombs.
MAX_PIXELS = 89_478_485
_AT_MOST = f"an image of at most {MAX_PIXELS:,} pixels"

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

# EXIF tag 0x0112 and what undoes it. Source: EXIF 2.32, section 4.6.4.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]
_EMPTY = "an empty file"
_BITS = "8 or 16 bits a channel"
_TAIL = 1024  # bytes at the end of a file in which its end mark is looked for


class ImageError(DataError):
    """A file that cannot be used as an image.

    Attributes:
        kind: "empty", "no image", "damaged", "huge", "unreadable" or "unusual".
    """

    kind = ""


def _refused(kind: str, name: str, expected: str, got: str) -> ImageError:
    error = ImageError(f"{name}: expected {expected}, got {got}")
    error.kind = kind
    return error


@cache
def _formats() -> tuple[str, ...]:
    """The formats read here, as far as this Pillow was built with them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def read_image(
    path: str | Path, size: tuple[int, int], channels: int = 3, resize: Resize = "crop"
) -> Images:
    """Decodes one image file.

    Args:
        path: the file; `~` stands for the home folder.
        size: (height, width) of the result in pixels.
        channels: 3 for red, green and blue; 1 for grey.
        resize: how the image gets that size, as for `decode`.

    Returns:
        uint8 [H, W, channels].

    Raises:
        DataError: as `decode`, or the file cannot be opened.
    """
    path = expanded(path)
    with quiet_pillow():
        return decode(path, shown(path), size, channels, resize)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Hides Pillow's warnings: what matters is raised as a DataError, once.

    To be entered by one thread, around those that decode: warning filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode(
    source: Path | BinaryIO,
    name: str,
    size: tuple[int, int],
    channels: int = 3,
    resize: Resize = "crop",
) -> Images:
    """Decodes an image and brings it to a size.

    Args:
        source: a path, or an open binary file that can seek.
        name: what to call it in a message.
        size: (height, width) of the result.
        channels: 3 for RGB, 1 for grey (ITU-R 601-2 luma).
        resize: "crop": the image is scaled, keeping its proportions, to the smallest size that
            covers `size`, and its centre is taken; "pad": to the largest that fits inside, and what
            is left on two sides is filled with the mean colour of those edges of the image;
            "stretch": each side by itself.

    Returns:
        uint8 [H, W, channels].

    Raises:
        ImageError: no image, empty, truncated, of more than MAX_PIXELS, or of a kind that has
            no 8-bit meaning (floating point).
    """
    with (
        _file(source, name) as file,
        _open(file, name) as image,
        _decoding(image, name, 2 * max(size)),
    ):
        fitted = _fit(_eight_bits(image, name), _upright(image), size, channels, resize)
        pixels = np.asarray(fitted)
    return pixels.reshape(*size, channels)


def fitted(
    image: Image.Image, name: str, size: tuple[int, int], channels: int, resize: Resize = "crop"
) -> Images:
    """An image that is open already, as `decode` gives it, uint8 [H, W, channels].

    Raises: ImageError: as `decode`.
    """
    with _decoding(image, name):
        pixels = np.asarray(_fit(_eight_bits(image, name), None, size, channels, resize))
    return pixels.reshape(*size, channels)


def check_file(path: Path, name: str) -> tuple[int, int]:
    """Looks at the header and the end of an image file, without decoding it where they suffice.

    A JPEG or PNG that lacks its end mark, as a broken download does, is decoded to find out.

    Returns:
        (height, width) as stored, before any EXIF rotation.

    Raises:
        ImageError: as `decode`.
    """
    with _file(path, name) as file, _open(file, name) as image:
        width, height = image.size
        if not _ends_well(file, image.format):
            with _decoding(image, name):
                pass
    return height, width


@contextmanager
def _file(source: Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The open file; closed again where it was a path."""
    if not isinstance(source, Path):
        yield source
        return
    try:
        file = open_file(source)
    except (OSError, ValueError) as error:
        raise _refused("unreadable", name, "a readable file", _reason(error)) from None
    with file:
        yield file


class _Room:
    """Memory for images that this process decodes at one time, in pixels: as many as the largest
    image may have, so that several large ones wait for each other."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, image: Image.Image) -> Iterator[None]:
        pixels = min(image.width * image.height, MAX_PIXELS)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + pixels <= MAX_PIXELS)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _Room()


@contextmanager
def _decoding(image: Image.Image, name: str, side: int = 0) -> Iterator[None]:
    """Decodes an image, and keeps its room while it is worked on; `side`: a JPEG need not be
    decoded to more detail than such a square has."""
    try:
        if side:
            image.draft(None, (side, side))
        with _room.of(image):
            image.load()
            yield
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        got = f"one that cannot be decoded ({_reason(error)})"
        raise _refused("damaged", name, "a whole image", got) from None


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Reads the header, and refuses what is no image or too large a one."""
    try:
        image = Image.open(file, formats=_formats())
    except Image.UnidentifiedImageError:
        got = _first_bytes(file)
        kind = "empty" if got == _EMPTY else "no image"
        raise _refused(kind, name, "an image", got) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        got = f"a larger one ({_reason(error)}); scale it down first"
        raise _refused("huge", name, _AT_MOST, got) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have no number
            raise _refused("unreadable", name, "a readable file", _reason(error)) from None
        got = f"a damaged header ({_reason(error)})"
        raise _refused("damaged", name, "an image", got) from None
    width, height = image.size
    if 0 < width * height <= MAX_PIXELS:
        return image
    image.close()
    if width * height == 0:
        raise _refused("empty", name, "an image of at least one pixel", f"{width}x{height}")
    raise _refused("huge", name, _AT_MOST, f"{width}x{height}; scale it down first")


def _first_bytes(file: BinaryIO) -> str:
    file.seek(0)
    first = file.read(8)
    return f"a file that starts with the bytes {first.hex()}" if first else _EMPTY


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(text or type(error).__name__)


def _ends_well(file: BinaryIO, kind: str | None) -> bool:
    """Whether the end mark of a JPEG or PNG is where it should be; True for other formats."""
    mark = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(kind or "")
    if mark is None:
        return True
    before = file.tell()  # from where Pillow goes on
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    found = mark in file.read()
    file.seek(before)
    return found


def _upright(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright; None where nothing does, or the EXIF data are damaged."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data raise nearly anything; the image may still be sound
        return None


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """The image as L, RGB or RGBA."""
    mode = image.mode
    if mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise _refused("unusual", name, _BITS, f"values {wide.min()} .. {wide.max()}")
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if mode == "F":
        raise _refused("unusual", name, _BITS, "floating-point pixels")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return image if mode == "RGBA" else image.convert("RGBA")
    wanted = "L" if mode in ("1", "L") else "RGB"
    return image if mode == wanted else image.convert(wanted)  # convert always copies


def _fit(
    image: Image.Image,
    upright: Image.Transpose | None,
    size: tuple[int, int],
    channels: int,
    resize: Resize,
) -> Image.Image:
    """Scales and crops in one step, so that a very long image never grows in between."""
    height, width = size
    target = (height, width) if upright in _SIDEWAYS else (width, height)
    if resize == "crop":
        image = ImageOps.fit(image, target, Image.Resampling.BILINEAR)
    else:
        inside = _inside(image.size, target) if resize == "pad" else target
        image = image.resize(inside, Image.Resampling.BILINEAR)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != target:
        image = _padded(image, target)
    return image if upright is None else image.transpose(upright)


def _inside(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The largest size of these proportions that fits into the target."""
    factor = min(target[0] / size[0], target[1] / size[1])
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def _padded(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """The image in the middle, and around it the mean colour of the edges that lie inside."""
    pixels = np.asarray(image)
    edges = pixels[:, [0, -1]] if image.width < target[0] else pixels[[0, -1]]
    colour = np.atleast_1d(np.rint(edges.mean(axis=(0, 1)))).astype(int).tolist()
    whole = Image.new(image.mode, target, colour[0] if image.mode == "L" else tuple(colour))
    whole.paste(image, ((target[0] - image.width) // 2, (target[1] - image.height) // 2))
    return whole
