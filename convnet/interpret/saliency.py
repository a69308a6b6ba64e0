"""What of an image an answer depends on: the gradient of its score, and what covering a part does.

Sources: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2013, section 3, for
the gradient; Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2014, section
4.2, for the occlusion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet.common.progress import counted
from convnet.evaluation.evaluate import Trained
from convnet.interpret.sheet import BLUE, RED, Sheet, beside, captioned, heat, tile
from convnet.interpret.views import Seen, Vectors, cropped_pixels, scores_node

_SIDE = 176  # pixels of a panel
_PATCH = 5  # a side of the image is so many times that of the part that is covered
_AT_A_TIME = 64
_SURE = 0.05  # changes of a probability below this are shown pale: they change no answer


def gradient_map(trained: Trained, x: Vectors, classes: npt.NDArray[np.int64]) -> Vectors:
    """How much the score of a class changes with each pixel: the largest |d score / d x| of its
    channels, float32 [N, H, W].

    Args:
        x: float32 [N, H, W, C].
        classes: of each image, int64 [N].
    """
    node = scores_node(trained)
    dy = np.zeros((len(x), *trained.net.shapes[node]), np.float32)
    dy.reshape(len(x), -1)[np.arange(len(x)), classes] = 1.0
    dx = trained.net.input_gradient(x, node=node, dy=dy, batch=_AT_A_TIME)
    largest: Vectors = np.abs(dx).max(axis=-1)
    return largest


def occlusion_map(trained: Trained, x: Vectors, number: int) -> Vectors:
    """How much likelier a class is than with a part of the image covered by its mean (0 as the net
    sees it), float32 [H, W]: the mean over all parts that cover a pixel.

    Args:
        x: one image, float32 [H, W, C].
        number: of the class.
    """
    height, width, _ = x.shape
    side_h, side_w = max(1, round(height / _PATCH)), max(1, round(width / _PATCH))
    places = [(row, column) for row in _starts(height, side_h) for column in _starts(width, side_w)]
    whole = float(trained.net.predict(x[None])[0, number])
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for first in range(0, len(places), _AT_A_TIME):
        part = places[first : first + _AT_A_TIME]
        covered = np.repeat(x[None], len(part), axis=0)
        for one, (row, column) in zip(covered, part, strict=True):
            one[row : row + side_h, column : column + side_w] = 0.0
        found = trained.net.predict(covered)[:, number]
        for (row, column), probability in zip(part, found.tolist(), strict=True):
            area = np.s_[row : row + side_h, column : column + side_w]
            total[area] += whole - probability
            count[area] += 1
    mean: Vectors = (total / count).astype(np.float32)
    return mean


def _starts(length: int, side: int) -> list[int]:
    """Where parts of a side begin: every third of their size, and the last at the end."""
    step = max(1, side // 3)
    return sorted({*range(0, length - side + 1, step), length - side})


def saliency_sheet(trained: Trained, seen: Seen) -> Image.Image:
    """A row for each image: itself, the gradient of the score of the likeliest class, and what
    covering its parts does to the probability of that class (red: it falls; blue: it rises)."""
    likeliest = seen.probabilities.argmax(axis=1)
    gradients = gradient_map(trained, seen.x, likeliest)
    rows = []
    told = counted(seen.examples, len(seen.examples), "covering parts", "images")
    for place, example in enumerate(told):
        number = int(likeliest[place])
        name, chance = trained.classes[number], 100.0 * float(seen.probabilities[place, number])
        pixels = cropped_pixels(trained, example.shown)
        covered = occlusion_map(trained, seen.x[place], number)
        right = example.label is None or example.label == name
        said = f"{name}, {chance:.0f} %" + ("" if right else f" (it is {example.label})")
        top = float(np.quantile(gradients[place], 0.995))
        largest = 100.0 * float(np.abs(covered).max())
        name_shown = Path(example.name).name
        panels = [
            captioned(tile(pixels, _SIDE), said, name_shown, colour=RED if not right else BLUE),
            captioned(
                tile(heat(gradients[place], top), _SIDE), "gradient of its score", "bright: more"
            ),
            captioned(
                _overlaid(pixels, covered), "with a part covered", f"up to {largest:.0f} points"
            ),
        ]
        rows.append(beside(panels, 6))
    sheet = Sheet()
    sheet.title(
        "What the answer depends on",
        "the likeliest class; red: covering this makes it less likely, blue: likelier",
    )
    for first in range(0, len(rows), 2):
        sheet.image(beside(rows[first : first + 2], 32))
    return sheet.drawn()


def _overlaid(pixels: npt.NDArray[np.uint8], change: Vectors) -> Image.Image:
    """An image in pale grey, with the parts that matter in colour."""
    grey = np.asarray(tile(pixels, _SIDE).convert("L"), np.float64)[..., None]
    pale = 255.0 - 0.55 * (255.0 - grey)
    top = max(float(np.abs(change).max()), _SURE)
    image = Image.fromarray(change / top)
    factor = _SIDE / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    scaled = Image.new("F", (_SIDE, _SIDE))
    place = ((_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2)
    scaled.paste(image.resize(size, Image.Resampling.BICUBIC), place)
    share = np.clip(np.asarray(scaled), -1.0, 1.0)[..., None]
    colour = np.where(share > 0, np.array(RED, np.float64), np.array(BLUE, np.float64))
    strength = 0.85 * np.abs(share) ** 0.8
    mixed = pale * (1.0 - strength) + colour * strength
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
