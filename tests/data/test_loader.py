"""The loader: what it draws from counters, what it reads, and how its thread ends."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from convnet import ops
from convnet.config import AugmentConfig
from convnet.data import ArrayDataset, Batch, DataError, Dataset, Loader, Statistics, statistics
from convnet.data.augment import (
    balanced_order,
    crop_size,
    draw_variation,
    epoch_order,
    normals,
)

PLAIN = AugmentConfig()
VARIED = AugmentConfig(
    crop=(6, 5), pad=1, mirror=True, colour_noise=0.1, scale=(0.5, 1.5), rotate=30.0
)


def dataset(count: int = 50, shape: tuple[int, int, int] = (8, 7, 3)) -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return ArrayDataset(images, np.arange(count) % 10, [str(i) for i in range(10)], "numbers")


def loader(count: int = 50, batch: int = 8, seed: int = 1, train: bool = True) -> Loader:
    data = dataset(count)
    return Loader(data, batch, seed, VARIED, statistics(data), train)


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "labels", "offsets", "mirror", "indices")
    arrays = [(getattr(a, name), getattr(b, name)) for name in names]
    if a.noise is not None or b.noise is not None:
        arrays += [(a.noise, b.noise), (a.affine, b.affine)]
    return all(np.array_equal(left, right) for left, right in arrays)


# ---- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1001])
def test_order_is_a_permutation(count: int) -> None:
    order = epoch_order(1, 0, count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [epoch_order(seed, epoch, 200).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(1, 1, 200).tolist() == orders[1]


def test_order_is_even() -> None:
    """Over many epochs every image comes at every place equally often (chi-squared)."""
    count, epochs = 8, 4000
    hits = np.zeros((count, count))
    for epoch in range(epochs):
        hits[np.arange(count), epoch_order(3, epoch, count)] += 1
    expected = epochs / count
    chi2 = ((hits - expected) ** 2 / expected).sum()  # 49 degrees of freedom
    assert chi2 < 95


def test_order_of_imagenet_takes_under_a_second() -> None:
    seconds = []
    for epoch in range(3):
        start = time.process_time()
        order = epoch_order(1, epoch, 1_281_167)
        seconds.append(time.process_time() - start)
        assert np.bincount(order).max() == 1
    assert min(seconds) < 1


# ---- crops, mirrors, noise -----------------------------------------------------------------------


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


# ---- epochs --------------------------------------------------------------------------------------


def test_training_epoch() -> None:
    made = loader(50, 8)
    batches = list(made.epoch(0))
    assert len(batches) == made.steps_per_epoch == 6
    indices = np.concatenate([batch.indices for batch in batches])
    assert len(set(indices.tolist())) == 48
    np.testing.assert_array_equal(indices, made.order(0)[:48])
    for batch in batches:
        assert len(batch) == 8
        np.testing.assert_array_equal(batch.images, made.dataset.read(batch.indices))
        np.testing.assert_array_equal(batch.labels, batch.indices % 10)
        assert batch.labels.dtype == np.int32
        assert batch.offsets.min() >= -1
        assert batch.offsets[:, 0].max() <= 3
        assert batch.offsets[:, 1].max() <= 3
    assert made.out_shape == (6, 5, 3)


def test_evaluation_epoch() -> None:
    made = loader(50, 8, train=False)
    batches = list(made.epoch())
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert made.steps_per_epoch == 7
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), np.arange(50))
    for batch in batches:
        np.testing.assert_array_equal(batch.offsets, np.tile([1, 1], (len(batch), 1)))
        assert not batch.mirror.any()
        assert batch.noise is None
    assert [len(b) for b in loader(5, 8, train=False).epoch()] == [5]


@pytest.mark.parametrize("train", [True, False])
def test_resuming_in_an_epoch_repeats_and_skips_nothing(train: bool) -> None:
    whole = [list(loader(train=train).epoch(epoch)) for epoch in range(3)]
    for epoch in range(3):
        for step in range(len(whole[0]) + 1):
            rest = list(loader(train=train).epoch(epoch, step))
            assert len(rest) == len(whole[epoch]) - step
            assert all(same(a, b) for a, b in zip(rest, whole[epoch][step:], strict=True))
    first = np.concatenate([b.indices for b in whole[0]])
    assert np.array_equal(first, np.concatenate([b.indices for b in whole[1]])) != train


@pytest.mark.parametrize("sizes", [(97, 2, 1), (5, 5, 5), (1, 30), (7, 0, 3)], ids=str)
def test_balanced_order(sizes: tuple[int, ...]) -> None:
    """Every class as often, but for what does not divide; all of a small class before any again."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count, present = len(labels), np.flatnonzero(sizes)
    orders = [balanced_order(3, epoch, labels) for epoch in range(40)]
    for order in orders:
        assert len(order) == count == len(set(order.tolist()))
        shown = np.bincount(order % count, minlength=count)
        each = np.bincount(labels, weights=shown, minlength=len(sizes))[present]
        assert set(each) <= {count // len(present), -(-count // len(present))}
        for label in present:
            assert np.ptp(shown[labels == label]) <= 1
        again = order[order % count == order[0] % count]
        assert sorted(again // count) == list(range(len(again)))
    assert len({tuple(order) for order in orders}) == len(orders)
    assert {int(i) for order in orders for i in order % count} == set(range(count))
    np.testing.assert_array_equal(balanced_order(3, 7, labels), orders[7])


def test_balanced_batches() -> None:
    """Ranks see their shares of the same batches, a resumed epoch the rest; an image that comes
    again is varied otherwise."""
    rare = ArrayDataset(dataset().images, np.arange(50) // 48, ["many", "few"], "numbers")

    def made(**options: object) -> Loader:
        return Loader(rare, 8, 1, VARIED, statistics(rare), train=True, balanced=True, **options)

    whole = list(made().epoch(1))
    assert all(same(a, b) for a, b in zip(made().epoch(1, 3), whole[3:], strict=True))
    for rank in range(2):
        half = slice(4 * rank, 4 * rank + 4)
        for part, batch in zip(
            made(share=lambda n, at=half: (at.start, at.stop)).epoch(1), whole, strict=True
        ):
            np.testing.assert_array_equal(part.indices, batch.indices[half])
            np.testing.assert_array_equal(part.affine, batch.affine[half])
    few = np.concatenate([batch.labels for batch in whole])
    assert 20 <= few.sum() <= 25
    indices = np.concatenate([batch.indices for batch in whole])
    affine = np.concatenate([batch.affine for batch in whole])[indices == 48]
    assert len(np.unique(affine, axis=0)) == len(affine) > 9
    np.testing.assert_array_equal(made().order(1)[:48], indices)


def test_seeds_differ_and_prefetch_does_not() -> None:
    assert not same(next(loader(seed=1).epoch(0)), next(loader(seed=2).epoch(0)))
    data = dataset()
    stats = statistics(data)
    runs = [list(Loader(data, 8, 1, VARIED, stats, True, prefetch=n).epoch(0)) for n in (1, 9)]
    assert all(same(a, b) for a, b in zip(*runs, strict=True))


def test_refuses() -> None:
    data = dataset()
    with pytest.raises(DataError, match=r"train.batch: expected at most 50.*got 51 \(numbers\)"):
        Loader(data, 51, 1, PLAIN, None, train=True)
    assert Loader(data, 51, 1, PLAIN, None, train=False).steps_per_epoch == 1
    with pytest.raises(DataError, match=r"augment.crop: height: expected at most 8 .*got 9"):
        Loader(data, 8, 1, AugmentConfig(crop=(9, 7)), None, train=False)
    noisy = AugmentConfig(colour_noise=0.1)
    with pytest.raises(DataError, match=r"colour_noise: expected colour statistics.*got none"):
        Loader(data, 8, 1, noisy, None, train=True)
    grey = statistics(dataset(shape=(8, 7, 1)))
    with pytest.raises(DataError, match=r"colour statistics of 3 channels, got those of 1"):
        Loader(data, 8, 1, noisy, grey, train=True)
    assert Loader(data, 8, 1, noisy, None, train=False).epoch()
    with pytest.raises(ValueError, match="batch and prefetch of at least 1, got 0 and 4"):
        Loader(data, 0, 1, PLAIN, None, train=True)
    made = loader()
    for epoch, step in ((-1, 0), (0, -1), (0, 7)):
        with pytest.raises(ValueError, match=r"expected an epoch >= 0 and a step in 0 .. 6"):
            made.epoch(epoch, step)


# ---- the thread ----------------------------------------------------------------------------------


class Slow(ArrayDataset):
    """Takes its time, counts, and may break."""

    def __init__(self, seconds: float = 0.0, breaks_at: int = -1) -> None:
        data = dataset()
        super().__init__(data.images, data.labels, data.classes)
        self.seconds, self.breaks_at, self.reads = seconds, breaks_at, 0

    def read(self, indices: object) -> np.ndarray:
        self.reads += 1
        time.sleep(self.seconds)
        if self.reads == self.breaks_at:
            raise DataError("seven.png: expected an image, got none")
        return super().read(indices)  # type: ignore[arg-type]


def plain(data: Dataset, prefetch: int = 2) -> Loader:
    return Loader(data, 5, 1, PLAIN, None, train=True, prefetch=prefetch)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "convnet-loader"]


@pytest.mark.parametrize("prefetch", [1, 2, 20])
@pytest.mark.parametrize("taken", [0, 1, 3, 10])
def test_the_thread_ends_with_the_iterator(prefetch: int, taken: int) -> None:
    for how in ("exhaust", "close", "drop"):
        batches = plain(Slow(), prefetch).epoch(0)
        for _ in range(taken):
            next(batches)
        if how == "exhaust":
            assert len(list(batches)) == 10 - taken
        elif how == "close":
            batches.close()  # type: ignore[attr-defined]
        del batches
        gc.collect()
        assert threads() == []


def test_leaving_the_loop_ends_the_thread() -> None:
    def consume() -> None:
        for _ in plain(Slow()).epoch(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert threads() == []


def test_reads_ahead_no_further_than_asked() -> None:
    data = Slow()
    batches = plain(data, prefetch=3).epoch(0)
    next(batches)
    end = time.perf_counter() + 10
    while data.reads < 5 and time.perf_counter() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    assert threads() == ["convnet-loader"]
    assert data.reads == 5  # one taken, three ready, one waiting for room
    batches.close()  # type: ignore[attr-defined]


def test_an_error_arrives_at_its_batch() -> None:
    batches = plain(Slow(breaks_at=3)).epoch(0)
    next(batches)
    next(batches)
    with pytest.raises(DataError, match=r"seven.png: expected an image, got none"):
        next(batches)
    assert threads() == []
    with pytest.raises(StopIteration):
        next(batches)


def test_waiting_is_measured() -> None:
    starved = plain(Slow(seconds=0.01))
    for _ in starved.epoch(0):
        pass
    assert starved.wait_seconds > 0.09
    assert starved.wait_share > 0.8
    fed = plain(Slow())
    assert fed.wait_share == 0
    for _ in fed.epoch(0):
        time.sleep(0.01)
    assert fed.wait_share < 0.5
    assert fed.total_seconds > 0.09
