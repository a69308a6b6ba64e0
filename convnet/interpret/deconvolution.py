"""What excites the units of a net: their strongest images, and what of these they have seen.

A deconvolutional net runs a net backwards from one unit: convolutions are transposed, a max-pool
gives what it gets to the place that its maximum came from, and instead of the gradient's rule for
ReLU (pass on where the input was positive) what comes back is itself rectified. Response
normalization is passed as if it were not there: it only scales, and hardly differently from place
to place. Without either the result is the gradient at the input.

Source: Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2014, section 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnet import ops
from convnet.common.progress import counted
from convnet.data import Dataset
from convnet.evaluation.evaluate import Trained
from convnet.interpret.receptive_field import Window, receptive_field
from convnet.interpret.sheet import Sheet, around_grey, beside, captioned, grid, tile
from convnet.interpret.views import Vectors, cropped_pixels, read_inputs
from convnet.layers import LRN, Conv, ReLU
from convnet.layers.graph import consumers
from convnet.layers.layer import Array, Gradients, Layer
from convnet.layers.parametric import ParametricLayer
from convnet.nn.input_gradient import in_test_mode, input_gradient
from convnet.nn.net import Net, on_one_device

STRONGEST = 9  # images of a unit
_TILE = 58  # pixels of one of them
_AT_A_TIME = 128


# ---- the rules -----------------------------------------------------------------------------------


class _StandIn:
    """Forwards as the layer that it stands for; backwards by a rule of its own."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        """As the layer."""
        return self.layer.fprop(x, train)


class _Rectified(_StandIn):
    """Stands for a ReLU, alone or within a layer: backwards, what comes back is rectified."""

    def bprop(self, saved: Any, dy: Array) -> tuple[Any, Gradients]:
        """The layer's own backward pass, with what comes back in place of its output: the mask of
        the ReLU is then where that is positive."""
        if isinstance(self.layer, ParametricLayer):
            return self.layer.bprop((saved[0], dy), dy)
        return ops.relu_fprop(dy), []


class _Passed(_StandIn):
    """Stands for response normalization: backwards it is not there."""

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        """What comes back."""
        return dy, []


def _backwards(layer: Layer) -> Any:
    if isinstance(layer, ReLU) or (isinstance(layer, ParametricLayer) and layer.relu):
        return _Rectified(layer)
    return _Passed(layer) if isinstance(layer, LRN) else in_test_mode(layer)


def deconvolve(net: Net, x: Array, node: str, dy: Array) -> Vectors:
    """Runs a net backwards from a node, by the rules above.

    Args:
        net: a trained net.
        x: float32 [N, *in_shape], which images the places of maxima are of.
        node: where it begins.
        dy: float32 [N, *output]: the activations that are followed; others are 0.

    Returns: float32 [N, *in_shape].
    """
    return input_gradient(on_one_device(net), x, None, node, dy, _AT_A_TIME, _backwards)


# ---- what excites a unit -------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A unit of a layer and the images that excite it most.

    Attributes:
        channel: which unit.
        images: their numbers in the set; places: row and column of the largest activation in each;
            values: how large that is.
    """

    channel: int
    images: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    values: Vectors


def layers_shown(net: Net) -> dict[str, str]:
    """The node to look at for each convolution: its ReLU where it has one of its own."""
    readers = consumers(net.nodes)
    shown = {}
    for node in net.nodes:
        if isinstance(node.layer, Conv):
            after = readers[node.name]
            relu = len(after) == 1 and isinstance(after[0].layer, ReLU)
            shown[node.name] = after[0].name if relu else node.name
    return shown


def strongest(
    trained: Trained, data: Dataset, numbers: Sequence[int], node: str, count: int
) -> list[Unit]:
    """The units of a node that tell images apart best, each with the images that excite it most.

    Those are chosen whose largest activations stand out most from their mean over all images; a
    unit that no image excites is left out.

    Args:
        data, numbers: the images that are looked at.
        count: how many units.
    """
    tops, places = [], []
    parts = range(0, len(numbers), _AT_A_TIME)
    for first in counted(parts, len(numbers), "looking", "images", _AT_A_TIME):
        x = read_inputs(trained, data, numbers[first : first + _AT_A_TIME])
        y = trained.net.forward(x, node)
        flat = y.reshape(len(y), -1, y.shape[-1])
        places.append(flat.argmax(axis=1))
        tops.append(flat.max(axis=1))
    top, place = np.concatenate(tops), np.concatenate(places)
    order = np.argsort(-top, axis=0, kind="stable")[:STRONGEST]
    best = np.take_along_axis(top, order, axis=0)
    mean = np.abs(top).mean(axis=0)
    standing_out = np.where(best[-1] > 0, best.mean(axis=0) / np.maximum(mean, 1e-12), -1.0)
    channels = np.argsort(-standing_out, kind="stable")[:count]
    width = trained.net.shapes[node][1]
    return [
        Unit(
            int(c),
            np.asarray(numbers, np.int64)[order[:, c]],
            np.stack(np.divmod(place[order[:, c], c], width), axis=1),
            best[:, c],
        )
        for c in sorted(channels.tolist())
        if standing_out[c] >= 0
    ]


def unit_panels(
    trained: Trained, data: Dataset, node: str, units: Sequence[Unit]
) -> Iterator[Image.Image]:
    """For each unit what it has seen in its strongest images, and these patches of the images."""
    net = trained.net
    for unit in units:
        x = read_inputs(trained, data, unit.images.tolist())
        dy = np.zeros((len(x), *net.shapes[node]), np.float32)
        for n, (row, column) in enumerate(unit.places.tolist()):
            dy[n, row, column, unit.channel] = unit.values[n]
        back = deconvolve(net, x, node, dy)
        pixels = data.read(unit.images)
        seen, patches = [], []
        for n, (row, column) in enumerate(unit.places.tolist()):
            window = receptive_field(net, node, row, column)
            seen.append(tile(around_grey(_cut(back[n], window)), _TILE))
            patches.append(tile(_cut(cropped_pixels(trained, pixels[n]), window), _TILE))
        pair = beside([grid(seen, 3, 2), grid(patches, 3, 2)], 8)
        yield captioned(pair, f"unit {unit.channel}")


def _cut(image: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """A window of an image [H, W, C], moved inside where it overhangs."""
    spans = []
    for length, (first, last) in zip(image.shape, window, strict=False):
        size = min(last - first + 1, length)
        start = min(max(first, 0), length - size)
        spans.append(slice(start, start + size))
    return image[spans[0], spans[1]]


def deconvolution_sheet(
    trained: Trained,
    data: Dataset,
    numbers: Sequence[int],
    units: int = 6,
    layer: str | None = None,
) -> tuple[Image.Image, list[str]]:
    """Layer by layer, units with what excites them.

    Args:
        trained: the net.
        data, numbers: the images that are looked at.
        units: of each layer.
        layer: one convolution alone; None: all.

    Returns: the sheet, and a line for each layer.
    """
    net, sheet, said = trained.net, Sheet(), []
    sheet.title(
        "What excites the units, layer by layer",
        "left: what a unit has seen, by a deconvolutional net; right: the patches that excite it "
        f"most, of {len(numbers):,} images",
    )
    for name, node in layers_shown(net).items():
        if layer not in (None, name):
            continue
        found = strongest(trained, data, numbers, node, units)
        (top, bottom), _ = receptive_field(net, node, 0, 0)
        channels, size = net.shapes[node][2], bottom - top + 1
        note = f"{channels} units; each sees {min(size, net.in_shape[0])} pixels across"
        sheet.heading(name, note)
        panels = list(unit_panels(trained, data, node, found))
        if panels:
            sheet.image(grid(panels, 3, 22))
        chosen = ", ".join(str(unit.channel) for unit in found)
        said.append(f"{name}: units {chosen}" if found else f"{name}: no image excites a unit")
    return sheet.drawn(), said
