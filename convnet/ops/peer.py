"""Transfers between devices."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.arguments import backend_of, dims_of, whole_of


def peer_copy(
    dst: Array,
    src: Array,
    *,
    dst_col: int = 0,
    src_col: int = 0,
    cols: int | None = None,
    wait: bool = True,
) -> Array:
    """Copy a block of columns between devices (paper, section 3.2).

    Args:
        dst: [rows, D]. src: [rows, S].
        dst_col, src_col: first column on either side.
        cols: how many; by default all of src from src_col on.
        wait: order the copy with what both devices' streams do before and after; false leaves that
            to the caller.

    Returns:
        dst.
    """
    return _peer("peer_copy", dst, src, dst_col, src_col, cols, wait)


def copy(dst: Array, src: Array) -> Array:
    """Copy all of src into dst, an array of the same shape on the same device.

    Returns:
        dst.
    """
    shape = dims_of("copy", "src", src)
    if dims_of("copy", "dst", dst) != shape or not shape:
        raise ValueError(f"copy: dst: expected shape {shape}, got {dst.shape}")
    backend_of("copy", dst=dst, src=src)
    peer_copy(dst.reshape(shape[0], -1), src.reshape(shape[0], -1))
    return dst


def peer_add(
    dst: Array, src: Array, *, dst_col: int = 0, src_col: int = 0, cols: int | None = None
) -> Array:
    """As :func:`peer_copy`, adding to what is in dst."""
    return _peer("peer_add", dst, src, dst_col, src_col, cols, True)


def _peer(
    op: str, dst: Array, src: Array, dst_col: int, src_col: int, cols: int | None, wait: bool
) -> Array:
    for name, array in (("dst", dst), ("src", src)):
        dims_of(op, name, array, 2)
    be = backend_of(op, dst=dst)
    source = backend_of(op, src=src)
    if source.name != be.name:
        raise ValueError(f"{op}: src: expected an array on {be.name}, got {source.name}")
    dst_col, src_col = whole_of(op, "dst_col", dst_col), whole_of(op, "src_col", src_col)
    cols = src.shape[1] - src_col if cols is None else whole_of(op, "cols", cols)
    # The source's device pushes, when the other is done with what was in dst; what the other does
    # next waits for it.
    if wait:
        source.wait_for(be)
    stream = source.stream()
    getattr(be.module, op)(src, dst, src_col, dst_col, cols, source.index, be.index, stream)
    if wait:
        be.wait_for(source)
    return dst
