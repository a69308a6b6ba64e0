"""Transfers between devices."""

from __future__ import annotations

from convnet.backend import Array, Backend
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


def peer_stamp(
    src: Array,
    count: Array,
    stamp: Array,
    target: Backend,
    *,
    src_col: int = 0,
    cols: int | None = None,
) -> None:
    """At the source of a transfer: counts it and writes its stamp where the target looks.

    ``count[0] += 1; stamp = (count[0], sum of the words of the block modulo 2^32)``

    Args:
        src: [rows, S], of which columns src_col .. src_col + cols - 1 travel (default: the rest).
        count: uint32 [1] on the source.
        stamp: uint32 [2] on the target.
        target: the device it goes to.
    """
    be, cols = _block("peer_stamp", src, src_col, cols)
    if not isinstance(target, Backend):
        raise ValueError(f"peer_stamp: target: expected a backend, got {type(target).__name__}")
    space = be.workspace(be.module.peer_stamp_workspace())
    be.module.peer_stamp(
        src, count, stamp, src_col, cols, be.index, target.index, space, be.stream()
    )


def peer_check(
    src: Array,
    count: Array,
    stamp: Array,
    halt: Array,
    code: int,
    *,
    src_col: int = 0,
    cols: int | None = None,
) -> None:
    """At the target: counts the transfer too and compares its stamp with what arrived.

    ``count[0] += 1``, and where the stamp is not (count[0], sum of the words of the block), and
    halt[0] is 0: ``halt[0] = code``.

    Args:
        src: [rows, S], with the block in columns src_col .. src_col + cols - 1.
        count: uint32 [1], stamp: uint32 [2] and halt: uint32 [1], all on the target.
        code: of the transfer, not 0.
    """
    be, cols = _block("peer_check", src, src_col, cols)
    space = be.workspace(be.module.peer_stamp_workspace())
    code = whole_of("peer_check", "code", code, 1)
    be.module.peer_check(src, count, stamp, halt, code, src_col, cols, be.index, space, be.stream())


def peer_halt(halt: Array, other: Array) -> None:
    """Takes over a halt from another device: where halt[0] is 0, ``halt[0] = other[0]``.

    Args:
        halt: uint32 [1], on the device that this runs on. other: uint32 [1].
    """
    be, source = backend_of("peer_halt", halt=halt), backend_of("peer_halt", other=other)
    be.module.peer_halt(halt, other, source.index, be.stream())


def _block(op: str, src: Array, src_col: int, cols: int | None) -> tuple[Backend, int]:
    """The device and the columns of a block at one end of a transfer."""
    width = dims_of(op, "src", src, 2)[1]
    first = whole_of(op, "src_col", src_col)
    return backend_of(op, src=src), width - first if cols is None else whole_of(op, "cols", cols)


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
    getattr(source.module, op)(src, dst, src_col, dst_col, cols, source.index, be.index, stream)
    if wait:
        be.wait_for(source)
    return dst
