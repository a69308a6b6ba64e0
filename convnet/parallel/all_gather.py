"""Gather: the node that brings channels from several devices together on one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.backend import Backend
from convnet.layers.layer import Array, Gradients, Layer, Shape
from convnet.parallel.p2p import Links


@dataclass(frozen=True)
class Piece:
    """Channels that a node on `device` holds, as a part of what is gathered.

    Attributes:
        node: whose output they come from.
        device: where that is.
        width: channels of that output.
        first: which of them is the first to be taken.
        cols: how many are.
        at: where they go.
    """

    node: str
    device: Backend
    width: int
    first: int
    cols: int
    at: int


class Gather(Layer):
    """Columns of several inputs side by side, some of them from another device.

    Args:
        name: of the value, for errors.
        device: where the result is.
        pieces: of which inputs, one for each.
        width: channels of the result.
        shape: of the result, without the batch; it may have several rows of channels.
        links: between the devices.

    bprop hands each input its columns of dy; where an input has others too, those are zeros.
    """

    traced = True
    several_inputs = True

    def __init__(
        self,
        name: str,
        device: Backend,
        pieces: Sequence[Piece],
        width: int,
        shape: Shape,
        links: Links,
    ) -> None:
        super().__init__()
        self.name, self.device, self.pieces, self.links = name, device, tuple(pieces), links
        self.width, self.out_shape, self.in_shape = width, shape, shape

    def setup(self, in_shape: Any, rng: np.random.Generator) -> Shape:
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, list[Shape]]:
        here = backend.of(x[0]).beside(self.device)
        y = here.empty((x[0].shape[0], *self.out_shape))
        rows = y.reshape(-1, self.width)
        for piece, array in zip(self.pieces, x, strict=True):
            source = array.reshape(-1, piece.width)
            self._copy(self.name, piece.device, source, piece.first, rows, piece.at, piece)
        return y, [array.shape for array in x]

    def bprop(self, saved: list[Shape], dy: Array) -> tuple[list[Array], Gradients]:
        rows, found = dy.reshape(-1, self.width), []
        for piece, shape in zip(self.pieces, saved, strict=True):
            there = backend.of(dy).beside(piece.device)
            dx = there.empty(shape) if piece.cols == piece.width else there.zeros(shape)
            what, target = f"gradient of {self.name}", dx.reshape(-1, piece.width)
            self._copy(what, self.device, rows, piece.at, target, piece.first, piece)
            found.append(dx)
        return found, []

    def _copy(
        self, what: str, source: Backend, src: Array, src_col: int, dst: Array, dst_col: int,
        piece: Piece,
    ) -> None:  # fmt: skip
        """The columns of a piece, within a device or over a link."""
        if piece.device is self.device:
            ops.peer_copy(dst, src, dst_col=dst_col, src_col=src_col, cols=piece.cols)
            return
        target = self.device if source is piece.device else piece.device
        link = self.links.between(source, target)
        link.copy(what, dst, dst_col, src, src_col, piece.cols)

    @property
    def rows(self) -> int:
        """Rows of channels that one sample has."""
        return int(np.prod(self.out_shape)) // self.width

    def crossing(self, batch: int, wanted: Collection[str]) -> tuple[int, int]:
        """Bytes that come from other devices in a step of this batch, and gradients sent back:
        those of the nodes that are `wanted`."""
        remote = [piece for piece in self.pieces if piece.device is not self.device]
        sizes = {piece: 4 * batch * self.rows * piece.cols for piece in remote}
        back = sum(size for piece, size in sizes.items() if piece.node in wanted)
        return sum(sizes.values()), back

    def describe(self) -> str:
        return "gather"
