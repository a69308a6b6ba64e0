"""Packed images that an earlier version has written, when they were called pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnet.data import statistics
from convnet.data.folder.check import check_packed
from convnet.data.packed.dataset import open_packed
from convnet.data.packed.sums import read_sums

PACKED = Path(__file__).parent / "earlier" / "packed"


def test_packed_images_of_an_earlier_version() -> None:
    train, val = open_packed(PACKED)
    assert train.classes == val.classes == ("cat", "dog", "emu")
    assert train.labels.tolist() == [2, 0, 1, 0, 1, 2]
    assert val.labels.tolist() == [0, 1, 2]
    assert train.read([0]).sum() == 26653
    sums = read_sums(PACKED)
    assert sums is not None
    assert (sums.count, sums.total.sum()) == (6, 161570)
    np.testing.assert_array_equal(
        statistics(train, "image").mean, train.read(range(6)).mean(axis=0).astype(np.float32)
    )
    assert "6 for training and 3 for" in check_packed(PACKED)
