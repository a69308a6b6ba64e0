"""AllGather: the node that brings channels from several devices together on one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.backend import Backend
from convnet.layers.layer import Array, Gradients, Layer, Shape
from convnet.parallel.p2p import Links


@dataclass(frozen=True)
class Columns:
    """Channels that a node on `device` holds, as a part of what is gathered.

    Attributes:
        node: whose output they come from.
        device: where that is.
        width: channels of that output.
        first, count: which of them is the first to be taken, and how many are.
        at: where they go.
    """

    node: str
    device: Backend
    width: int
    first: int
    count: int
    at: int


class AllGather(Layer):
    """Columns of several inputs side by side, some of them from another device.

    Args:
        name: of the value, for errors.
        device: where the result is.
        columns: of which inputs, one for each.
        width: channels of the result.
        shape: of the result, without the batch; it may have several rows of channels.
        links: between the devices.

    bprop hands each input its columns of dy; where an input has others too, those are zeros.
    """

    traced = True
    multi_input = True

    def __init__(
        self,
        name: str,
        device: Backend,
        columns: Sequence[Columns],
        width: int,
        shape: Shape,
        links: Links,
    ) -> None:
        super().__init__()
        self.name, self.device, self.columns, self.links = name, device, tuple(columns), links
        self.width, self.out_shape, self.in_shape = width, shape, shape

    def fprop(self, x: list[Array], train: bool) -> tuple[Array, list[Shape]]:
        here = backend.of(x[0]).beside(self.device)
        y = here.empty((x[0].shape[0], *self.out_shape), x[0].dtype)
        rows = y.reshape(-1, self.width)
        for part, array in zip(self.columns, x, strict=True):
            source = array.reshape(-1, part.width)
            link = self._link(part.device, self.device)
            link(self.name, rows, part.at, source, part.first, part.count)
        return y, [array.shape for array in x]

    def bprop(self, saved: list[Shape], dy: Array) -> tuple[list[Array], Gradients]:
        rows, found = dy.reshape(-1, self.width), []
        for part, shape in zip(self.columns, saved, strict=True):
            there = backend.of(dy).beside(part.device)
            make = there.empty if part.count == part.width else there.zeros
            dx = make(shape, dy.dtype)
            link, target = self._link(self.device, part.device), dx.reshape(-1, part.width)
            link(f"gradient of {self.name}", target, part.first, rows, part.at, part.count)
            found.append(dx)
        return found, []

    def _link(self, source: Backend, target: Backend) -> Callable[..., Any]:
        """The copy of columns, as `Link.copy`; without checksums within a device."""
        if source is not target:
            return self.links.between(source, target).copy
        return lambda _, dst, dst_col, src, src_col, cols: ops.peer_copy(
            dst, src, dst_col=dst_col, src_col=src_col, cols=cols
        )

    @property
    def rows(self) -> int:
        """Rows of channels that one sample has."""
        return int(np.prod(self.out_shape)) // self.width

    def crossing(self, batch: int, wanted: Collection[str], itemsize: int = 4) -> tuple[int, int]:
        """Bytes that come from other devices in a step of this batch, and gradients sent back:
        those of the nodes that are `wanted`. `itemsize`: of an activation."""
        remote = [part for part in self.columns if part.device is not self.device]
        sizes = {part: itemsize * batch * self.rows * part.count for part in remote}
        back = sum(size for part, size in sizes.items() if part.node in wanted)
        return sum(sizes.values()), back
