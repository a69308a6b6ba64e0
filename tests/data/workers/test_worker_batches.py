"""Worker processes give the batches that the thread gives, in whichever process trains."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_sets import gone, loader, same, sets

from convnet.config import AugmentConfig
from convnet.data import DataError, Loader
from convnet.data.folder.image_folder import open_folder
from convnet.data.workers.feeder import Feeder

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.mark.parametrize("train", [True, False])
def test_batches_do_not_depend_on_the_number_of_workers(folder: Path, train: bool) -> None:
    expected = [list(loader(folder, 0, train).epoch(epoch)) for epoch in (0, 1)]
    for workers in (1, 3) if train else (2,):
        with contextlib.closing(loader(folder, workers, train)) as made:
            for epoch in (0, 1):
                found = list(made.epoch(epoch))
                assert len(found) == len(expected[epoch]) == (6 if train else 7)
                assert all(same(a, b) for a, b in zip(found, expected[epoch], strict=True))
            rest = list(made.epoch(1, start_step=4))
            assert all(same(a, b) for a, b in zip(rest, expected[1][4:], strict=True))


def test_workers_live_from_epoch_to_epoch_of_training(folder: Path) -> None:
    with contextlib.closing(loader(folder, 2)) as made:
        pids = []
        for epoch in range(2):
            for _ in made.epoch(epoch):
                pass
            assert made._feeder is not None
            pids.append(made._feeder.pool.pids)
        assert pids[0] == pids[1]
        assert len(set(pids[0])) == 2
    assert all(gone(pid) for pid in pids[0])
    evaluating = loader(folder, 2, train=False)
    assert len(list(evaluating.epoch())) == 7
    assert evaluating._feeder is None


def test_sets_in_memory_need_no_workers(folder: Path) -> None:
    data = open_folder(folder, (12, 12))[0]
    made = Loader(data, 8, 1, AugmentConfig(), None, True, workers=3)
    assert len(list(made.epoch())) == 6
    assert made._feeder is None


@pytest.mark.parametrize("how", ["close", "drop", "error"])
def test_leaving_an_epoch_ends_the_workers(folder: Path, how: str) -> None:
    made = loader(folder, 2)
    batches = made.epoch(0)
    first = next(batches)
    assert made._feeder is not None
    pids = made._feeder.pool.pids
    if how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            batches.throw(ZeroDivisionError)  # type: ignore[attr-defined]
    del batches
    gc.collect()
    assert all(gone(pid) for pid in pids)
    again = list(made.epoch(0))  # from new workers
    made.close()
    assert same(again[0], first)
    assert len(again) == 6


def test_a_loader_that_is_dropped_ends_its_workers(folder: Path) -> None:
    made = loader(folder, 2)
    assert len(list(made.epoch(0))) == 6
    assert made._feeder is not None
    pids = made._feeder.pool.pids
    del made
    gc.collect()
    assert all(gone(pid) for pid in pids)


def test_an_error_arrives_at_its_batch(folder: Path, tmp_path: Path) -> None:
    data = sets(folder)[0]
    made = Loader(data, 8, 1, AugmentConfig(), None, False, workers=2)
    data.listing = data.listing.take(np.arange(len(data)))
    broken = str(tmp_path / "broken.png")
    Path(broken).write_bytes(b"nothing")
    real = data.items
    data.items = lambda wanted: [  # type: ignore[method-assign]
        broken if index == 20 else item for index, item in zip(wanted, real(wanted), strict=True)
    ]
    batches = made.epoch()
    assert [len(next(batches)) for _ in range(2)] == [8, 8]
    with pytest.raises(DataError, match=r"broken.png: expected an image, got a file that starts"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_wrong_numbers_of_workers(folder: Path) -> None:
    with pytest.raises(ValueError, match=r'workers of at least 0 or "auto", got -1'):
        loader(folder, -1)


def test_feeder_alone(folder: Path) -> None:
    """Batches of different sizes, more of them than the ring holds."""
    data = sets(folder)[0]
    wanted = [np.arange(n) for n in (7, 1, 5, 7, 2, 3, 7)]
    feeder = Feeder(data, 7, 2)
    for _ in range(2):
        found = list(feeder.stream(wanted))
        for images, indices in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(images, data.read(indices))
    assert list(feeder.stream([])) == []
    assert len(feeder.pool.pids) == 2
    early = feeder.stream(wanted)
    next(early)
    early.close()  # what is under way would be written into the next stream's memory
    assert feeder.pool.pids == []
    feeder.close()
    feeder.close()


@pytest.mark.parametrize("train", [True, False])
def test_workers_decode_only_this_process_s_share(
    folder: Path, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes, whose batches of 8 are 2, 3 and 3 together; the last in testing is of 4."""
    asked: list[int] = []
    stream = Feeder.stream

    def spy(self: Feeder, batches: Any) -> Any:
        return stream(self, (asked.extend(batch) or batch for batch in batches))

    monkeypatch.setattr(Feeder, "stream", spy)
    whole = list(loader(folder, 0, train).epoch(1))
    shares = []
    for rank in range(3):
        share = lambda count, rank=rank: (count * rank // 3, count * (rank + 1) // 3)  # noqa: E731
        plain = list(loader(folder, 0, train, share=share).epoch(1))
        asked.clear()
        with contextlib.closing(loader(folder, 2, train, share=share)) as with_workers:
            batches = list(with_workers.epoch(1))
        assert len(batches) == len(plain)
        assert all(map(same, batches, plain))
        assert asked == [index for batch in plain for index in batch.indices]
        shares.append(batches)
    for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
        for name in ("images", "labels", "offsets", "mirror", "indices"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(batch, name))


def test_a_process_without_a_share_of_the_last_batch(folder: Path) -> None:
    with contextlib.closing(loader(folder, 1, False, share=lambda count: (0, count // 8))) as few:
        assert [len(batch) for batch in few.epoch(0)] == [1] * (few.steps_per_epoch - 1)
    with contextlib.closing(loader(folder, 1, False, share=lambda count: (0, 0))) as none:
        assert list(none.epoch(0)) == []
