"""Wrong kernels are found, each with its message, place and thread; right ones beside them pass.

The kernels are those of ``faults.cu``, compiled to PTX by the nvcc that made ``convnet._vgpu``.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels import ORDERS, Kernels, is_at

X = np.arange(1, 65, dtype=np.float32)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels("faults.cu")


def message(kernels: Kernels, name: str, **launch: int) -> str:
    """Of a run of 64 threads that must fail."""
    return kernels.message(name, launch.pop("x", X), np.zeros(64, np.float32), **launch)


RIGHT = {
    "right_barrier": X[::-1] + 2,
    "right_syncwarp": X.reshape(-1, 2)[:, ::-1].ravel() + 2,
    "right_same_value": np.full(64, 1.0),
    "right_bytes": X,
    "right_call": X[::-1],
    "right_branch": np.where(np.arange(64) % 32 < 20, X + 1, 0),
    "right_atomics": np.tile(X.reshape(-1, 4).sum(0), 16),
    "right_named_barriers": np.r_[X[:32][::-1] + 2, np.zeros(32)],
    "right_elected_arrival": np.r_[X[:32][::-1], np.zeros(32)],
    "right_async": X + X[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernel_passes_in_every_order(kernels: Kernels, name: str, order: str) -> None:
    y = kernels.run(name, X, np.zeros(64, np.float32), order=order)
    np.testing.assert_array_equal(y, RIGHT[name])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing_barrier", "race .*: (read here, written|written here, read) by thread"),
        ("missing_second_barrier", "race .*: (written here, read|read here, written) by thread"),
        ("missing_syncwarp", "race .*: read here, written by thread"),
        ("missing_second_syncwarp", "race .*: written here, read by thread"),
        ("partial_syncwarp", "race .*: read here, written by thread"),
        ("same_word", "race .* writes another value to it in the same instruction"),
        ("atomic_without_barrier", "race .*: read here, written by thread"),
        ("named_barrier_missing", "race .* by thread|deadlock"),
        (
            "elected_wait",
            "race .*: read here, written by thread|shared memory .* is read before it was written",
        ),
        (
            "async_without_barrier",
            "race .*: read here, written by thread|.* before it was written|.* under way",
        ),
    ],
)
def test_race(kernels: Kernels, name: str, what: str, order: str) -> None:
    found = message(kernels, name, order=order)
    assert re.match(what, found)
    assert is_at(found, kernels, name)
    assert re.search(r"thread \(\d+, 0, 0\) of block \(0, 0, 0\)", found)


def test_race_past_an_arrival_for_others(kernels: Kernels) -> None:
    found = message(kernels, "bad_elected_arrival")
    assert re.match("race .*: read here, written by thread", found)
    assert is_at(found, kernels, "elected_arrival")


@pytest.mark.parametrize("name", ["async_without_wait", "async_wait_too_few"])
def test_copy_that_was_not_waited_for(kernels: Kernels, name: str) -> None:
    found = message(kernels, name)
    assert re.match(r"shared memory at byte \d+ is read while the cp.async of warp . at", found)
    assert is_at(found, kernels, name)


def test_unwritten_shared_memory(kernels: Kernels) -> None:
    found = message(kernels, "unwritten_shared")
    assert found.startswith("shared memory at byte 256 is read before it was written")
    assert "thread (63, 0, 0)" in found
    assert is_at(found, kernels, "unwritten_shared")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("exit_before_barrier", "divergent barriers: this thread waits in bar.sync, .* has ended"),
        ("two_barriers", "divergent barriers: barrier 0 here, and warp . waits at it at"),
        ("uneven_loop", "deadlock: .*waiting in bar.sync 0 at|divergent barriers"),
        (
            "shuffle_in_branch",
            "divergent warp: lanes 0xa+ are in bar.sync here.* lanes 0x5+ wait in shfl.sync",
        ),
        ("different_operations", "divergent warp: lanes .* wait in (vote|shfl).sync at"),
        ("mask_without_self", "shfl.sync: the mask 0xfffe does not name the calling lane"),
        ("shuffle_from_the_dead", "shfl.sync from lane 16, which does not take part"),
        ("mma_in_part", "divergent warp: lanes 0xff are in mma.sync .* have ended"),
        (
            "named_barriers_crossed",
            "deadlock: warp 0 is waiting in bar.sync 1 at .*; warp 1 is waiting in bar.sync 2 at",
        ),
    ],
)
def test_threads_that_do_not_meet(kernels: Kernels, name: str, what: str, order: str) -> None:
    found = message(kernels, name, order=order)
    assert re.match(what, found)
    assert is_at(found, kernels, name)


@pytest.mark.parametrize(
    ("name", "what", "thread"),
    [
        ("shared_write_overrun", "write of 4 bytes of shared memory at byte 256", 63),
        ("global_overrun", "write of 4 bytes at 0x.*, 256 bytes into an allocation of 256", 63),
        ("global_read_overrun", "read of 4 bytes at 0x.*, 256 bytes into an allocation of", 63),
        ("called_overrun", "read of 4 bytes at 0x.*, 256 bytes into an allocation of 256", 63),
        ("far_overrun", "read of 4 bytes at 0x", 0),
        ("null_pointer", "write of 4 bytes at 0", 3),
        ("misaligned", "address .* is not a multiple of 16", 1),
        ("misaligned_async", "cp.async to address .*, no multiple of 16", 1),
        ("divide", "integer division by zero", 0),
    ],
)
def test_fault(kernels: Kernels, name: str, what: str, thread: int) -> None:
    found = message(kernels, name)
    assert re.match(what, found)
    assert f"thread ({thread}, 0, 0) of block (0, 0, 0)" in found
    assert is_at(found, kernels, name)
    assert f"kernel {name}" in found


def test_overrun_of_dynamic_shared_memory(kernels: Kernels) -> None:
    found = message(kernels, "shared_read_overrun", shared=256)
    assert found.startswith("read of 4 bytes of shared memory at byte 256; the block has 256")
    assert is_at(found, kernels, "shared_read_overrun")


def test_place_of_an_inlined_function(kernels: Kernels) -> None:
    found = message(kernels, "far_overrun")
    inner, outer = found.split(" (element), inlined at ")
    assert is_at(inner, kernels, "inlined")
    assert is_at(outer, kernels, "far_overrun")


def test_place_of_a_called_function(kernels: Kernels) -> None:
    found = message(kernels, "called_overrun")
    inner, outer = found.split(" (called_element), called at ")
    assert is_at(inner, kernels, "called")
    assert is_at(outer, kernels, "called_overrun")


def test_trap(kernels: Kernels) -> None:
    found = message(kernels, "trap_in_one", grid=3)
    assert found.startswith("trap")
    assert "thread (5, 0, 0) of block (2, 0, 0)" in found
    assert is_at(found, kernels, "trap_in_one")


def test_unknown_order(kernels: Kernels) -> None:
    found = message(kernels, "right_barrier", order="sideways")
    assert 'expected forward, reverse or shuffle:SEED, got "sideways"' in found
