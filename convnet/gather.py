"""Gather: the node that brings channels from several devices together on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Backend
from convnet.changes import changed
from convnet.layer import Array, Layer, Shape
from convnet.links import Link, Links, Transfer


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


# Bytes of a slice of what travels forward, and the most slices there are: what reads the value
# begins when the first one is there. Smaller ones would cost more in launches than they hide.
SLICE_BYTES, MOST_SLICES = 1 << 18, 4


class Arriving:
    """An array of which parts may still be on their way.

    Args:
        array: [N, ...].
        transfers: (first, last + 1, transfers) of cases that travel together, in order.

    Attributes:
        in_slices: whether there are several of those.
    """

    def __init__(
        self, array: Array, transfers: Sequence[tuple[int, int, list[tuple[Link, Transfer]]]]
    ) -> None:
        self.array, self._transfers = array, list(transfers)
        self.in_slices = len(self._transfers) > 1

    def slices(self) -> Iterator[tuple[int, int]]:
        """First and last + 1 of cases, slice by slice, as they arrive. Raises: LinkError."""
        while self._transfers:
            first, last, transfers = self._transfers.pop(0)
            for link, transfer in transfers:
                link.finish(transfer)
            yield first, last

    def finish(self) -> Array:
        """The array, once all of it is there. Raises: LinkError."""
        for _ in self.slices():
            pass
        return self.array


class Part:
    """Columns of a gradient on their way to the node that they are of.

    Args:
        slot: [N, ...] of that node's shape, where they arrive; its other columns are zeros.
        width, at, cols: its columns in all, the first that comes, and how many do.
        link, transfer: how they travel.
    """

    def __init__(
        self, slot: Array, width: int, at: int, cols: int, link: Link, transfer: Transfer
    ) -> None:
        self._slot, self._columns = slot, (width, at, cols)
        self._link, self._transfer = link, transfer

    def add_to(self, dy: Array | None) -> Array:
        """Adds them, once they are there, to what there is of the gradient. Raises: LinkError."""
        self._link.finish(self._transfer)
        if dy is None:
            return self._slot
        width, at, cols = self._columns
        rows, slot = dy.reshape(-1, width), self._slot.reshape(-1, width)
        ops.peer_add(rows, slot, dst_col=at, src_col=at, cols=cols)
        return dy


def arrived(value: Array | Arriving) -> Array:
    """The array itself, whether or not it had to be waited for."""
    return value.finish() if isinstance(value, Arriving) else value


class Gather(Layer):
    """Columns of several inputs side by side, some of them from another device.

    Args:
        name: of the value, for errors.
        device: where the result is.
        pieces: of which inputs, one for each.
        width: channels of the result.
        shape: of the result, without the batch; it may have several rows of channels.
        links: between the devices.

    fprop sends what is remote in slices of the batch, so that a layer above can compute the cases
    that are there. bprop hands each input its columns of dy; those for another device travel into
    one of two slots there, which are used in turn. Once they have been checked there, `peer_add`
    adds them to what that device has of its own.
    """

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
        self.wanted = [True] * len(self.pieces)  # which inputs want a gradient
        self._turn = 0

    def setup(self, in_shape: Any, rng: np.random.Generator) -> Shape:
        return self.out_shape

    def fprop(self, x: list[Array], train: bool) -> Arriving:
        """What is remote sets out here and has arrived when `Arriving.finish` returns."""
        count = x[0].shape[0]
        with self.device.active():
            y = self._own_buffer("y", (count, *self.out_shape))
        self.saved = [array.shape for array in x] if train else None
        rows, remote = y.reshape(-1, self.width), []
        for piece, array in zip(self.pieces, x, strict=True):
            source = array.reshape(-1, piece.width)
            if piece.device is self.device:
                ops.peer_copy(rows, source, dst_col=piece.at, src_col=piece.first, cols=piece.cols)
            else:
                remote.append((piece, source))
        return Arriving(y, [self._send(*part, rows, remote) for part in self._slices(count)])

    def _slices(self, count: int) -> list[tuple[int, int]]:
        """First and last + 1 of the cases that travel together."""
        parts = max(1, min(MOST_SLICES, count, self.crossing(count)[0] // SLICE_BYTES))
        return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]

    def _send(
        self, first: int, last: int, rows: Array, remote: Sequence[tuple[Piece, Array]]
    ) -> tuple[int, int, list[tuple[Link, Transfer]]]:
        """Begins the transfers of some cases."""
        part = slice(first * self.rows, last * self.rows)
        transfers = []
        for piece, source in remote:
            link = self.links.between(piece.device, self.device)
            block = (rows[part], piece.at, source[part], piece.first, piece.cols)
            transfers.append((link, link.start(self.name, *block)))
        return first, last, transfers

    def bprop(self, dy: Array) -> list[Any]:
        rows = dy.reshape(-1, self.width)
        self._turn += 1
        return [
            self._return(index, piece, rows, shape) if self.wanted[index] else None
            for index, (piece, shape) in enumerate(zip(self.pieces, self.recall(), strict=True))
        ]

    def _return(self, index: int, piece: Piece, rows: Array, shape: Shape) -> Array | Part:
        """The gradient of one input, or the promise of it."""
        local = piece.device is self.device
        turn = 0 if local else self._turn % 2
        with piece.device.active():
            dx = self._own_buffer(f"dx{index}.{turn}", shape, piece.device)
            if piece.cols != piece.width:
                ops.copy(dx, self._own_buffer(f"zeros{index}", shape, piece.device, fill=0.0))
        target = dx.reshape(-1, piece.width)
        if local:
            ops.peer_copy(target, rows, dst_col=piece.first, src_col=piece.at, cols=piece.cols)
            return dx
        link = self.links.between(self.device, piece.device)
        what = f"gradient of {self.name}"
        sent = link.start(what, target, piece.first, rows, piece.at, piece.cols)
        return Part(dx, piece.width, piece.first, piece.cols, link, sent)

    def _own_buffer(
        self, name: str, shape: Shape, device: Backend | None = None, fill: float = np.nan
    ) -> Array:
        """As `buffer`, but on a device that may not be that of the input, and filled when made."""
        held = self._buffers.get(name)
        if held is None or held.shape[1:] != shape[1:] or held.shape[0] < shape[0]:
            changed()
            held = self._buffers[name] = (device or self.device).empty(shape)
            # Fresh memory may hold what an earlier net received there: a write that is lost would
            # then not be missed.
            held.fill(fill)
        return held if held.shape[0] == shape[0] else held[: shape[0]]

    @property
    def rows(self) -> int:
        """Rows of channels that one case has."""
        return int(np.prod(self.out_shape)) // self.width

    def crossing(self, batch: int) -> tuple[int, int]:
        """Bytes that come from other devices in a step of this batch, and gradients sent back."""
        sizes = [
            (4 * batch * self.rows * piece.cols, wanted)
            for piece, wanted in zip(self.pieces, self.wanted, strict=True)
            if piece.device is not self.device
        ]
        return sum(size for size, _ in sizes), sum(size for size, wanted in sizes if wanted)

    def output_bytes(self, batch: int) -> int:
        return 4 * batch * self.rows * self.width

    def gradient_bytes(self, batch: int) -> int:
        return sum(self.gradient_bytes_on(device, batch) for device in self.links.devices)

    def gradient_bytes_on(self, device: Backend, batch: int) -> int:
        """Of the gradients for nodes on one device: what travels there has two slots, and where
        not all columns do there are zeros to begin with."""
        slots = 1 if device is self.device else 2
        return sum(
            4 * batch * self.rows * piece.width * (slots + (piece.cols != piece.width))
            for piece, wanted in zip(self.pieces, self.wanted, strict=True)
            if wanted and piece.device is device
        )

    def describe(self) -> str:
        return "gather"
