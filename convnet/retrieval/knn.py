"""Exact nearest neighbours by Euclidean and by Hamming distance, a block of rows at a time.

Within a block, Euclidean distances come from a matrix product in float32, |x|^2/2 - q.x. Where x
and q are close the difference cancels, so these scores only choose candidates: every row that could
be among the nearest by the bound of the rounding error. The distances of the candidates are then
computed in float64, as written. The result is that of the plain loop over all pairs; of equal
distances the row that comes first wins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convnet.common import distribution
from convnet.common.typecheck import ConfigError
from convnet.data.dataset import mismatch

Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

_UNIT = 2.0**-24  # of float32 rounding
_BLOCK_BYTES = 1 << 25  # of the rows of a block
_QUERIES = 512  # at a time
_PAIRS = 1 << 22  # numbers of candidates that are looked at together


class Neighbours(NamedTuple):
    """The nearest rows of each query, nearest first.

    Attributes:
        indices: int64 [Q, k].
        distances: float64 [Q, k]: Euclidean, or the number of bits that differ.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


class _Nearest:
    """The k nearest rows so far of each of some queries, by (distance, row)."""

    def __init__(self, queries: int, k: int) -> None:
        self.rows = np.full((queries, k), np.iinfo(np.int64).max)
        self.distances = np.full((queries, k), np.inf)

    @property
    def limit(self) -> npt.NDArray[np.float64]:
        """float64 [Q, 1]: a row that is farther away is none of the k nearest."""
        return self.distances[:, -1:]

    def add(self, query: np.ndarray, row: np.ndarray, distance: np.ndarray) -> None:
        """Candidates: the number of a query, a row and their distance in each place."""
        count, k = self.rows.shape
        query = np.concatenate([np.repeat(np.arange(count), k), query])
        row = np.concatenate([self.rows.ravel(), row])
        distance = np.concatenate([self.distances.ravel(), distance])
        order = np.lexsort((row, distance, query))
        first = np.searchsorted(query[order], np.arange(count))
        best = order[first[:, None] + np.arange(k)]
        self.rows, self.distances = row[best], distance[best]


def _check_k(k: int, count: int) -> None:
    if not 1 <= k <= count:
        raise mismatch("k", f"1 to {count}, the images there are", k)


# ---- vectors -------------------------------------------------------------------------------------


def require_faiss() -> Any:
    """The faiss module; raises ConfigError where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SWIG, about itself
        return distribution.require("faiss", "faiss", "engine")


class Euclidean:
    """Search among rows by Euclidean distance.

    Args:
        count: how many rows there are, N.
        rows: gives rows first .. last - 1, float32 [last - first, D]; asked for blocks in order.
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
        self._lengths: dict[int, npt.NDArray[np.float64]] = {}

    def nearest(self, queries: Vectors, k: int) -> Neighbours:
        """The k rows with the smallest distance from each query.

        Args:
            queries: float32 [Q, D].
            k: 1 .. N.

        Raises:
            DataError: k out of range, lengths that differ, or numbers that are not finite (or so
                large that their squares are not).
        """
        _check_k(k, self.count)
        queries = np.ascontiguousarray(queries, np.float32)
        lengths = _norms(queries, "queries")
        parts = [slice(i, i + _QUERIES) for i in range(0, len(queries), _QUERIES)]
        found = [_Nearest(len(queries[part]), k) for part in parts]
        for first, x in self._blocks(queries.shape[1]):
            length = self._lengths.get(first)
            if length is None or len(length) != len(x):
                length = self._lengths[first] = _norms(x, f"rows from {first} on")
            for part, nearest in zip(parts, found, strict=True):
                q = queries[part]
                query, row = self._candidates(q, lengths[part, None], x, length, nearest)
                nearest.add(query, first + row, _squares(q, query, x, row))
        return Neighbours(
            np.concatenate([nearest.rows for nearest in found]),
            np.sqrt(np.concatenate([nearest.distances for nearest in found])),
        )

    def _blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        block = max(1, _BLOCK_BYTES // (4 * size))
        for first in range(0, self.count, block):
            x = np.ascontiguousarray(self.rows(first, min(first + block, self.count)), np.float32)
            if x.shape[1] != size:
                raise mismatch("queries", f"vectors of {x.shape[1]} numbers", size)
            yield first, x

    def _candidates(
        self,
        q: Vectors,
        q_length: npt.NDArray[np.float64],
        x: Vectors,
        x_length: npt.NDArray[np.float64],
        nearest: _Nearest,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(query, row of x) of all pairs that may be among the nearest.

        A score (|x - q|^2 - |q|^2) / 2 may be off by `error` (|x| + |q|)^2. A sum of D products in
        any order is off by at most D u / (1 - D u) of the sum of their magnitudes, which |q| |x|
        bounds; the rest is for rounding |x|^2/2 and the difference.
        Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
        """
        k, unit = nearest.rows.shape[1], q.shape[1] * _UNIT
        error = unit / (1 - unit) + 6 * _UNIT
        if self._faiss is not None:
            margin = error * (q_length + x_length.max()) ** 2
        else:
            margin = error * x_length.max() * (q_length + x_length.max())
        limit = (nearest.limit - q_length**2) / 2
        if self._faiss is None:
            scores = q @ x.T
            np.subtract((x_length**2 / 2).astype(np.float32), scores, out=scores)
            if len(x) > k and not np.isfinite(limit).all():
                limit = np.minimum(limit, np.partition(scores, k - 1)[:, k - 1 : k] + margin)
            query, row = np.nonzero(scores <= limit + margin)
            return query, row
        want = min(len(x), k + 8)
        while True:  # until no row beyond those it gives can be as near
            squares, rows = self._faiss.knn(q, x, want)
            scores = (squares.astype(np.float64) - q_length**2) / 2
            if want >= k:
                limit = np.minimum(limit, np.sort(scores)[:, k - 1 : k] + margin)
            if want == len(x) or (scores[:, -1:] - margin > limit).all():
                break
            want = min(len(x), 4 * want)
        query, place = np.nonzero(scores <= limit + margin)
        return query, rows[query, place]


def _norms(x: Vectors, what: str) -> npt.NDArray[np.float64]:
    """The Euclidean norms of the rows."""
    squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    if not squares.max(initial=0.0) < 1e37:  # also NaN
        raise mismatch(what, "finite numbers below 1e18", "others")
    norms: npt.NDArray[np.float64] = np.sqrt(squares)
    return norms


def _squares(q: Vectors, query: np.ndarray, x: Vectors, row: np.ndarray) -> npt.NDArray[np.float64]:
    """|x - q|^2 of each pair, in float64."""
    squares = np.empty(len(row))
    step = max(1, _PAIRS // q.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        squares[part] = np.square(x[row[part]].astype(np.float64) - q[query[part]]).sum(axis=1)
    return squares


# ---- codes ---------------------------------------------------------------------------------------


def nearest_codes(queries: Codes, codes: Codes, k: int) -> Neighbours:
    """The k codes that differ from each query in the fewest bits.

    Args:
        queries: uint8 [Q, bytes].
        codes: uint8 [N, bytes].
        k: 1 .. N.

    Raises:
        DataError: k out of range, or codes of different lengths, or of 65,536 bits and more.
    """
    _check_k(k, len(codes))
    size = codes.shape[1]
    if queries.shape[1] != size:
        raise mismatch("codes", f"queries of {size} bytes", queries.shape[1])
    if 8 * size >= 1 << 16:
        raise mismatch("codes", f"fewer than {1 << 16} bits", 8 * size)
    found = [_Nearest(1, k) for _ in queries]
    block = max(1, _BLOCK_BYTES // (64 * size))  # what one query takes stays in the cache
    for first in range(0, len(codes), block):
        x = np.ascontiguousarray(_words(codes[first : first + block]).T)  # sums are along columns
        for query, nearest in zip(_words(queries), found, strict=True):
            bits = _popcount(query[:, None] ^ x).sum(axis=0, dtype=np.uint16)
            limit = nearest.limit[0, 0]
            if len(bits) > k and not np.isfinite(limit):
                limit = np.searchsorted(np.cumsum(np.bincount(bits)), k)
            row = np.flatnonzero(bits <= limit)
            row = row[np.argsort(bits[row], kind="stable")[:k]]
            nearest.add(np.zeros(len(row), np.int64), first + row, bits[row])
    rows = [np.empty((0, k), np.int64), *(nearest.rows for nearest in found)]
    distances = [np.empty((0, k)), *(nearest.distances for nearest in found)]
    return Neighbours(np.concatenate(rows), np.concatenate(distances))


def _words(codes: Codes) -> npt.NDArray[np.uint64]:
    """Bytes as words of 64 bits, filled up with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


_BITS = np.array([byte.bit_count() for byte in range(256)], np.uint8)


def _popcount(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Bits set in each word."""
    if hasattr(np, "bitwise_count"):
        counts: npt.NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    split = _BITS[words.view(np.uint8)].reshape(*words.shape, 8)  # NumPy 1
    return split.sum(axis=-1, dtype=np.uint8)
