"""Which part of the image a unit of a net sees."""

from __future__ import annotations

from convnet.layers.graph import INPUT, ancestors, input_names
from convnet.layers.layer import Layer
from convnet.nn.net import Net

Span = tuple[int, int]  # the first and the last row or column; they may lie outside
Window = tuple[Span, Span]


def receptive_field(net: Net, node: str, row: int, column: int) -> Window:
    """The rows and columns of the input that one place of a node's output depends on.

    Args:
        node: with an output [P, Q, K].
        row, column: the place.

    Returns: for rows and for columns the first and the last; they may lie outside the image, where
    windows overhang.
    """
    needed = ancestors(net.nodes, node)
    windows: dict[str, Window] = {node: ((row, row), (column, column))}
    for one in reversed([each for each in net.nodes if each.name in needed]):
        if one.name not in windows:
            continue
        below = _below(one.layer, windows[one.name])
        for name in input_names(one):
            windows[name] = _union(windows[name], below) if name in windows else below
    return windows[INPUT]


def _below(layer: Layer, window: Window) -> Window:
    """What of its input a layer needs for a part of its output."""
    size, stride = getattr(layer, "size", None), getattr(layer, "stride", None)
    if isinstance(size, tuple) and isinstance(stride, tuple):
        pads = getattr(layer, "pad", (0, 0))
        rows, columns = (
            (first * by - pad, last * by - pad + extent - 1)
            for (first, last), extent, by, pad in zip(window, size, stride, pads, strict=True)
        )
        return rows, columns
    shape = layer.in_shape
    here = layer.out_shape
    same = len(shape) == 3 and len(here) == 3 and tuple(shape[:2]) == tuple(here[:2])
    if same or not shape or not isinstance(shape[0], int):  # a layer of several inputs
        return window
    return (0, shape[0] - 1), (0, (shape[1] if len(shape) > 1 else 1) - 1)


def _union(one: Window, other: Window) -> Window:
    rows, columns = ((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(one, other, strict=True))
    return rows, columns
