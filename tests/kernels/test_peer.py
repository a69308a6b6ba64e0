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
    (5, 4, 4, 0, 0, 4),
    (5, 8, 7, 0, 0, 5),
    (5, 7, 8, 0, 0, 5),
    (7, 13, 11, 2, 3, 5),
    (3, 6, 9, 0, 1, 6),
    (33, 65, 130, 32, 65, 33),
    (1500, 96, 48, 48, 0, 48),
]
blocks = pytest.mark.parametrize(
    ("rows", "dst_cols", "src_cols", "dst_col", "src_col", "cols"), BLOCKS
)


def matrices(backend, rng, rows, dst_cols, src_cols):
    """(guarded dst, guarded src, both on the host)"""
    dst, src = cases.integers(rng, (rows, dst_cols)), cases.integers(rng, (rows, src_cols))
    return check.Guarded.of(backend, dst), check.Guarded.of(backend, src), dst, src


@blocks
@pytest.mark.parametrize("op", [ops.peer_copy, ops.peer_add])
def test_block(backend, rng, op, rows, dst_cols, src_cols, dst_col, src_col, cols):
    guard, source, dst, src = matrices(backend, rng, rows, dst_cols, src_cols)
    result = op(guard.array, source.array, dst_col=dst_col, src_col=src_col, cols=cols)
    assert result is guard.array
    block = src[:, src_col : src_col + cols]
    expected = dst.copy()
    if op is ops.peer_add:
        block = block + dst[:, dst_col : dst_col + cols]
    expected[:, dst_col : dst_col + cols] = block
    check.equal(guard.check(), expected)
    check.equal(source.check(), src)


def test_by_default_the_whole_source(backend, rng):
    guard, source, dst, src = matrices(backend, rng, 4, 9, 5)
    ops.peer_copy(guard.array, source.array, dst_col=4)
    check.equal(guard.check(), np.concatenate([dst[:, :4], src], axis=1))


def test_two_halves_make_a_whole(backend, rng):
    whole = cases.floats(rng, (6, 10))
    halves = [np.ascontiguousarray(whole[:, :4]), np.ascontiguousarray(whole[:, 4:])]
    guard = check.Guarded(backend, whole.shape, whole.dtype)
    for half, first in zip(halves, (0, 4), strict=True):
        ops.peer_copy(guard.array, backend.asarray(half), dst_col=first)
    check.same_bits(guard.check(), whole)


def test_unaligned_arrays(backend, rng):
    src, dst = cases.integers(rng, (5, 8)), cases.integers(rng, (5, 16))
    expected = dst.copy()
    expected[:, 4:12] += src
    for shifts in ((0, 1), (1, 0), (1, 1)):
        target, source = (
            check.Guarded.of(backend, array, shift=shift)
            for array, shift in zip((dst, src), shifts, strict=True)
        )
        ops.peer_add(target.array, source.array, dst_col=4)
        check.equal(target.check(), expected)
        check.equal(source.check(), src)


# ---- checksums ----------------------------------------------------------------------------------


def words_of(backend, *numbers):
    return backend.asarray(np.array(numbers, np.uint32))


def read(backend, array):
    return np.array(backend.to_host(array)).tolist()


def summed(backend, src, src_col=0, cols=None, count=0):
    """(count, checksum) after a block has been summed."""
    words = np.array([count], np.uint32), np.array([77, 77], np.uint32)
    source, counted, checksum = (check.Guarded.of(backend, array) for array in (src, *words))
    with check.guarded_workspace(backend, "nan"):
        ops.peer_checksum(
            source.array, counted.array, checksum.array, backend, src_col=src_col, cols=cols
        )
    check.same_bits(source.check(), src)
    return counted.check().tolist(), checksum.check().tolist()


def checked(backend, src, checksum, count=0, aborted=0, code=9, **columns):
    """(count, aborted) after a block has been compared with a checksum."""
    words = (np.array(numbers, np.uint32) for numbers in ([count], checksum, [aborted]))
    source, *words = (check.Guarded.of(backend, array) for array in (src, *words))
    with check.guarded_workspace(backend, "nan"):
        ops.peer_check(source.array, *(word.array for word in words), code, **columns)
    counted, _, aborted = (word.check().tolist() for word in words)
    return counted, aborted


def word_sum(block):
    return int(np.ascontiguousarray(block).view(np.uint32).sum(dtype=np.uint32))


@pytest.mark.parametrize(
    ("rows", "width", "first", "cols"),
    [
        (1, 1, 0, 1),
        (5, 4, 0, 4),
        (7, 13, 2, 5),
        (33, 65, 64, 1),
        (300, 96, 48, 48),
        (2, 4000, 1, 3999),
        (9, 5000, 0, 5000),
    ],
)
def test_checksum_and_check(backend, rng, rows, width, first, cols):
    src = cases.floats(rng, (rows, width))
    total = word_sum(src[:, first : first + cols])
    count, checksum = summed(backend, src, first, cols, count=41)
    assert count == [42]
    assert checksum == [42, total]
    place = {"src_col": first, "cols": cols}
    assert checked(backend, src, checksum, count=41, **place) == ([42], [0])
    for wrong in ([41, total], [43, total], [42, total ^ 1], [0, 0]):
        assert checked(backend, src, wrong, count=41, **place) == ([42], [9])
    assert checked(backend, src, [0, 0], count=41, aborted=3, **place) == ([42], [3])
    assert checked(backend, src, checksum, count=41, aborted=3, **place) == ([42], [3])
    other = src.copy()
    other[rows - 1, first + cols - 1] += 1
    assert checked(backend, other, checksum, count=41, **place) == ([42], [9])


def test_counts_wrap_around(backend, rng):
    src = cases.floats(rng, (3, 4))
    count, checksum = summed(backend, src, count=2**32 - 1)
    assert count == [0]
    assert checked(backend, src, checksum, count=2**32 - 1) == ([0], [0])


@pytest.mark.parametrize(("ours", "theirs", "then"), [(0, 0, 0), (0, 5, 5), (4, 5, 4), (4, 0, 4)])
def test_abort(backend, ours, theirs, then):
    aborted, other = words_of(backend, ours), words_of(backend, theirs)
    ops.peer_abort(aborted, other)
    assert read(backend, aborted) == [then]
    assert read(backend, other) == [theirs]


def test_checksums_that_do_not_fit(backend):
    src, word, checksum = backend.zeros((3, 4)), words_of(backend, 0), words_of(backend, 0, 0)
    with pytest.raises(ValueError, match="peer_checksum: count: expected"):
        ops.peer_checksum(src, checksum, words_of(backend, 0, 0), backend)
    with pytest.raises(ValueError, match="peer_checksum: cols: expected between 1 and 4"):
        ops.peer_checksum(src, word, checksum, backend, cols=5)
    with pytest.raises(ValueError, match="peer_check: src_col: expected between 0 and 3"):
        ops.peer_check(src, word, checksum, words_of(backend, 0), 1, src_col=4, cols=1)
    with pytest.raises(ValueError, match="peer_check: code: expected 1 to"):
        ops.peer_check(src, word, checksum, words_of(backend, 0), 0)
