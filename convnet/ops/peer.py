"""Transfers between devices."""

from __future__ import annotations

from convnet.backend import Array, Backend
from convnet.ops.call import call, device_of


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
    """Copy all of src into dst.

    Args:
        dst, src: of the same shape, on the same device.

    Returns:
        dst.

    Raises:
        ValueError: their shapes differ, or they are on different backends.
    """
    device_of("copy", dst, src)
    shape = getattr(src, "shape", ())
    if not shape or getattr(dst, "shape", None) != shape:
        raise ValueError(
            f"copy: dst: expected shape {shape}, got {getattr(dst, 'shape', type(dst).__name__)}"
        )
    peer_copy(dst.reshape(shape[0], -1), src.reshape(shape[0], -1))
    return dst


def peer_add(
    dst: Array, src: Array, *, dst_col: int = 0, src_col: int = 0, cols: int | None = None
) -> Array:
    """As `peer_copy`, adding to what is in dst.

    Args:
        dst, src, dst_col, src_col, cols: as in `peer_copy`.

    Returns:
        dst.
    """
    return _peer("peer_add", dst, src, dst_col, src_col, cols, True)


def peer_checksum(
    src: Array,
    count: Array,
    checksum: Array,
    target: Backend,
    *,
    src_col: int = 0,
    cols: int | None = None,
) -> None:
    """At the source of a transfer: counts it and writes its checksum where the target looks.

    ``count[0] += 1; checksum = (count[0], sum of the words of the block modulo 2^32)``

    Args:
        src: [rows, S], of which columns src_col .. src_col + cols - 1 travel (default: the rest).
        count: uint32 [1] on the source.
        checksum: uint32 [2] on the target.
        target: the device it goes to.

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    if not isinstance(target, Backend):
        raise ValueError(f"peer_checksum: target: expected a backend, got {type(target).__name__}")
    source = device_of("peer_checksum", src)
    block = src_col, cols, source.index, target.index
    call("peer_checksum", src, count, checksum, *block, device=source)


def peer_check(
    src: Array,
    count: Array,
    checksum: Array,
    aborted: Array,
    code: int,
    *,
    src_col: int = 0,
    cols: int | None = None,
) -> None:
    """At the target: counts the transfer too and compares its checksum with what arrived.

    ``count[0] += 1``, and where the checksum is not (count[0], sum of the words of the block), and
    aborted[0] is 0: ``aborted[0] = code``.

    Args:
        src: [rows, S], with the block in columns src_col .. src_col + cols - 1.
        count: uint32 [1], checksum: uint32 [2] and aborted: uint32 [1], all on the target.
        code: of the transfer, not 0.
    """
    device = device_of("peer_check", src)
    block = src_col, cols, device.index
    call("peer_check", src, count, checksum, aborted, code, *block, device=device)


def peer_abort(aborted: Array, other: Array) -> None:
    """Aborts where another device has: where aborted[0] is 0, ``aborted[0] = other[0]``.

    Args:
        aborted: uint32 [1], on the device that this runs on.
        other: uint32 [1], on the other one.
    """
    device, source = device_of("peer_abort", aborted), device_of("peer_abort", other)
    call("peer_abort", aborted, other, source.index, device=device)


def _peer(
    op: str, dst: Array, src: Array, dst_col: int, src_col: int, cols: int | None, wait: bool
) -> Array:
    target, source = device_of(op, dst), device_of(op, src)
    if source.name != target.name:
        raise ValueError(f"{op}: src: expected an array on {target.name}, got {source.name}")
    # The source's device pushes, when the other is done with what was in dst; what the other does
    # next waits for it.
    if wait:
        source.wait_for(target)
    columns = src_col, dst_col, cols
    call(op, src, dst, *columns, source.index, target.index, device=source)
    if wait:
        target.wait_for(source)
    return dst
