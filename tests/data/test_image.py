"""Decoding one image: kinds of pixels, orientation, scaling, and files that are refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet.data import DataError, read_image
from convnet.data import image as picture

RED, GREEN = (200, 10, 20), (10, 180, 30)


def halves(width: int = 16, height: int = 8) -> Image.Image:
    """Left half red, right half green."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    return image


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def close(pixel: np.ndarray, colour: tuple[int, int, int], within: int = 4) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= within)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.gif", "a.webp", "a.ppm"])
def test_formats(tmp_path: Path, name: str) -> None:
    pixels = read_image(saved(tmp_path, halves(), name), (8, 16))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (8, 16, 3)
    assert close(pixels[4, 2], RED, 12)
    assert close(pixels[4, 13], GREEN, 12)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode if mode != "LAB" else "RGB")
    name = {"RGBA": "a.png", "P": "a.gif"}.get(mode, "a.tif" if mode != "HSV" else "a.png")
    image = image.convert("RGB") if mode == "HSV" else image
    assert read_image(saved(tmp_path, image, name), (4, 4)).min() >= 254


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = read_image(saved(tmp_path, image, "a.jpg", quality=95), (8, 8))
    assert close(pixels[4, 4], (255, 0, 0), 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (4, 4), 0)
    image.paste(255, (0, 0, 2, 4))
    pixels = read_image(saved(tmp_path, image.convert(mode), "a.png"), (4, 4))
    np.testing.assert_array_equal(pixels[:, :2], 255)
    np.testing.assert_array_equal(pixels[:, 2:], 0)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_the_high_byte(tmp_path: Path, name: str) -> None:
    wide = np.array([[0, 255, 256, 0x7FFF], [0x8000, 0xABCD, 0xFF00, 0xFFFF]], np.uint16)
    pixels = read_image(saved(tmp_path, Image.fromarray(wide), name), (2, 4))
    np.testing.assert_array_equal(pixels, np.repeat((wide >> 8)[..., None], 3, axis=2))


def test_big_endian_sixteen_bits(tmp_path: Path) -> None:
    content = b"P5 2 1 65535\n" + struct.pack(">2H", 0x1234, 0xFEDC)
    (tmp_path / "a.pgm").write_bytes(content)
    assert read_image(tmp_path / "a.pgm", (1, 2))[0, :, 0].tolist() == [0x12, 0xFE]


def test_thirty_two_bits_are_refused(tmp_path: Path) -> None:
    wide = Image.fromarray(np.full((2, 2), 70000, np.int32))
    with pytest.raises(DataError, match=r"expected 8 or 16 bits a channel, got values 70000 .."):
        read_image(saved(tmp_path, wide, "a.tif"), (2, 2))
    real = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    with pytest.raises(DataError, match="got floating-point pixels"):
        read_image(saved(tmp_path, real, "b.tif"), (2, 2))


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 100, 0, 128))
    image.putpixel((2, 0), (10, 20, 30, 255))
    pixels = read_image(saved(tmp_path, image, "a.png"), (1, 3))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    half = 128 / 255
    assert close(pixels[0, 1], tuple(round(c * half + 255 * (1 - half)) for c in (200, 100, 0)), 1)
    assert pixels[0, 2].tolist() == [10, 20, 30]


def test_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    for name in ("a.gif", "a.png"):
        pixels = read_image(saved(tmp_path, image, name, transparency=0), (1, 2))
        assert pixels[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_colour_of_transparent_places_does_not_leak_when_scaled(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 255, 0))  # magenta, invisible
    image.paste((0, 0, 0, 255), (8, 0, 16, 16))
    pixels = read_image(saved(tmp_path, image, "a.png"), (4, 4)).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 1  # white, grey and black only


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 16), (16, 8), (4, 4)])
def test_exif_orientation(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    """An image stored in any orientation is the same image."""
    upright = Image.new("RGB", (16, 8), (255, 255, 255))
    upright.paste(RED, (0, 0, 8, 4))
    stored = upright
    undo = picture._UPRIGHT.get(orientation)
    if undo is not None:
        rotate = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270}
        rotate |= {new: old for old, new in rotate.items()}
        stored = upright.transpose(rotate.get(undo, undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, stored, "a.png", exif=exif)
    pixels = read_image(path, size)
    np.testing.assert_array_equal(pixels, read_image(saved(tmp_path, upright, "b.png"), size))
    if size == (8, 16):
        np.testing.assert_array_equal(pixels, np.asarray(upright))
        # Pillow's own reading of the tag, to be sure of the table.
        from PIL import ImageOps

        with Image.open(path) as image:
            np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(image)))


def test_damaged_exif_is_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path, halves(), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert read_image(path, (8, 16)).shape == (8, 16, 3)


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (12, 4), (40, 40)])
@pytest.mark.parametrize("shape", [(20, 30), (31, 17), (8, 8), (3, 9)])
def test_shorter_side_is_scaled_and_the_centre_taken(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """A straight line in both coordinates stays one under scaling, and its centre in the centre."""
    height, width = shape
    rows, cols = np.mgrid[:height, :width] + 0.5
    plane = np.stack([8 * rows, 8 * cols, np.full(shape, 77)], axis=2).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(plane), "a.png")
    pixels = read_image(path, size).astype(float)
    assert pixels.shape == (*size, 3)
    step = 1 / max(size[0] / height, size[1] / width)  # source pixels for each pixel
    for axis, channel in ((0, 0), (1, 1)):
        places = (np.arange(size[axis]) + 0.5 - size[axis] / 2) * step + shape[axis] / 2
        line = pixels[..., channel].mean(axis=1 - axis)
        inside = (places > 1.5 * max(1, step)) & (places < shape[axis] - 1.5 * max(1, step))
        np.testing.assert_allclose(line[inside], 8 * places[inside], atol=1.5)
    np.testing.assert_allclose(pixels[..., 2], 77, atol=1)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [3, 1])
def test_pad_and_stretch_keep_all_of_the_image(
    tmp_path: Path, orientation: int, channels: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    long = saved(tmp_path, halves(16, 4), "a.png", exif=exif)
    turned = orientation == 6  # the red half is on top
    stretched = read_image(long, (8, 8), channels, "stretch")
    padded = read_image(long, (8, 8), channels, "pad")
    if turned:
        stretched, padded = (pixels.transpose(1, 0, 2) for pixels in (stretched, padded))
    luma = [[round(np.dot(c, (0.299, 0.587, 0.114)))] for c in (RED, GREEN)]
    red, green = (RED, GREEN) if channels == 3 else luma
    assert (stretched[:, :3] == red).all()
    assert (stretched[:, 5:] == green).all()
    np.testing.assert_array_equal(padded[3:5], stretched[3:5])
    middle = np.mean([red, green], axis=0)  # of the edges at the top and at the bottom
    assert np.abs(padded[[0, 1, 2, 5, 6, 7]] - middle).max() <= 1
    np.testing.assert_array_equal(
        read_image(long, (4, 16) if not turned else (16, 4), channels, "pad"),
        read_image(long, (4, 16) if not turned else (16, 4), channels),
    )


def test_an_image_of_the_size_is_not_touched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), "a.png")
    np.testing.assert_array_equal(read_image(path, (9, 7)), noise)
    np.testing.assert_array_equal(read_image(path, (7, 7)), noise[1:8])


def test_a_very_long_image_does_not_grow(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("L", (60000, 1), 9), "a.png")
    for resize in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(read_image(path, (64, 64), 3, resize), 9)


def test_large_jpeg_is_read_in_reduced_detail(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:800, :1200]
    smooth = np.stack([rows / 4, cols / 6, (rows + cols) / 9], axis=2).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(smooth), "a.jpg", quality=95)
    lossless = saved(tmp_path, Image.fromarray(smooth), "a.png")
    difference = read_image(path, (32, 48)).astype(int) - read_image(lossless, (32, 48))
    assert np.abs(difference).max() <= 3


def test_grey_result(tmp_path: Path) -> None:
    pixels = read_image(saved(tmp_path, halves(), "a.png"), (8, 16), channels=1)
    assert pixels.shape == (8, 16, 1)
    assert abs(int(pixels[0, 0, 0]) - (0.299 * 200 + 0.587 * 10 + 0.114 * 20)) <= 1


# ---- what is refused -----------------------------------------------------------------------------


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind)
    return content.getvalue()


BAD = {
    "empty": (b"", "expected an image, got an empty file"),
    "text": (b"<html>not found</html>", "expected an image, got a file that starts with the byt"),
    "bomb": (png_claiming(9500, 9500), r"at most 89,478,485 pixels, got 9500x9500"),
    "large bomb": (png_claiming(60000, 60000), "at most 89,478,485 pixels, got a larger one"),
    "jpeg cut": (encoded("JPEG")[:-700], "whole image, got one that cannot be decoded"),
    "jpeg header cut": (encoded("JPEG")[:30], "expected a"),
    "png cut": (encoded("PNG")[:-900], "whole image, got one that cannot be decoded"),
    "png lies": (png_claiming(40, 40), "whole image, got one that cannot be decoded"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "expected an image, got a file"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "some.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_image(path, (8, 8))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    if name == "png lies":  # only decoding can tell
        assert picture.check_file(path, "x") == (40, 40)
    else:
        with picture.quiet_pillow(), pytest.raises(DataError, match=message):
            picture.check_file(path, "x")


def test_refuses_a_file_that_is_gone_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png: expected a readable file, got No such file"):
        read_image(tmp_path / "gone.png", (8, 8))
    with pytest.raises(DataError, match="expected a readable file, got Is a directory"):
        read_image(tmp_path, (8, 8))


def test_what_follows_the_end_of_a_jpeg_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG") + bytes(5000))
    assert picture.check_file(path, "a") == (40, 40)
    assert read_image(path, (40, 40)).shape == (40, 40, 3)


def test_odd_file_names_stay_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "two\nlines.png", (8, 8))
    assert "two\\nlines.png" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damage_is_a_data_error_or_nothing(kind: str) -> None:
    sound = encoded(kind)
    rng = np.random.default_rng(len(kind))
    for _ in range(60):
        damaged = bytearray(sound[: rng.integers(1, len(sound) + 1)])
        for place in rng.integers(0, min(len(damaged), 300), 4):
            damaged[place] = rng.integers(0, 256)
        with picture.quiet_pillow(), contextlib.suppress(DataError):
            assert picture.decode(io.BytesIO(damaged), "x", (8, 8)).shape == (8, 8, 3)
