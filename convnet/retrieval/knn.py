"""Nearest neighbours, exact: by Euclidean distance, in blocks, and by Hamming distance.

Euclidean distances of all pairs come from products of matrices in float32, |x|^2/2 - q.x. Where x
and q are close, the difference cancels, so these numbers only choose candidates: all rows that
could be among the nearest by the bound of the rounding error. The distances of the candidates are
then computed as they are written, in float64. The result is that of the plain loop over all pairs,
ties in the order of the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convnet.common import distribution
from convnet.common.typecheck import ConfigError
from convnet.data.dataset import DataError

Vectors = npt.NDArray[np.float32]

_UNIT = 2.0**-24  # of float32 rounding
_BLOCK_BYTES = 1 << 25  # of the rows of a block
_QUERIES = 512  # at a time
_PAIRS = 1 << 22  # numbers of candidates that are looked at together
_TIE = 1 << 40  # above every row number
_MOST_BITS = 1 << 16  # above every number of bits that differ


class Neighbours(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64 [Q, k].
        distances: float64 [Q, k]: Euclidean, or the number of bits that differ.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


def require_faiss() -> Any:
    """The faiss module; raises ConfigError where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SWIG, about itself
        return distribution.require("faiss", "faiss", "engine")


class Euclidean:
    """Search among rows by Euclidean distance.

    Args:
        count: how many rows there are, N.
        rows: gives rows first .. last - 1, float32 [last - first, D]; asked for blocks in order,
            and for single ones.
        engine: "numpy", or "faiss" to let that library choose the candidates; the result is the
            same.

    The lengths of the rows are kept from the first search on (8 N bytes).

    Raises: ConfigError: an unknown engine, or one that is not installed.
    """

    def __init__(
        self, count: int, rows: Callable[[int, int], Vectors], engine: str = "numpy"
    ) -> None:
        if engine not in ("numpy", "faiss"):
            raise ConfigError(f"engine: expected numpy or faiss, got {engine!r}")
        self._faiss = require_faiss() if engine == "faiss" else None
        self.count, self.rows = count, rows
        self._halves: dict[int, npt.NDArray[np.float64]] = {}

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """The k rows with the smallest distance from each query.

        Args:
            queries: float32 [Q, D]. k: 1 .. N.

        Raises:
            DataError: k out of range, lengths that differ, or numbers that are not finite (or so
                large that their squares are not).
        """
        _check_k(k, self.count)
        queries = np.ascontiguousarray(queries, np.float32)
        size = queries.shape[1]
        block = max(1, min(self.count, _BLOCK_BYTES // (4 * size)))
        parts = [queries[i : i + _QUERIES] for i in range(0, len(queries), _QUERIES)]
        lengths = [_lengths(part, "queries") for part in parts]
        pools = [_Pool(len(part), k) for part in parts]
        error = _relative_error(size)
        for first in range(0, self.count, block):
            x = np.ascontiguousarray(self.rows(first, min(first + block, self.count)), np.float32)
            if x.shape[1] != size:
                raise DataError(f"queries: expected vectors of {x.shape[1]} numbers, got {size}")
            half = self._half_squares(first, x)
            longest = float(np.sqrt(2 * half.max()))
            for part, length, pool in zip(parts, lengths, pools, strict=True):
                if self._faiss is not None:
                    _ask_faiss(self._faiss, part, length, x, longest, error, pool, first)
                    continue
                scores = part @ x.T
                np.subtract(half.astype(np.float32), scores, out=scores)
                pool.add(scores, error * longest * (length + longest), first)
        results = [
            _ranked(part, pool, self.rows, k) for part, pool in zip(parts, pools, strict=True)
        ]
        return Neighbours(*(np.concatenate(each) for each in zip(*results, strict=True)))

    def _half_squares(self, first: int, x: Vectors) -> npt.NDArray[np.float64]:
        """|x|^2 / 2 of the rows of a block."""
        half = self._halves.get(first)
        if half is None or len(half) != len(x):
            half = self._halves[first] = _lengths(x, f"rows from {first} on") ** 2 / 2
        return half


def _check_k(k: int, count: int) -> None:
    if not 1 <= k <= count:
        raise DataError(f"k: expected 1 to {count}, the images there are, got {k}")


def _lengths(x: Vectors, what: str) -> npt.NDArray[np.float64]:
    """The Euclidean norms of the rows."""
    squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    if not squares.max(initial=0.0) < 1e37:  # also NaN
        raise DataError(f"{what}: expected finite numbers below 1e18, got others")
    norms: npt.NDArray[np.float64] = np.sqrt(squares)
    return norms


def _relative_error(size: int) -> float:
    """What a score may be off, over |x| (|q| + |x|).

    A sum of D products in any order is off by at most D u / (1 - D u) of the sum of their
    magnitudes, which |q| |x| bounds; the rest is for rounding |x|^2/2 and the difference.
    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    return size * _UNIT / (1 - size * _UNIT) + 6 * _UNIT


class _Pool:
    """Rows that may be among the nearest of some queries.

    `best` holds k upper bounds of scores of different rows for each query, so that the largest of
    them, `bound`, is one of the k-th smallest score.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.best = np.full((queries, k), np.inf)
        self._held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # query, row, least score

    @property
    def bound(self) -> npt.NDArray[np.float64]:
        return self.best.max(axis=1)

    def add(
        self,
        scores: npt.NDArray[np.float32],
        margin: npt.NDArray[np.float64],
        first: int,
        columns: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Scores [Q, M] that are off by `margin` [Q] at most, of the rows from `first` on, or of
        those in `columns` [Q, M]."""
        width = scores.shape[1]
        if not np.isfinite(self.best).all() and width > self.k:
            some = np.partition(scores, self.k - 1, axis=1)[:, : self.k]
            self._lower(some + margin[:, None])
            limit = (self.bound + margin)[:, None]
            query, column = np.nonzero(scores <= limit)
        else:
            limit = (self.bound + margin)[:, None]
            query, column = np.nonzero(scores <= limit)
            self._lower(_dense(query, scores[query, column], len(scores)) + margin[:, None])
        found = scores[query, column].astype(np.float64)
        row = first + column if columns is None else columns[query, column]
        self._held.append((query, row, found - margin[query]))

    def _lower(self, upper: npt.NDArray[np.float64]) -> None:
        together = np.concatenate([self.best, upper], axis=1)
        self.best = np.partition(together, self.k - 1, axis=1)[:, : self.k]

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """(query, row) of what may be among the nearest, by query and then by row."""
        query, row, least = (np.concatenate(each) for each in zip(*self._held, strict=True))
        keep = least <= self.bound[query]
        query, row = query[keep], row[keep]
        order = np.lexsort((row, query))
        return query[order], row[order]


def _dense(
    query: np.ndarray, values: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.float64]:
    """Values by query, [count, most of any query], filled up with infinity. `query` is sorted."""
    numbers = np.bincount(query, minlength=count)
    starts = np.cumsum(numbers) - numbers
    table = np.full((count, int(numbers.max(initial=0))), np.inf)
    table[query, np.arange(len(query)) - starts[query]] = values
    return table


def _ask_faiss(
    faiss: Any,
    queries: Vectors,
    length: npt.NDArray[np.float64],
    x: Vectors,
    longest: float,
    error: float,
    pool: _Pool,
    first: int,
) -> None:
    """Adds the rows of a block that faiss finds nearest: so many that no other can be as near.

    Its squared distances are off by at most `error` times (|q| + |x|)^2, however it adds them up.
    """
    margin = error * (length + longest) ** 2
    want = min(len(x), pool.k + 8)
    while True:
        squares, index = faiss.knn(queries, x, want)
        scores = (squares.astype(np.float64) - (length**2)[:, None]) / 2
        if want == len(x):
            break
        upper = np.partition(
            np.concatenate([pool.best, scores + margin[:, None]], axis=1), pool.k - 1, axis=1
        )[:, : pool.k].max(axis=1)
        if (scores[:, -1] - margin > upper).all():
            break
        want = min(len(x), 4 * want)
    order = np.argsort(index, axis=1)
    index = np.take_along_axis(index, order, axis=1).astype(np.int64) + first
    pool.add(np.take_along_axis(scores, order, axis=1), margin, first, index)


def _ranked(
    queries: Vectors, pool: _Pool, rows: Callable[[int, int], Vectors], k: int
) -> Neighbours:
    """The k nearest candidates, by their distances in float64."""
    query, row = pool.candidates()
    squares = np.empty(len(row))
    step = max(1, _PAIRS // queries.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        x = _gathered(rows, row[part]).astype(np.float64)
        squares[part] = np.square(x - queries[query[part]]).sum(axis=1)
    order = np.lexsort((row, squares, query))
    query, row, squares = query[order], row[order], squares[order]
    starts = np.searchsorted(query, np.arange(len(queries)))
    places = starts[:, None] + np.arange(k)
    return Neighbours(row[places], np.sqrt(squares[places]))


def _gathered(rows: Callable[[int, int], Vectors], wanted: npt.NDArray[np.int64]) -> Vectors:
    """Single rows, [len(wanted), D]; each is read once."""
    different, back = np.unique(wanted, return_inverse=True)
    return np.concatenate([rows(int(i), int(i) + 1) for i in different])[back]


# ---- codes ---------------------------------------------------------------------------------------


def nearest_codes(
    queries: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8], k: int
) -> Neighbours:
    """The k codes that differ from each query in the fewest bits.

    Args:
        queries: uint8 [Q, bytes]. codes: uint8 [N, bytes]. k: 1 .. N.

    Raises: DataError: k out of range, or codes of different lengths, or too long.
    """
    _check_k(k, len(codes))
    if queries.shape[1] != codes.shape[1]:
        raise DataError(
            f"codes: expected queries of {codes.shape[1]} bytes, got {queries.shape[1]}"
        )
    if 8 * codes.shape[1] >= _MOST_BITS:
        raise DataError(f"codes: expected fewer than {_MOST_BITS} bits, got {8 * codes.shape[1]}")
    wanted = _words(queries)
    block = max(1, _BLOCK_BYTES // (8 * wanted.shape[1]) // max(1, min(len(queries), 64)))
    best = np.full((len(queries), k), np.iinfo(np.int64).max)
    for first in range(0, len(codes), block):
        x = _words(codes[first : first + block])
        for start in range(0, len(queries), 64):
            part = slice(start, start + 64)
            for at, bits in enumerate(_differing(wanted[part], x), start):
                best[at] = _merged(best[at], bits, first, k)
    return Neighbours(best % _TIE, (best // _TIE).astype(np.float64))


def _merged(
    best: npt.NDArray[np.int64], bits: np.ndarray, first: int, k: int
) -> npt.NDArray[np.int64]:
    """The k smallest of what was found before and of a block, as bits * 2^40 + row, sorted.

    Of equal distances the row that comes first wins, so a later block must be nearer.
    """
    limit = int(best[-1]) // _TIE
    if limit > _MOST_BITS and len(bits) > k:  # nothing found yet
        limit = int(np.searchsorted(np.cumsum(np.bincount(bits)), k)) + 1
    column = np.flatnonzero(bits < min(limit, _MOST_BITS))
    keys = np.concatenate([best, bits[column].astype(np.int64) * _TIE + (first + column)])
    if len(keys) > 4 * k:
        keys = np.partition(keys, k - 1)[:k]
    keys.sort()
    return keys[:k]


def _words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Bytes as words of 64 bits, filled up with zeros."""
    count, size = codes.shape
    padded = np.zeros((count, -(-size // 8) * 8), np.uint8)
    padded[:, :size] = codes
    return padded.view(np.uint64)


def _differing(queries: npt.NDArray[np.uint64], x: npt.NDArray[np.uint64]) -> Iterator[np.ndarray]:
    """For each query, how many bits differ from each row: whole numbers [N]."""
    for one in queries:
        counts = _popcount(one ^ x)
        yield counts[:, 0] if x.shape[1] == 1 else counts.sum(axis=1, dtype=np.int32)


_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _popcount(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Bits set in each word."""
    if hasattr(np, "bitwise_count"):
        counts: npt.NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    split = _BITS[words.view(np.uint8)].reshape(*words.shape, 8)  # NumPy 1
    return split.sum(axis=-1, dtype=np.uint8)
