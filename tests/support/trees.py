"""Small folders of images, of every kind that people have on their disks."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "emu")

# As scipy.io.savemat(..., do_compression=True) writes it: a 3 x 1 array of structures with
# ILSVRC2012_ID 1, 2, 3, WNID n03, n01, n02, words and children.
META = base64.b64decode(
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFNhdCBOb3YgMjEgMDY6NTM6NTgg"
    "MjAyNgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAqAAAAHic"
    "42NgYPBgZmBgA9IcQMzEAAGsUD5QioERitmBuLgyrzi1pBgoz8LABxW3AGJPn+CwIGcjA0OjeE8XhnA/IAEH5flFKcVw"
    "XnJGZk5KUWoehMcH1Q+znw3NfkYkDAKcUHEI+GAP0m+ApJ8Fi35mJP0CQF6egTGGvdj0saPog/CzM0sU0vIrGNDtRXc3"
    "DCC7m3L/MjiQ51/DIepfDjL9azRg/gUAB4Af+g=="
)


def image(number: int, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """A smooth image (height, width) that no other number has."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BILINEAR)


def class_folders(root: Path, count: int = 10, start: int = 0) -> Path:
    """`count` images in each of three class folders, of several sizes and formats."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(count):
            number = start + label * count + i
            suffix = ("png", "jpg", "bmp")[i % 3]
            image(number, (20 + i, 24)).save(root / name / f"{i:03}.{suffix}")
    return root


def ilsvrc(root: Path, count: int = 6) -> Path:
    """Training images by class, validation images without folders and their labels in files."""
    class_folders(root / "train")
    (root / "val").mkdir()
    for i in range(count):
        image(1000 + i).save(root / "val" / f"val_{i + 1:08}.JPEG", "JPEG")
    names = [CLASSES[i % 3] for i in range(count)]
    (root / "names.txt").write_text("".join(f"{name}\n" for name in names))
    # Numbers from 1 in an order that is not that of the names: emu, cat, dog.
    numbers = {"emu": 1, "cat": 2, "dog": 3}
    (root / "numbers.txt").write_text("".join(f"{numbers[name]}\n" for name in names))
    (root / "synsets.txt").write_text("emu a large bird\ncat\ndog, domestic dog\n".replace(",", ""))
    return root


def bomb(path: Path, width: int = 30_000, height: int = 30_000) -> Path:
    """A PNG file of a few bytes that claims to be enormous."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path
