"""Crop, mirror, colour noise and mean, from bytes to float."""

from __future__ import annotations

from dataclasses import dataclass

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops


@dataclass(frozen=True)
class Case:
    name: str
    x_shape: tuple[int, int, int, int]
    crop: tuple[int, int]
    low: int = 0  # offsets are drawn from low ... high
    high: int = 0
    channel_mean: bool = False

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("whole-picture", (3, 6, 5, 3), (6, 5)),
    Case("crops", (4, 9, 8, 3), (6, 5), 0, 3),
    Case("one-channel", (3, 8, 8, 1), (5, 7), 0, 1),
    Case("four-channels", (2, 7, 6, 4), (5, 4), 0, 2),
    Case("one-pixel-crop", (5, 4, 3, 3), (1, 1), 0, 2),
    Case("channel-mean", (3, 8, 8, 3), (6, 6), 0, 2, channel_mean=True),
    Case("outside-on-all-sides", (8, 6, 7, 3), (6, 7), -3, 3),
    Case("outside-channel-mean", (6, 5, 5, 3), (6, 4), -2, 2, channel_mean=True),
    Case("crop-larger-than-picture", (4, 4, 3, 3), (9, 11), -4, 2),
    Case("several-blocks", (9, 40, 38, 3), (32, 33), 0, 5),
)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def problem(rng, case: Case, mean_as=cases.integers):
    """(x, offsets, mirror, mean): both values of mirror occur where there are two images."""
    n, h, w, c = case.x_shape
    x = rng.integers(0, 256, case.x_shape).astype(np.uint8)
    offsets = rng.integers(case.low, case.high + 1, (n, 2)).astype(np.int32)
    mirror = (np.arange(n) % 2).astype(np.uint8)
    mean = mean_as(rng, (1, 1, c) if case.channel_mean else (h, w, c))
    return x, offsets, mirror, mean


@every_case
def test_exact_on_integers(backend, rng, case):
    arrays = problem(rng, case)
    noise = cases.integers(rng, (case.x_shape[0], case.x_shape[3]))
    for options in ({}, {"noise": noise}, {"noise": noise, "scale": 0.25}):
        y = check.call(backend, ops.augment, *arrays, crop=case.crop, **options)
        check.equal(y, reference.augment(*arrays, crop=case.crop, **options))


@every_case
def test_on_floats(backend, rng, case):
    x, offsets, mirror, mean = problem(rng, case, mean_as=cases.floats)
    noise = cases.floats(rng, (case.x_shape[0], case.x_shape[3]))
    options = {"crop": case.crop, "noise": noise, "scale": 1 / 255}
    y = check.call(backend, ops.augment, x, offsets, mirror, mean, **options)
    largest = (255 + abs(noise).max() + abs(mean).max()) / 255
    check.close(y, reference.augment(x, offsets, mirror, mean, **options), largest, 3)


def test_mirror_flips_the_crop_and_not_the_image(backend):
    x = np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1)
    zero = np.zeros((1, 1, 1), np.float32)
    offsets, mirror = np.array([[0, 1]], np.int32), np.array([1], np.uint8)
    y = check.call(backend, ops.augment, x, offsets, mirror, zero, crop=(1, 3))
    check.equal(y.ravel(), np.array([3, 2, 1]))


def test_the_mean_moves_with_the_image(backend, rng):
    """Subtracted at the place a pixel came from: an image equal to the mean becomes zero."""
    x = rng.integers(0, 256, (1, 7, 8, 3)).astype(np.uint8)
    images = np.repeat(x, 4, axis=0)
    offsets = rng.integers(-2, 3, (4, 2)).astype(np.int32)
    mirror, mean = np.array([0, 1, 2, 255], np.uint8), x[0].astype(np.float32)
    y = check.call(backend, ops.augment, images, offsets, mirror, mean, crop=(6, 6))
    check.equal(y, np.zeros((4, 6, 6, 3)))


@pytest.mark.parametrize("far", [2**31 - 1, -(2**31), 2**30])
def test_a_crop_far_outside_is_all_mean(backend, far):
    x = np.full((2, 4, 4, 3), 200, np.uint8)
    offsets = np.array([[far, 0], [0, far]], np.int32)
    mirror, mean = np.array([0, 1], np.uint8), np.zeros((1, 1, 3), np.float32)
    y = check.call(backend, ops.augment, x, offsets, mirror, mean, crop=(4, 4))
    check.equal(y, np.zeros((2, 4, 4, 3)))


def test_unaligned_arrays(backend, rng):
    arrays = problem(rng, CASES[1])
    for y in check.calls_on_unaligned(backend, ops.augment, *arrays, crop=(6, 5)):
        check.equal(y, reference.augment(*arrays, crop=(6, 5)))


QUARTER = np.array([[0, 1], [-1, 0]], np.float32)  # of a turn
TURNS = (np.eye(2), QUARTER, -np.eye(2), np.eye(2) / 2, 2 * QUARTER, [[1, 0.5], [0, 1]])


@every_case
def test_turns_and_sizes_exactly(backend, rng, case):
    """Places on pixels and between them by halves and quarters, which float32 holds exactly."""
    x, offsets, mirror, mean = problem(rng, case)
    n = len(x)
    turns = [TURNS[(i + len(case.name)) % len(TURNS)] for i in range(n)]
    noise = cases.integers(rng, (n, case.x_shape[3]))
    options = {"affine": np.array(turns, np.float32), "noise": noise, "scale": 0.25}
    y = check.call(backend, ops.augment, x, offsets, mirror, mean, crop=case.crop, **options)
    check.equal(y, reference.augment(x, offsets, mirror, mean, crop=case.crop, **options))


@every_case
def test_turns_and_sizes_on_floats(backend, rng, case):
    x, offsets, mirror, mean = problem(rng, case, mean_as=cases.floats)
    affine = (np.eye(2) + rng.uniform(-0.7, 0.7, (len(x), 2, 2))).astype(np.float32)
    options = {"crop": case.crop, "affine": affine, "scale": 1 / 255}
    y = check.call(backend, ops.augment, x, offsets, mirror, mean, **options)
    # A place is wrong by some roundings of its size, and the result by as much of a step of v.
    largest = 2 * (255 + abs(mean).max()) / 255 * sum((*case.x_shape[1:3], *case.crop))
    check.close(y, reference.augment(x, offsets, mirror, mean, **options), largest, 4)


@every_case
def test_the_identity_is_the_crop(backend, rng, case):
    arrays = problem(rng, case, mean_as=cases.floats)
    affine = np.tile(np.eye(2, dtype=np.float32), (case.x_shape[0], 1, 1))
    options = {"crop": case.crop, "scale": 1 / 255}
    crop = check.call(backend, ops.augment, *arrays, **options)
    check.same_bits(check.call(backend, ops.augment, *arrays, affine=affine, **options), crop)


@pytest.mark.parametrize("far", [2**31 - 1, -(2**31), 2**30])
def test_turned_far_outside_is_all_mean_and_nan_stays_nan(backend, far):
    x = np.full((3, 4, 4, 3), 200, np.uint8)
    offsets = np.array([[far, 0], [0, far], [0, 0]], np.int32)
    mirror, mean = np.array([0, 1, 0], np.uint8), np.zeros((1, 1, 3), np.float32)
    affine = np.tile(np.float32([[0.5, 0.5], [-3e38, 1]]), (3, 1, 1))
    affine[2] = [[1, 0], [np.nan, 1]]
    y = check.call(backend, ops.augment, x, offsets, mirror, mean, crop=(4, 4), affine=affine)
    check.equal(y[:2], np.zeros((2, 4, 4, 3)))
    assert np.isnan(y[2]).all()
