"""Pipelines of bulk copies and wgmma: right ones pass, and what is wrong with others is found.

The kernels are those of ``pipelines.cu``; see test_faults.py.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels import ORDERS, Kernels, is_at

X = np.arange(1, 65, dtype=np.float32)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels("pipelines.cu")


STEPS = np.arange(6 * 128, dtype=np.float32) % 7


@pytest.mark.parametrize("order", ORDERS)
def test_pipeline_of_bulk_copies(kernels: Kernels, order: str) -> None:
    y = kernels.run("pipeline_right", STEPS, np.zeros(128, np.float32), block=160, order=order)
    expected = np.zeros(128, np.float32)
    for step in STEPS.reshape(6, 128):
        expected = 2 * expected + step[::-1]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("fault", "line", "what"),
    [
        ("no_init", None, "the mbarrier was not initialized"),
        (
            "no_init_fence",
            "copy",
            "the mbarrier of an asynchronous copy was initialized at .* with no fence.mbarrier",
        ),
        ("no_full", "stage", "shared memory at byte .* (under way|before it was written)|race"),
        (
            "no_empty",
            "copy",
            "race .*read by thread|shared memory .* written while|mbarrier.arrive: more",
        ),
        (
            "never_arrives",
            None,
            "deadlock: warp 0, 1, 2, 3 is waiting for an mbarrier's phase, which nobody",
        ),
        ("too_many_bytes", "copy", "a copy of 512 bytes, but its mbarrier expects only 256"),
        ("too_often", "too_often", "mbarrier.arrive: more arrivals than the 1 that the barrier"),
        ("not_waited", "copy", "the block ends with a copy to shared memory that nobody has"),
    ],
)
def test_broken_pipeline(
    kernels: Kernels, fault: str, line: str | None, what: str, order: str
) -> None:
    found = kernels.message(
        f"pipeline_{fault}", STEPS, np.zeros(128, np.float32), block=160, order=order
    )
    assert re.match(what, found)
    if line is not None:
        assert is_at(found, kernels, line)


@pytest.mark.parametrize("order", ORDERS)
def test_fenced_writes_before_a_bulk_copy(kernels: Kernels, order: str) -> None:
    y = kernels.run("copy_over_right", X, np.zeros(64, np.float32), order=order)
    np.testing.assert_array_equal(y, X[::-1] + X)


def test_ordinary_writes_before_a_bulk_copy(kernels: Kernels) -> None:
    found = kernels.message("copy_over_without_fence", X, np.zeros(64, np.float32))
    assert re.match("an asynchronous copy writes to byte .* with no fence.proxy.async since", found)
    assert is_at(found, kernels, "copy_over")


@pytest.mark.parametrize("order", ORDERS)
def test_wgmma(kernels: Kernels, order: str) -> None:
    x = X % 5
    y = kernels.run("wgmma_right", x, np.zeros(128, np.float32), block=128, order=order)
    # a[0] to a[3] of each lane are 0 to 3: rows g are 0 for k < 4 and 2 above, rows g + 8 1 and 3
    b = x.reshape(8, 8)  # [n][k]; the swizzle of 32 bytes exchanges the halves of rows 4 to 7
    b = np.concatenate([b[:4], np.roll(b[4:], 4, axis=1)])
    low, high = b[:, :4].sum(1), b[:, 4:].sum(1)
    sums = 2 * high + (low + 3 * high) + 2  # of column n, in rows g and g + 8
    expected = np.tile(sums.reshape(4, 2).sum(1), 32)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("fault", "line", "what"),
    [
        ("no_fence", "wgmma", "wgmma.mma_async without a wgmma.fence"),
        ("no_wait", "wgmma", "the warp ends with a wgmma that was not waited for"),
        ("no_proxy_fence", "wgmma", "wgmma reads byte 0 .* with no fence.proxy.async since"),
        ("reads_early", "reads_early", "reads a sum of a wgmma under way"),
        ("reused", "reused", "writes to an operand of a wgmma under way"),
        ("overwritten", "overwritten", "race .* written here, (while it is )?read by the wgmma"),
    ],
)
def test_broken_wgmma(kernels: Kernels, fault: str, line: str, what: str) -> None:
    found = kernels.message(f"wgmma_{fault}", X, np.zeros(128, np.float32), block=128)
    assert re.match(what, found)
    assert is_at(found, kernels, line)
