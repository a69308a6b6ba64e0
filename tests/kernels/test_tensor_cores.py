"""What the kernels take for granted of tensor cores, seen in results that are single products.

With one term that is not zero, a result is the product of two operands as the unit took them. So
these tests say of a GPU what the virtual GPU only models: that TF32 operands lose their low 13 bits
(src/kernels/gemm/mma.cuh leaves them set), and which operand of an mma is which.
"""

from __future__ import annotations

import numpy as np
import pytest

from convnet import ops

K = 32  # the least that tensor cores are given


def tf32(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of 11 significant bits, halves away from zero."""
    bits = x.view(np.uint32).astype(np.uint64) + 0x1000
    return (bits & 0xFFFFE000).astype(np.uint32).view(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of 8 significant bits, halves to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    return (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def numbers(shape: tuple[int, int]) -> np.ndarray:
    """Mantissas with every pattern of the upper of the low 13 bits, among them all ones, none,
    halves and their neighbours; of several sizes and both signs."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 1 << 23, shape, dtype=np.uint32)
    low = np.array([0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x1FFF], np.uint32)
    flat = bits.reshape(-1)
    flat[: 2 * low.size : 2] = flat[: 2 * low.size : 2] & ~np.uint32(0x1FFF) | low
    exponents = rng.integers(120, 135, shape, dtype=np.uint32) << 23
    signs = rng.integers(0, 2, shape, dtype=np.uint32) << 31
    return (bits | exponents | signs).view(np.float32)


def products(backend, precision: str, step: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left[i] * right[j], as a pass of a dense layer forms it: one term of each sum."""
    place = 11  # of the K terms
    terms = {"left": np.zeros((len(left), K), np.float32)}
    terms["right"] = np.zeros((len(right), K), np.float32)
    terms["left"][:, place], terms["right"][:, place] = left, right
    a, b = terms["left"], terms["right"]
    if step == "fprop":  # y[n, k] = sum_c x[n, c] w[k, c]
        result = ops.dense_fprop(backend.asarray(a), backend.asarray(b), precision=precision)
    elif step == "dgrad":  # dx[n, c] = sum_k dy[n, k] w[k, c]
        w = backend.asarray(np.ascontiguousarray(b.T))
        result = ops.dense_dgrad(backend.asarray(a), w, precision=precision)
    else:  # dw[k, c] = sum_n dy[n, k] x[n, c]
        x, dy = (backend.asarray(np.ascontiguousarray(array.T)) for array in (b, a))
        result, _ = ops.dense_wgrad(x, dy, precision=precision)
    return np.array(backend.to_host(result))


@pytest.fixture
def device(kernels_backend):
    said = ops.precision_description("tf32")
    if said.startswith("as "):
        pytest.skip(f"tf32: {said}")
    return kernels_backend


steps = pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
# The tiles of 64 x 32 and of 128 x 128, and a ragged one.
sizes = pytest.mark.parametrize("size", [(64, 32), (132, 132), (71, 36)], ids=str)


@steps
@sizes
@pytest.mark.parametrize(("precision", "rounded"), [("tf32", tf32), ("bf16", bf16)])
def test_operands_are_rounded_and_nothing_else_is(device, step, size, precision, rounded):
    """In either operand, to the last bit: what lies below the rounded bits has no effect."""
    left, right = numbers((size[0], 1))[:, 0], numbers((size[1], 1))[:, 0]
    powers = np.ldexp(np.float32(1), np.arange(max(size)) % 5 - 2).astype(np.float32)
    found = products(device, precision, step, left, powers[: size[1]])
    np.testing.assert_array_equal(found, np.outer(rounded(left), powers[: size[1]]))
    found = products(device, precision, step, powers[: size[0]], right)
    np.testing.assert_array_equal(found, np.outer(powers[: size[0]], rounded(right)))
    # Two rounded mantissas: 22 bits at most, which float32 holds.
    found = products(device, precision, step, left, right)
    np.testing.assert_array_equal(found, np.outer(rounded(left), rounded(right)))


@steps
@sizes
def test_fp32_keeps_what_two_tf32_numbers_hold(device, step, size):
    """high + low is right to 22 bits or more; had the mma taken all of `high`, to 12."""
    left, right = numbers((size[0], 1))[:, 0], numbers((size[1], 1))[:, 0]
    ones = np.ones(max(size), np.float32)
    for a, b in ((left, ones[: size[1]]), (ones[: size[0]], right)):
        found = products(device, "fp32", step, a, b)
        expected = np.outer(a, b)
        assert np.abs(found / expected - 1).max() <= 2.0**-22
