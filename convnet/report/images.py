"""Images within a page, as data: URLs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.data.dataset import Images
from convnet.interpret.montage import as_image
from convnet.report.markup import Markup, element

SMALL = 64  # pixels of a side up to which an image is shown as it is, pixel by pixel
_SIDE = 208  # pixels of the longer side of larger ones: twice what they take on a page


def picture(pixels: Images, alt: str) -> Markup:
    """An image as the page shows it: small ones with their pixels as blocks, large ones as JPEG."""
    image = as_image(pixels)
    if max(image.size) <= SMALL:
        exact = Image.fromarray(pixels[..., 0]) if pixels.shape[2] == 1 else image
        return pixelated(exact, alt)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    url = _url(image, "JPEG", quality=82)
    return element("img", src=url, alt=alt, width=image.width, height=image.height, loading="lazy")


def pixelated(image: Image.Image, alt: str, class_: str = "") -> Markup:
    """A small image, of which each pixel is shown as a block."""
    url = _url(image, "PNG", optimize=True)
    words = f"pixels {class_}".strip()
    return element("img", src=url, alt=alt, width=image.width, height=image.height, class_=words)


def filter_pictures(w: npt.NDArray[np.float32]) -> list[Markup]:
    """Each filter as an image: zero is mid-grey, and one scale holds for all.

    Args:
        w: float32 [K, R, S, 1 or 3], finite.
    """
    top = float(np.abs(w).max()) or 1.0
    levels = np.rint(127.5 + 127.5 * w / top).astype(np.uint8)
    return [
        pixelated(Image.fromarray(one[..., 0] if one.shape[2] == 1 else one), f"filter {number}")
        for number, one in enumerate(levels)
    ]


def _url(image: Image.Image, kind: str, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
