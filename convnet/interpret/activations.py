"""An image on its way through the layers of a net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from convnet.evaluation.evaluate import Trained
from convnet.interpret.sheet import Sheet, captioned, grid, heat, tile
from convnet.interpret.views import Seen, cropped_pixels
from convnet.layers import LRN, Conv, Flatten, ReLU
from convnet.layers.dropout import Dropout
from convnet.layers.graph import Node, consumers, input_names
from convnet.nn.net import Net

_TILE, _COLUMNS, _ROWS = 56, 16, 2


def nodes_shown(net: Net) -> list[Node]:
    """The nodes whose output is a stack of maps, and not the same as another's: not a convolution
    whose ReLU follows, and neither normalization nor dropout."""
    readers = consumers(net.nodes)
    shown = []
    for node in net.nodes:
        after = readers[node.name]
        relu = isinstance(node.layer, Conv) and len(after) == 1 and isinstance(after[0].layer, ReLU)
        hidden = relu or isinstance(node.layer, LRN | Dropout | Flatten)
        if len(net.shapes[node.name]) == 3 and not hidden:
            shown.append(node)
    return shown


def activation_sheet(trained: Trained, seen: Seen) -> Image.Image:
    """The first of some images, and the maps of each layer: those of the strongest channels, in
    their order; in one scale for a layer, dark is 0.

    Args:
        trained: the net.
        seen: images; one is shown.
    """
    net, example = trained.net, seen.examples[0]
    number = int(seen.probabilities[0].argmax())
    chance = 100.0 * float(seen.probabilities[0, number])
    sheet = Sheet()
    said = f"{Path(example.name).name}: {trained.classes[number]}, {chance:.0f} %"
    sheet.title("On its way through the net", said)
    image = tile(cropped_pixels(trained, example.shown), 144)
    sheet.image(captioned(image, "what it is shown"))
    for node in nodes_shown(net):
        y = net.forward(seen.x[:1], node.name)[0]
        strength = np.maximum(y, 0).mean(axis=(0, 1))
        most = min(_COLUMNS * _ROWS, y.shape[2])
        channels = np.sort(np.argsort(-strength, kind="stable")[:most])
        top = float(np.quantile(np.maximum(y[..., channels], 0), 0.999)) or float(y.max())
        tiles = [tile(heat(np.maximum(y[..., c], 0), top), _TILE) for c in channels]
        height, width, count = y.shape
        shown = "all" if most == count else f"the {most} strongest of"
        source = input_names(node)[0]
        note = f"{shown} {count} channels, {height} x {width}"
        name = f"{source}, {node.name}" if isinstance(node.layer, ReLU) else node.name
        sheet.heading(name, note)
        sheet.image(grid(tiles, _COLUMNS, 3))
    return sheet.drawn()
