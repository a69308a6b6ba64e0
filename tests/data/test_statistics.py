"""Mean and colour covariance against a plain float64 computation."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from convnet.data import ArrayDataset, Dataset, statistics, sums


def dataset(count: int = 50, shape: tuple[int, int, int] = (5, 4, 3), seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(shape[2], shape[2]))
    pixels = 120 + 30 * rng.normal(size=(count, *shape)) @ mix
    images = np.clip(pixels, 0, 255).astype(np.uint8)
    return ArrayDataset(images, np.zeros(count, int), ["a"])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_against_numpy(channels: int) -> None:
    data = dataset(shape=(5, 4, channels))
    x = data.read(range(50)).astype(np.float64)
    stats = statistics(data)
    assert stats.mean.dtype == np.float32
    np.testing.assert_array_equal(stats.mean, x.mean(axis=0).astype(np.float32))
    channel = statistics(data, "channel").mean
    np.testing.assert_allclose(channel, x.mean(axis=(0, 1, 2)).reshape(1, 1, -1), rtol=1e-7)
    covariance = np.cov(x.reshape(-1, channels).T / 255, bias=True).reshape(channels, channels)
    rebuilt = stats.eigenvectors @ np.diag(stats.eigenvalues) @ stats.eigenvectors.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-12)
    np.testing.assert_allclose(
        stats.eigenvectors.T @ stats.eigenvectors, np.eye(channels), atol=1e-12
    )
    assert (np.diff(stats.eigenvalues) <= 0).all()
    largest = np.abs(stats.eigenvectors).argmax(axis=0)
    assert (stats.eigenvectors[largest, np.arange(channels)] > 0).all()


def test_the_way_it_is_read_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(300, (9, 7, 3))
    whole = statistics(data)
    module = sys.modules["convnet.data.pixel_statistics"]
    monkeypatch.setattr(module, "_READ_BYTES", 1000)
    monkeypatch.setattr(sums, "_BLOCK", 17)
    order = np.random.default_rng(1).permutation(300)
    shuffled = ArrayDataset(data.read(order), data.labels, data.classes)
    for again in (statistics(data), statistics(shuffled)):
        for name in ("mean", "eigenvalues", "eigenvectors"):
            assert getattr(again, name).tobytes() == getattr(whole, name).tobytes()


def test_a_single_colour_has_no_noise() -> None:
    images = np.full((4, 3, 3, 3), (9, 200, 31), np.uint8)
    stats = statistics(ArrayDataset(images, np.zeros(4, int), ["a"]), "channel")
    assert stats.mean.reshape(-1).tolist() == [9, 200, 31]
    assert stats.eigenvalues.tolist() == [0, 0, 0]


def test_large_sums_do_not_round() -> None:
    images = np.full((2, 300, 300, 1), 255, np.uint8)
    images[0, 0, 0, 0] = 254
    stats = statistics(ArrayDataset(images, np.zeros(2, int), ["a"]))
    n = 2 * 300 * 300
    assert stats.eigenvalues[0] == pytest.approx((1 / n - 1 / n**2) / 255**2, rel=1e-12)


def test_nothing_is_read_where_nothing_is_asked() -> None:
    class Unreadable(ArrayDataset):
        def read(self, indices: object) -> np.ndarray:
            raise AssertionError("read")

    data = Unreadable(np.zeros((3, 4, 4, 2), np.uint8), np.zeros(3, int), ["a"])
    stats = statistics(data, "none", colour=False)
    assert stats.mean.tolist() == [[[0, 0]]]
    with pytest.raises(AssertionError, match="read"):
        statistics(data, "none")


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    statistics(dataset(20), progress=lambda done, count: seen.append((done, count)))
    assert seen[-1] == (20, 20)
