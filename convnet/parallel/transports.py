"""Transports: the ways by which a link carries a block of numbers; see `convnet.parallel.p2p`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Array, Backend


class Direct:
    """A kernel on the source that stores into the target's memory: "peer", or "loopback" where both
    are logical devices of the host."""

    def __init__(self, source: Backend) -> None:
        self.name = "loopback" if source.name == "cpu" else "peer"

    def copy(self, dst: Array, dst_col: int, src: Array, src_col: int, cols: int) -> None:
        """Columns of src [rows, S] into columns of dst [rows, D]."""
        ops.peer_copy(dst, src, dst_col=dst_col, src_col=src_col, cols=cols)


class HostStaged:
    """Through one of two slots of host memory, which are used in turn."""

    name = "host-staged"

    def __init__(self, source: Backend, target: Backend) -> None:
        self.source, self.target = source, target
        self._slots: list[Any] = [None, None]
        self._count = 0

    def copy(self, dst: Array, dst_col: int, src: Array, src_col: int, cols: int) -> None:
        """As `Direct.copy`. In a trace, a call of Python."""
        traced = getattr(dst, "traced_on", None)
        if traced is None:
            self._copy(src, dst, src_col, dst_col, cols)
        else:
            columns = {"src_col": src_col, "dst_col": dst_col, "cols": cols}
            traced.note_python(self._copy, {"src": src}, {"dst": dst}, columns)

    def _copy(self, src: Array, dst: Array, src_col: int, dst_col: int, cols: int) -> None:
        self._count += 1
        if self.source.name == "cuda":
            return self._copy_cuda(src, dst, src_col, dst_col, cols)
        slot = self._slot((src.shape[0], cols), src.dtype, np.empty)
        np.copyto(slot, self.source.to_host(src)[:, src_col : src_col + cols])
        np.copyto(self.target.to_host(dst)[:, dst_col : dst_col + cols], slot)
        return None

    def _slot(self, shape: tuple[int, int], dtype: Any, make: Callable[..., Any]) -> Any:
        """This transfer's slot, as an array of that shape and type."""
        size = shape[0] * shape[1] * dtype.itemsize
        held = self._slots[self._count % 2]
        if held is None or held.size < size:
            held = self._slots[self._count % 2] = make(size, np.uint8)
        return held[:size].view(dtype).reshape(shape)

    def _copy_cuda(self, src: Array, dst: Array, src_col: int, dst_col: int, cols: int) -> None:
        """The blocks are packed and unpacked by kernels of their own device, as copies between host
        and device want memory without gaps. The host waits: this is the slow way, for pairs of
        devices that have no other."""
        block = src[:, src_col : src_col + cols]
        with self.source.active():
            packed = self.source.xp.ascontiguousarray(block)
            slot = self._slot(block.shape, block.dtype, self.source.pinned)
            packed.get(out=slot)
        with self.target.active():
            arrived: Any = self.target.empty(block.shape, block.dtype)
            arrived.set(slot)
            dst[:, dst_col : dst_col + cols] = arrived
            self.target.current_stream().synchronize()


Transport = Direct | HostStaged


def transport_works(transport: Any, source: Backend, target: Backend) -> bool:
    """Whether a pattern arrives whole at the target, as one long row and as a block of columns."""
    words = np.arange(37 * 1031, dtype=np.uint32) * np.uint32(2654435761)
    pattern = (words >> np.uint32(9)).astype(np.float32).reshape(37, 1031)
    src = source.asarray(pattern)
    for first, cols in ((0, 1031), (5, 514)):
        dst = target.zeros(pattern.shape)
        expected = np.zeros_like(pattern)
        expected[:, first : first + cols] = pattern[:, 1031 - cols :]
        try:
            source.synchronize()
            target.synchronize()
            with source.active():
                transport.copy(dst, first, src, 1031 - cols, cols)
            source.synchronize()
            target.synchronize()
        except (RuntimeError, ValueError):
            return False
        if not np.array_equal(target.to_host(dst), expected):
            return False
    return True
