"""Order of the images, epochs, and the thread that reads ahead."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
from loaders import PLAIN, VARIED, dataset

from convnet.config import AugmentConfig
from convnet.data import ArrayDataset, Batch, DataError, Dataset, Loader, statistics
from convnet.data.augment import (
    balanced_order,
    epoch_order,
)


def loader(count: int = 50, batch: int = 8, seed: int = 1, train: bool = True) -> Loader:
    data = dataset(count)
    return Loader(data, batch, seed, VARIED, statistics(data), train)


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "labels", "offsets", "mirror", "indices")
    arrays = [(getattr(a, name), getattr(b, name)) for name in names]
    if a.noise is not None or b.noise is not None:
        arrays += [(a.noise, b.noise), (a.affine, b.affine)]
    return all(np.array_equal(left, right) for left, right in arrays)


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
