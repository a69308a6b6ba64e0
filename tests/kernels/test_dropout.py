"""Dropout: masks are those of Philox4x32-10, whatever computes them and wherever a block lies."""

from __future__ import annotations

import cases
import check
import numpy as np
import pytest
import reference

from convnet import ops
from convnet.ops.step_state import StepState

SHAPES = [(1, 1), (1, 5), (3, 7), (4, 64), (33, 129), (2, 3, 5, 6), (5,), (65, 4096)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
SEED = 0x9E3779B97F4A7C15  # uses all 64 bits


def test_reference_gives_the_published_numbers():
    """The known answers of the authors' library, Random123."""
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    answers = [
        ([0] * 4, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (pi, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    for counter, key, expected in answers:
        bits = reference.philox4x32(np.array(counter, np.uint32), key)
        assert " ".join(f"{word:08x}" for word in bits) == expected


def test_philox():
    indices = np.array([0, 1, 2, 3, 1000, 2**32 - 1, 2**32, 2**40 + 5, 2**62], np.int64)
    counter = np.stack([indices & 0xFFFFFFFF, indices >> 32], axis=1)
    counter = np.concatenate([counter, np.tile([7, 2**32 - 1], (len(indices), 1))], axis=1)
    bits = ops.philox(SEED, 7, 2**32 - 1, indices)
    assert bits.dtype == np.uint32
    check.equal(bits, reference.philox4x32(counter.astype(np.uint32), SEED))


@shapes
@pytest.mark.parametrize("drop", [0.0, 0.3, 0.5, 0.999])
def test_paper_mode_multiplies_by_the_mask(backend, rng, shape, drop):
    x = cases.integers(rng, shape)
    y = check.call(backend, ops.dropout_fprop, x, drop, seed=SEED, layer=3, step=11)
    mask = reference.dropout_mask(shape, drop, seed=SEED, layer=3, step=11)
    check.equal(y, x * mask)


@shapes
def test_inverted_mode_divides_by_what_is_kept(backend, rng, shape):
    x = cases.floats(rng, shape)
    y = check.call(backend, ops.dropout_fprop, x, 0.3, seed=SEED, mode="inverted")
    expected = x * reference.dropout_mask(shape, 0.3, seed=SEED) / 0.7
    check.close(y, expected, expected)
    check.equal(y != 0, expected != 0)


@shapes
@pytest.mark.parametrize("mode", ["paper", "inverted"])
def test_bprop_draws_the_same_mask(backend, rng, shape, mode):
    dy = cases.floats(rng, shape)
    options = {"seed": SEED, "layer": 2**32 - 1, "step": 2**32 - 1, "mode": mode}
    dx = check.call(backend, ops.dropout_bprop, dy, 0.3, **options)
    check.same_bits(dx, check.call(backend, ops.dropout_fprop, dy, 0.3, **options))


@pytest.mark.parametrize(
    ("rows", "cols"), [((0, 9), (0, 13)), ((2, 7), (3, 11)), ((8, 9), (12, 13))]
)
def test_a_block_gets_its_part_of_the_whole_mask(backend, rng, rows, cols):
    x = cases.integers(rng, (9, 13)) + 10
    whole = check.call(backend, ops.dropout_fprop, x, 0.3, seed=SEED)
    block = np.ascontiguousarray(x[slice(*rows), slice(*cols)])
    place = {"row_offset": rows[0], "col_offset": cols[0], "global_cols": 13}
    y = check.call(backend, ops.dropout_fprop, block, 0.3, seed=SEED, **place)
    check.equal(y, whole[slice(*rows), slice(*cols)])


def test_positions_beyond_32_bits(backend):
    """The last images of a large batch of wide rows draw numbers of their own."""
    x = np.ones((3, 8), np.float32)
    place = {"row_offset": 2**20 + 1, "col_offset": 5, "global_cols": 2**17 + 13}
    y = check.call(backend, ops.dropout_fprop, x, 0.5, seed=1, **place)
    check.equal(y, reference.dropout_mask((3, 8), 0.5, seed=1, **place))


@pytest.mark.parametrize("change", [{"seed": 8}, {"layer": 1}, {"step": 1}, {"seed": 7 + 2**32}])
def test_masks_differ_with_every_part_of_the_key(backend, change):
    x, key = np.ones((16, 64), np.float32), {"seed": 7, "layer": 0, "step": 0}
    one = check.call(backend, ops.dropout_fprop, x, 0.5, **key)
    other = check.call(backend, ops.dropout_fprop, x, 0.5, **(key | change))
    assert np.mean(one != other) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("drop", [0.1, 0.3, 0.5])
def test_share_of_dropped_elements(backend, drop):
    y = check.call(backend, ops.dropout_fprop, np.ones((100, 1000), np.float32), drop, seed=3)
    assert np.mean(y == 0) == pytest.approx(drop, abs=0.005)  # three standard deviations


def test_dropped_infinity_and_nan_become_zero(backend, rng):
    """0 * inf would be NaN; a dropped element is simply not there."""
    x = np.where(rng.random((8, 64)) < 0.5, np.inf, np.nan).astype(np.float32)
    y = check.call(backend, ops.dropout_fprop, x, 0.5, seed=5)
    mask = reference.dropout_mask(x.shape, 0.5, seed=5)
    check.equal(y, np.where(mask == 1, x, 0.0))


def test_in_place(backend, rng):
    x = cases.floats(rng, (17, 33))
    expected = check.call(backend, ops.dropout_fprop, x, 0.3, seed=SEED)
    array = backend.asarray(x.copy())
    assert ops.dropout_fprop(array, 0.3, seed=SEED, out=array) is array
    check.same_bits(np.array(backend.to_host(array)), expected)


def test_unaligned_arrays(backend, rng):
    x = cases.integers(rng, (17, 33))
    for y in check.calls_on_unaligned(backend, ops.dropout_fprop, x, 0.3, seed=SEED):
        check.equal(y, x * reference.dropout_mask(x.shape, 0.3, seed=SEED))


@pytest.mark.parametrize("shape", [(3, 7), (65, 4096)], ids=str)
def test_seed_and_step_of_the_step_state(backend, rng, shape):
    """They are read when the operation runs, and the numbers beside them do not matter."""
    x = cases.floats(rng, shape)
    expected = check.call(backend, ops.dropout_fprop, x, 0.3, seed=SEED, layer=3, step=2**32 - 2)
    state = StepState([backend])
    state.write(SEED, 5)
    state.write(SEED, 2**32 - 2)
    for op in (ops.dropout_fprop, ops.dropout_bprop):
        y = check.call(backend, op, x, 0.3, seed=1, layer=3, state=state.on(backend))
        check.same_bits(y, expected)
