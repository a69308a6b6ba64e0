"""Nearest neighbours against the plain loop over all pairs in float64, ties by the row's number."""

from __future__ import annotations

import numpy as np
import pytest

from convnet.common.typecheck import ConfigError
from convnet.data import DataError
from convnet.retrieval import knn
from convnet.retrieval.knn import Euclidean, nearest_codes


def engines() -> list[str]:
    try:
        knn.require_faiss()
    except ConfigError:
        return ["numpy"]
    return ["numpy", "faiss"]


def plain(q: np.ndarray, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    squares = np.square(x.astype(np.float64)[None] - q[:, None]).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return order, np.sqrt(np.take_along_axis(squares, order, axis=1))


def rows_of(x: np.ndarray):
    return lambda first, last: x[first:last]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch):
    """Blocks of a few rows and queries, so that results are put together from many."""

    def choose(rows: int, size: int, queries: int) -> None:
        monkeypatch.setattr(knn, "_BLOCK_BYTES", 4 * rows * size)
        monkeypatch.setattr(knn, "_QUERIES", queries)
        monkeypatch.setattr(knn, "_PAIRS", 5 * size)

    return choose


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("kind", ["normal", "integers", "far from 0", "copies"])
def test_euclidean_is_exact(rng: np.random.Generator, small_blocks, engine: str, kind: str) -> None:
    """Also where |x|^2/2 - q.x in float32 has no digit left of the distance."""
    for trial in range(15):
        count, size, queries = (int(n) for n in rng.integers((1, 1, 1), (200, 40, 60)))
        x = rng.standard_normal((count, size)) * 10.0 ** rng.integers(-3, 4)
        if kind == "integers":
            x = rng.integers(-2, 3, (count, size))
        elif kind == "far from 0":
            x = 1000 + 1e-3 * rng.standard_normal((count, size))
        elif kind == "copies":
            x = x[rng.integers(0, 3, count) % count]
        x = x.astype(np.float32)
        noise = 1e-4 * rng.standard_normal((queries, size)) * (trial % 2)
        q = (x[rng.integers(0, count, queries)] + noise).astype(np.float32)
        small_blocks(int(rng.integers(1, 64)), size, int(rng.integers(1, 40)))
        k = int(rng.integers(1, min(count, 12) + 1))
        found = Euclidean(count, rows_of(x), engine).nearest(q, k)
        indices, distances = plain(q, x, k)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_array_equal(found.distances, distances)


def test_float32_alone_would_be_wrong(rng: np.random.Generator) -> None:
    """The case above that needs candidates and float64."""
    x = (1000 + 1e-3 * rng.standard_normal((500, 16))).astype(np.float32)
    q = x[:50]
    scores = np.square(x).sum(axis=1) / 2 - q @ x.T
    naive = np.argsort(scores, axis=1, kind="stable")[:, :3]
    assert (naive != plain(q, x, 3)[0]).any()
    assert (Euclidean(500, rows_of(x)).nearest(q, 3).indices == plain(q, x, 3)[0]).all()


class RoughFaiss:
    """A library whose distances have lost what float32 loses of |q|^2 - 2 q.x + |x|^2."""

    @staticmethod
    def knn(q: np.ndarray, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        far = np.square(q).sum(1)[:, None] - 2 * q @ x.T + np.square(x).sum(1)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(far, order, 1), order


def test_what_faiss_loses_is_made_good(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, small_blocks
) -> None:
    monkeypatch.setattr(knn, "require_faiss", RoughFaiss)
    small_blocks(100, 16, 30)
    x = (1000 + 1e-3 * rng.standard_normal((500, 16))).astype(np.float32)
    found = Euclidean(500, rows_of(x), "faiss").nearest(x[:50], 3)
    np.testing.assert_array_equal(found.indices, plain(x[:50], x, 3)[0])


def test_a_second_search_uses_the_lengths_of_the_first(rng: np.random.Generator) -> None:
    x = rng.standard_normal((50, 7)).astype(np.float32)
    search = Euclidean(50, rows_of(x))
    first = search.nearest(x[:5], 4)
    second = search.nearest(x[:5], 4)
    np.testing.assert_array_equal(first.distances, second.distances)
    np.testing.assert_array_equal(first.indices[:, 0], np.arange(5))


@pytest.mark.parametrize("bytes_", [1, 3, 8, 16, 33])
def test_codes_are_exact(rng: np.random.Generator, small_blocks, bytes_: int) -> None:
    for high in (3, 256):
        codes = rng.integers(0, high, (300, bytes_), np.uint8)
        q = rng.integers(0, high, (150, bytes_), np.uint8)
        small_blocks(37 * 64, 8, 8)
        bits = np.unpackbits(codes[None] ^ q[:, None], axis=-1).sum(axis=-1)
        for k in (1, 10, 300):
            order = np.argsort(bits, axis=1, kind="stable")[:, :k]
            found = nearest_codes(q, codes, k)
            np.testing.assert_array_equal(found.indices, order)
            np.testing.assert_array_equal(found.distances, np.take_along_axis(bits, order, 1))


def test_popcount_without_numpy_2(monkeypatch: pytest.MonkeyPatch, rng) -> None:
    words = rng.integers(0, 2**63, (4, 3), np.int64).astype(np.uint64)
    expected = [[bin(int(word)).count("1") for word in row] for row in words]
    np.testing.assert_array_equal(knn._popcount(words), expected)
    if hasattr(np, "bitwise_count"):
        monkeypatch.delattr(np, "bitwise_count")
    np.testing.assert_array_equal(knn._popcount(words), expected)


def test_what_is_refused(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rng.standard_normal((5, 3)).astype(np.float32)
    search = Euclidean(5, rows_of(x))
    for k in (0, 6):
        with pytest.raises(DataError, match=f"k: expected 1 to 5, the images there are, got {k}"):
            search.nearest(x, k)
        with pytest.raises(DataError, match="k: expected 1 to 5"):
            nearest_codes(np.zeros((1, 2), np.uint8), np.zeros((5, 2), np.uint8), k)
    with pytest.raises(DataError, match="expected vectors of 3 numbers, got 2"):
        search.nearest(x[:, :2], 1)
    with pytest.raises(DataError, match="codes: expected queries of 2 bytes, got 1"):
        nearest_codes(np.zeros((1, 1), np.uint8), np.zeros((5, 2), np.uint8), 1)
    for bad in (np.nan, np.inf, 1e20):
        worse = x.copy()
        worse[3, 1] = bad
        with pytest.raises(DataError, match="rows from 0 on: expected finite numbers"):
            Euclidean(5, rows_of(worse)).nearest(x, 1)
        with pytest.raises(DataError, match="queries: expected finite numbers"):
            search.nearest(worse, 1)
    with pytest.raises(ConfigError, match="engine: expected numpy or faiss, got 'annoy'"):
        Euclidean(5, rows_of(x), "annoy")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'convnet-kernels\[faiss\]'"):
        Euclidean(5, rows_of(x), "faiss")
