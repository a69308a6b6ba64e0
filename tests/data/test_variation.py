"""Crops, mirrors, colour noise, turns and sizes: as in the paper, and of the image alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from loaders import PLAIN, VARIED, dataset

from convnet import ops
from convnet.config import AugmentConfig
from convnet.data import DataError, Loader, Statistics, statistics
from convnet.data.augment import (
    crop_size,
    draw_variation,
    normals,
)


def test_crops_and_mirrors_are_even() -> None:
    config = AugmentConfig(crop=(6, 7), pad=1, mirror=True)
    count = 60_000
    drawn = draw_variation(5, 2, np.arange(count), (8, 7, 3), config)
    assert drawn.offsets.dtype == np.int32
    assert drawn.mirror.dtype == np.uint8
    rows, cols, mirror = drawn.offsets[:, 0] + 1, drawn.offsets[:, 1] + 1, drawn.mirror
    # Rows -1 .. 3, columns -1 .. 1; all 5 * 3 * 2 outcomes together, so dependence shows too.
    hits = np.zeros((5, 3, 2))
    np.add.at(hits, (rows, cols, mirror), 1)
    expected = count / hits.size
    assert ((hits - expected) ** 2 / expected).sum() < 65  # 29 degrees of freedom
    assert drawn.noise is None


def test_every_crop_place_of_the_paper_occurs() -> None:
    config = AugmentConfig(crop=(224, 224))
    drawn = draw_variation(1, 0, np.arange(20_000), (256, 256, 3), config)
    for axis in (0, 1):
        assert set(drawn.offsets[:, axis].tolist()) == set(range(33))
    assert not drawn.mirror.any()


def test_crops_of_the_paper_are_even() -> None:
    """33 x 33 places and a mirror, all equally likely and independent (chi-squared)."""
    config = AugmentConfig(crop=(224, 224), mirror=True)
    drawn = draw_variation(9, 4, np.arange(217_800), (256, 256, 3), config)
    hits = np.zeros((33, 33, 2))
    np.add.at(hits, (drawn.offsets[:, 0], drawn.offsets[:, 1], drawn.mirror), 1)
    chi2 = ((hits - 100) ** 2 / 100).sum()  # 2177 degrees of freedom: 2177 +- 66
    assert 1900 < chi2 < 2500


def test_normals() -> None:
    drawn = normals(7, 0, np.arange(100_000), 6)
    assert drawn.shape == (100_000, 6)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.015)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(6), atol=0.02)
    np.testing.assert_allclose((drawn**4).mean(axis=0), 3, atol=0.15)
    for limit, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(drawn) < limit).mean() == pytest.approx(share, abs=0.003)


def test_noise_has_the_covariance_of_the_paper() -> None:
    """noise = 255 sum_i a_i lambda_i p_i with a_i ~ N(0, 0.1)."""
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    values = np.array([0.2, 0.02, 0.005])
    stats = Statistics(np.zeros((1, 1, 3), np.float32), values, vectors)
    config = AugmentConfig(colour_noise=0.1)
    noise = draw_variation(1, 0, np.arange(100_000), (8, 8, 3), config, stats).noise
    assert noise is not None
    assert noise.dtype == np.float32
    along = noise.astype(np.float64) @ vectors  # components along p_i
    np.testing.assert_allclose(along.std(axis=0), 25.5 * values, rtol=0.02)
    np.testing.assert_allclose(along.mean(axis=0) / (25.5 * values), 0, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.02)


def test_turns_and_sizes() -> None:
    """Angles are even within the range, sizes in their logarithm; what else is drawn stays."""
    config = replace(VARIED, scale=(0.5, 2.0), rotate=90.0, colour_noise=0.0)
    drawn = draw_variation(7, 2, np.arange(20_000), (8, 7, 3), config)
    assert drawn.affine is not None
    size = 1 / np.sqrt(np.linalg.det(drawn.affine.astype(np.float64)))
    angle = np.degrees(np.arctan2(drawn.affine[:, 1, 0], drawn.affine[:, 0, 0]))
    for found, low, high in ((np.log2(size), -1, 1), (angle, -90, 90)):
        np.testing.assert_allclose([found.min(), found.max()], [low, high], atol=0.001 * high)
        counts, _ = np.histogram(found, 10, (low, high))
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
    upright = draw_variation(7, 2, np.arange(20_000), (8, 7, 3), replace(config, rotate=0.0))
    assert upright.affine is not None
    np.testing.assert_allclose(upright.affine[:, 0, 0], 1 / size, rtol=1e-5)
    assert not upright.affine[:, 0, 1].any()
    plain = draw_variation(
        7, 2, np.arange(20_000), (8, 7, 3), replace(config, scale=(1, 1), rotate=0)
    )
    assert plain.affine is None
    np.testing.assert_array_equal(plain.offsets, drawn.offsets)
    np.testing.assert_array_equal(plain.mirror, drawn.mirror)


def test_variation_is_of_the_image_not_of_the_batch() -> None:
    stats = statistics(dataset())
    indices = np.array([4, 40, 7, 4])
    whole = draw_variation(1, 3, np.arange(50), (8, 7, 3), VARIED, stats)
    some = draw_variation(1, 3, indices, (8, 7, 3), VARIED, stats)
    for left, right in zip(whole, some, strict=True):
        assert left is not None
        np.testing.assert_array_equal(left[indices], right)
    other = draw_variation(1, 4, indices, (8, 7, 3), VARIED, stats)
    assert not np.array_equal(other.offsets, some.offsets)
    assert other.noise is not None
    assert not np.isclose(other.noise, some.noise).any()


def test_crop_size() -> None:
    assert crop_size((8, 7, 3), PLAIN) == (8, 7)
    assert crop_size((8, 7, 3), AugmentConfig(crop=(10, 9), pad=1)) == (10, 9)
    message = "augment.crop: width: expected at most 7 .*8x7, pad 0.*got 8"
    with pytest.raises(DataError, match=message):
        crop_size((8, 7, 3), AugmentConfig(crop=(8, 8)))


def test_augment_takes_a_batch_as_it_is() -> None:
    """The operation and the loader agree on what offsets, mirror and noise mean."""
    data = dataset()
    stats = statistics(data)
    upright = replace(VARIED, scale=(1.0, 1.0), rotate=0.0)
    made = Loader(data, 8, 1, upright, stats, train=True)
    batch = next(iter(made.epoch(0)))
    assert batch.affine is None
    y = ops.augment(
        batch.images,
        batch.offsets,
        batch.mirror,
        stats.mean,
        crop=made.out_shape[:2],
        noise=batch.noise,
        scale=0.5,
    )
    assert y.shape == (8, *made.out_shape)
    assert batch.noise is not None
    for n in range(8):
        changed = batch.images[n] + batch.noise[n] - stats.mean
        padded = np.pad(changed, ((1, 1), (1, 1), (0, 0)))
        top, left = batch.offsets[n] + 1
        crop = padded[top : top + 6, left : left + 5]
        expected = 0.5 * (crop[:, ::-1] if batch.mirror[n] else crop)
        np.testing.assert_allclose(y[n], expected, atol=1e-4)
