"""Images that a net is asked about: files, folders of them, Pillow's images, arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convnet.common.progress import Tell, progress, untold
from convnet.data.dataset import DataError, Images, expanded, shown
from convnet.data.folder.class_folders import images_below, in_threads
from convnet.data.image import Resize, decode, fitted
from convnet.data.indexable import bytes_of


@dataclass(frozen=True)
class Given:
    """An image: what it is called, and the file, Pillow's image or the array that it is."""

    name: str
    content: Any


def given_images(images: Any) -> list[Given]:
    """What a net is asked about, one by one; nothing is read yet but folders.

    Args:
        images: one or a sequence of: files; folders, for the images in them at any depth, by path;
            Pillow's images; arrays, uint8 or numbers from 0 to 1, [H, W] or [H, W, C], and as a
            batch [N, H, W, C].

    Raises: DataError: a folder without images, or nothing at all.
    """
    one = isinstance(images, (str, os.PathLike, Image.Image)) or hasattr(images, "shape")
    found = [each for item in ([images] if one else images) for each in _of(item)]
    found = [
        Given(f"image {number}", item.content) if not item.name else item
        for number, item in enumerate(found)
    ]
    if not found:
        raise DataError("predict: expected images, got none")
    return found


def _of(item: Any) -> Iterator[Given]:
    if isinstance(item, (str, os.PathLike)):
        path = expanded(item)
        if not path.is_dir():
            yield Given(os.fspath(item), path)
            return
        files = images_below(path)
        if not files:
            raise DataError(f"{shown(path)}: expected a folder of images, got none in it")
        yield from (Given(str(path / file), path / file) for file in files)
    elif getattr(item, "ndim", 0) == 4:
        yield from (Given("", one) for one in item)
    else:
        name = getattr(item, "filename", "") if isinstance(item, Image.Image) else ""
        yield Given(os.fspath(name), item)


def read_given(
    images: Sequence[Given],
    shape: tuple[int, int, int],
    resize: Resize = "crop",
    tell: Tell = untold,
) -> list[Images | DataError]:
    """Each image as a net takes it before the crop, uint8 `shape`, or what is wrong with it;
    `resize`: how it gets that size; `tell`: told how many files are read."""
    height, width, channels = shape

    def read(content: Any, name: str) -> Images | DataError:
        try:
            if isinstance(content, Path):
                return decode(content, name, (height, width), channels, resize)
            if not isinstance(content, Image.Image):
                pixels = bytes_of(content, name)
                content = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            return fitted(content, name, (height, width), channels, resize)
        except DataError as error:
            return error

    paths = [one.content for one in images if isinstance(one.content, Path)]
    files = iter(in_threads(lambda path: read(path, shown(path)), paths, 0, tell))
    return [
        next(files) if isinstance(one.content, Path) else read(one.content, shown(one.name))
        for one in images
    ]


def pixels_of(
    images: Sequence[str | os.PathLike[str]],
    shape: tuple[int, int, int],
    resize: Resize = "crop",
) -> Images:
    """Image files as a net takes them before the crop, uint8 [N, H, W, C].

    Raises: DataError: a file that is not a usable image.
    """
    found = []
    given = [Given(os.fspath(one), expanded(one)) for one in images]
    with progress("reading", "images") as tell:
        read = read_given(given, shape, resize, tell)
    for pixels in read:
        if isinstance(pixels, DataError):
            raise DataError(f"{pixels}; leave this file out")
        found.append(pixels)
    return np.stack(found)
