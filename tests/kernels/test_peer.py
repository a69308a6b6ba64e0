"""Blocks of columns between two matrices, as between the halves of a net on two devices."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest

from convnet import ops

# rows, columns of dst and src, first columns on either side, columns copied
BLOCKS = [
    (1, 1, 1, 0, 0, 1),
    (5, 8, 4, 0, 0, 4),
    (5, 8, 4, 4, 0, 4),
    (7, 13, 11, 2, 3, 5),
    (3, 6, 9, 0, 1, 6),
    (33, 65, 130, 32, 65, 33),
    (1500, 96, 48, 48, 0, 48),
]
blocks = pytest.mark.parametrize(
    ("rows", "dst_cols", "src_cols", "dst_col", "src_col", "cols"), BLOCKS
)


def matrices(backend, rng, rows, dst_cols, src_cols):
    """(guarded dst, src on the backend, both on the host)"""
    dst, src = cases.integers(rng, (rows, dst_cols)), cases.integers(rng, (rows, src_cols))
    guard = check.Guarded(backend, dst.shape, dst.dtype)
    guard.array[...] = backend.asarray(dst)
    return guard, backend.asarray(src.copy()), dst, src


@blocks
@pytest.mark.parametrize("op", [ops.peer_copy, ops.peer_add])
def test_block(backend, rng, op, rows, dst_cols, src_cols, dst_col, src_col, cols):
    guard, source, dst, src = matrices(backend, rng, rows, dst_cols, src_cols)
    result = op(guard.array, source, dst_col=dst_col, src_col=src_col, cols=cols)
    assert result is guard.array
    block = src[:, src_col : src_col + cols]
    expected = dst.copy()
    if op is ops.peer_add:
        block = block + dst[:, dst_col : dst_col + cols]
    expected[:, dst_col : dst_col + cols] = block
    check.equal(guard.check(), expected)
    check.equal(np.array(backend.to_host(source)), src)


def test_by_default_the_whole_source(backend, rng):
    guard, source, dst, src = matrices(backend, rng, 4, 9, 5)
    ops.peer_copy(guard.array, source, dst_col=4)
    check.equal(guard.check(), np.concatenate([dst[:, :4], src], axis=1))


def test_two_halves_make_a_whole(backend, rng):
    whole = cases.floats(rng, (6, 10))
    halves = [np.ascontiguousarray(whole[:, :4]), np.ascontiguousarray(whole[:, 4:])]
    guard = check.Guarded(backend, whole.shape, whole.dtype)
    for half, first in zip(halves, (0, 4), strict=True):
        ops.peer_copy(guard.array, backend.asarray(half), dst_col=first)
    check.same_bits(guard.check(), whole)


def test_unaligned_arrays(backend, rng):
    src, dst = cases.integers(rng, (5, 7)), cases.integers(rng, (5, 9))
    target = check.unaligned(backend, dst)
    ops.peer_add(target, check.unaligned(backend, src), dst_col=1)
    expected = dst.copy()
    expected[:, 1:8] += src
    check.equal(np.array(backend.to_host(target)), expected)
