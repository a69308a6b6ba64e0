"""The Hopper kernel: convolutions of stride 1, forward and towards the data, by wgmma and TMA.

CONVNET_WGMMA=always makes it take whatever it can do; on a GPU that is none of Hopper's, and on
hosts without a GPU's kernels, these are tests of whatever is taken there.
"""

from __future__ import annotations

import cases
import check
import pytest
import reference
from cases import ConvCase

from convnet import ops

MATHS = ("fp32", "tf32", "bf16")
# Each width of a tile (48, 64, 96, 128) in fprop by k / groups, in dgrad by c / groups; with the
# last one ragged, tiles across pictures, lines and channels, and one channel's sixteen or several.
CASES = (
    ConvCase("48-and-16", 3, 9, 9, 16, 48, 3, 3, pad=(1, 1)),
    ConvCase("64-ragged", 2, 11, 13, 32, 61, 3, 3, pad=(1, 1)),
    ConvCase("96-and-48", 2, 10, 12, 48, 96, 5, 5, pad=(2, 2)),
    ConvCase("128-and-112", 2, 9, 9, 112, 128, 3, 3, pad=(1, 1)),
    ConvCase("144-channels", 1, 9, 9, 144, 80, 3, 3, pad=(1, 1)),
    ConvCase("groups", 3, 13, 13, 32, 96, 3, 3, pad=(1, 1), groups=2),
    ConvCase("three-groups", 2, 9, 10, 48, 144, 3, 5, pad=(1, 2), groups=3),
    ConvCase("no-padding", 2, 12, 14, 16, 32, 5, 3),
    ConvCase("wide-padding", 2, 6, 7, 16, 16, 3, 3, pad=(2, 2)),
    ConvCase("one-tap", 3, 9, 10, 32, 48, 1, 1),
    ConvCase("small-pictures", 40, 5, 6, 16, 16, 3, 3, pad=(1, 1)),
    ConvCase("two-waves", 70, 16, 16, 16, 16, 3, 3, pad=(1, 1)),
)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setenv("CONVNET_WGMMA", "always")


def both_passes(backend, case, make, rng, math):
    """(name, result, float64 reference)."""
    x, w, b = (make(rng, shape) for shape in (case.x_shape, case.w_shape, (case.k,)))
    dy, mask = make(rng, case.y_shape), {"relu_mask": make(rng, case.x_shape)}
    options = {"math": math, **case.options}
    y = check.call(backend, ops.conv_fprop, x, w, b, relu=True, **options)
    yield "y", y, reference.conv_fprop(x, w, b, relu=True, **case.options)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **mask, **options)
    yield "dx", dx, reference.conv_dgrad(dy, w, case.x_shape, **mask, **case.options)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_on_integers(backend, rng, case, math):
    for _, actual, expected in both_passes(backend, case, cases.integers, rng, math):
        check.equal(actual, expected)


@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("case", [CASES[2], CASES[5]], ids=str)
def test_accuracy(kernels_backend, rng, case, math):
    claims = "as fp32" not in ops.math_description(math)
    for name, actual, expected in both_passes(kernels_backend, case, cases.floats, rng, math):
        error = check.relative_error(actual, expected)
        if math == "fp32":
            assert error < 5e-7, f"{name}: {error:.2e}"
        else:
            least, most = check.REDUCED_ERRORS[math]
            assert error < most, f"{name}: {error:.2e}"
            assert error > 0.8 * least or not claims, f"{name}: {error:.2e} is not {math}"
