"""The Hopper kernels: convolutions of stride 1 by wgmma and TMA.

CONVNET_WGMMA=always makes them take whatever they can do. On another GPU, and on the CPU, these are
tests of what is taken there.
"""

from __future__ import annotations

import re

import cases
import check
import numpy as np
import pytest
import reference
from cases import ConvCase

import convnet.backend
from convnet import ops
from convnet.common.dtypes import stored_type

# And what the arrays are that they take in it.
PRECISIONS = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16"}
# Each width of a tile (48, 64, 96, 128) in fprop by k / groups, in dgrad by c / groups; with the
# last one ragged, tiles across images, lines and channels, and one channel's sixteen or several.
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


def all_passes(backend, case, make, rng, precision):
    """(name, result, float64 reference)."""
    stored = stored_type(PRECISIONS[precision])
    x, dy, mask = (make(rng, s).astype(stored) for s in (case.x_shape, case.y_shape, case.x_shape))
    w, b = make(rng, case.w_shape), make(rng, (case.k,))
    mask = {"relu_mask": mask}
    options = {"precision": precision, **case.options}
    y = check.call(backend, ops.conv_fprop, x, w, b, relu=True, **options)
    yield "y", y, reference.conv_fprop(x, w, b, relu=True, **case.options)
    dx = check.call(backend, ops.conv_dgrad, dy, w, case.x_shape, **mask, **options)
    yield "dx", dx, reference.conv_dgrad(dy, w, case.x_shape, **mask, **case.options)
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **options)
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    yield "dw", dw, expected[0]
    yield "db", db, expected[1]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "case", [*CASES[:-1], pytest.param(CASES[-1], marks=pytest.mark.thorough)], ids=str
)
def test_exact_on_integers(backend, rng, case, precision):
    for _, actual, expected in all_passes(backend, case, cases.integers, rng, precision):
        check.equal(actual, expected.astype(np.float32).astype(actual.dtype))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [CASES[2], CASES[5]], ids=str)
def test_accuracy(kernels_backend, rng, case, precision):
    claims = "as fp32" not in ops.precision_description(precision)
    for name, actual, expected in all_passes(kernels_backend, case, cases.floats, rng, precision):
        error = check.relative_error(actual, expected)
        # Of bfloat16 arrays dw has no rounding but of its sums.
        if precision == "fp32" or name == "db" or (precision, name) == ("bf16", "dw"):
            assert error < 5e-7, f"{name}: {error:.2e}"
        else:
            least, most = check.REDUCED_ERRORS[precision]
            assert error < most, f"{name}: {error:.2e}"
            assert error > 0.8 * least or not claims, f"{name}: {error:.2e} is not {precision}"


@pytest.mark.thorough
def test_slabs_shorter_than_the_ring(backend, rng):
    """wgrad's slabs are of 128 pixels, eight stages of twelve; there are three to a split."""
    case = ConvCase("one-line-pictures", 272, 1, 8, 256, 256, 3, 3, pad=(1, 1), groups=16)
    x, dy = cases.integers(rng, case.x_shape), cases.integers(rng, case.y_shape)
    options = {"precision": "tf32", **case.options}
    dw, db = check.call(backend, ops.conv_wgrad, x, dy, case.w_shape, **options)
    expected = reference.conv_wgrad(x, dy, case.w_shape, **case.options)
    check.equal(dw, expected[0])
    check.equal(db, expected[1])


def test_the_widest_slab(kernels_backend, rng):
    """256 pixels in a row: as many as a box of a tensor map has."""
    x, w = cases.integers(rng, (1, 2, 254, 16)), cases.integers(rng, (20, 3, 3, 16))
    b = cases.integers(rng, (20,))
    y = check.call(kernels_backend, ops.conv_fprop, x, w, b, pad=(1, 1), precision="tf32")
    check.equal(y, reference.conv_fprop(x, w, b, stride=(1, 1), pad=(1, 1)))


@pytest.mark.parametrize("images", [1, 5])
def test_wgrad_without_a_bias(kernels_backend, rng, images):
    """In one split and in several: the same dw."""
    case = ConvCase("no-bias", images, 16, 16, 16, 20, 3, 3, pad=(1, 1))
    x, dy = cases.integers(rng, case.x_shape), cases.integers(rng, case.y_shape)
    options = {"precision": "tf32", "bias": False, **case.options}
    dw, db = check.call(kernels_backend, ops.conv_wgrad, x, dy, case.w_shape, **options)
    check.equal(dw, reference.conv_wgrad(x, dy, case.w_shape, **case.options)[0])
    assert db is None


@pytest.mark.parametrize("value", ["", "on", "Always"])
def test_misspelt_choice(kernels_backend, rng, monkeypatch, value):
    monkeypatch.setenv("CONVNET_WGMMA", value)
    x, w = cases.integers(rng, (1, 9, 9, 16)), cases.integers(rng, (8, 3, 3, 16))
    with pytest.raises(
        ValueError, match=f"CONVNET_WGMMA: expected auto, off or always, got {value}"
    ):
        check.call(kernels_backend, ops.conv_fprop, x, w, np.zeros(8, np.float32), precision="tf32")


def test_images_that_no_tensor_map_takes(kernels_backend, rng):
    """An image that does not begin at a multiple of 16 bytes goes to the kernels of mma.sync."""
    x, w = cases.integers(rng, (1, 9, 9, 16)), cases.integers(rng, (8, 3, 3, 16))
    b = np.zeros(8, np.float32)
    unaligned = kernels_backend.asarray(np.concatenate([[0], x.ravel()]).astype(np.float32))
    moved = unaligned[1:].reshape(x.shape)
    y = ops.conv_fprop(
        moved, kernels_backend.asarray(w), kernels_backend.asarray(b), precision="tf32"
    )
    check.equal(
        np.array(kernels_backend.to_host(y)),
        reference.conv_fprop(x, w, b, stride=(1, 1), pad=(0, 0)),
    )


ALEXNET = {  # x, w, pad, groups; at a batch of 128
    "conv1": ((128, 224, 224, 3), (96, 11, 11, 3), 0, 1),
    "conv2": ((128, 27, 27, 96), (256, 5, 5, 48), 2, 2),
    "conv3": ((128, 13, 13, 256), (384, 3, 3, 256), 1, 1),
    "conv4": ((128, 13, 13, 384), (384, 3, 3, 192), 1, 2),
    "conv5": ((128, 13, 13, 384), (256, 3, 3, 192), 1, 2),
}


def kernel_of(layer: str, pass_name: str, precision: str) -> str:
    x, w, pad, groups = ALEXNET[layer]
    stride = 4 if layer == "conv1" else 1
    options = {
        "stride": stride,
        "pad": pad,
        "groups": groups,
        "rounding": "ceil",
        "precision": precision,
        "dtype": PRECISIONS.get(precision, "float32"),
    }
    return ops.conv_kernel(pass_name, x, w, **options)


@pytest.mark.parametrize(
    ("layer", "pass_name", "fp32", "tf32"),
    [
        ("conv2", "fprop", "wgmma, 128x128", "wgmma, 256x128"),
        ("conv2", "dgrad", "wgmma, 128x48", "wgmma, 256x48"),
        ("conv3", "fprop", "wgmma, 128x128", "wgmma, 256x128"),
        ("conv3", "dgrad", "wgmma, 128x128", "wgmma, 128x128"),
        ("conv4", "fprop", "wgmma, 128x96", "wgmma, 256x96"),
        ("conv5", "fprop", "wgmma, 128x128", "wgmma, 128x128"),
        ("conv5", "dgrad", "wgmma, 128x96", "wgmma, 256x96"),
    ],
)
def test_the_table_for_alexnet(monkeypatch, hopper, layer, pass_name, fp32, tf32):
    monkeypatch.setenv("CONVNET_WGMMA", "auto")
    with convnet.backend.use(hopper):
        assert kernel_of(layer, pass_name, "fp32") == fp32
        assert kernel_of(layer, pass_name, "tf32") == tf32
        assert kernel_of(layer, pass_name, "bf16") == tf32
        assert kernel_of(layer, pass_name, "ffma").startswith("FFMA, ")
        monkeypatch.setenv("CONVNET_WGMMA", "off")
        assert kernel_of(layer, pass_name, "tf32").startswith("mma.sync, ")


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        ("conv2", "wgmma, 400x64, 11 splits"),
        ("conv3", "wgmma, 288x64, 5 splits"),
        ("conv4", "wgmma, 432x64, 5 splits"),
        ("conv5", "wgmma, 432x64, 8 splits"),
    ],
)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_table_of_wgrad(monkeypatch, hopper, layer, kernel, precision):
    monkeypatch.setenv("CONVNET_WGMMA", "auto")
    with convnet.backend.use(hopper):
        assert kernel_of(layer, "wgrad", precision) == kernel
        assert kernel_of(layer, "wgrad", "fp32").startswith("mma.sync, ")


@pytest.mark.parametrize(
    ("step", "x", "w", "pad", "kernel"),
    [
        # 256 pixels of a slab's row are the most, and half of them may be padding
        ("fprop", (1, 8, 254, 16), (48, 3, 3, 16), 1, "wgmma, 128x48"),
        ("fprop", (1, 8, 255, 16), (48, 3, 3, 16), 1, "mma.sync, 128x64"),
        ("fprop", (2, 8, 8, 16), (48, 3, 3, 16), 1, "wgmma, 128x48"),
        ("fprop", (2, 8, 7, 16), (48, 3, 3, 16), 1, "mma.sync, 128x64"),
        # of wgrad 32 wgmma, three sixteens, and the fewest of these with as many wgmma
        ("wgrad", (5, 16, 16, 16), (64, 4, 8, 16), 2, "wgmma, 512x64, 5 splits"),
        ("wgrad", (5, 16, 16, 16), (64, 3, 11, 16), 5, "mma.sync, 128x64, 15 splits"),
        ("wgrad", (5, 16, 16, 64), (64, 1, 1, 64), 0, "wgmma, 32x64, 5 splits"),
        ("wgrad", (5, 16, 16, 32), (64, 4, 4, 32), 2, "wgmma, 256x64, 6 splits"),
        # a slab for each split, or one split where more take as long
        ("wgrad", (5, 16, 16, 16), (64, 3, 3, 16), 1, "wgmma, 144x64, 5 splits"),
        ("wgrad", (5, 16, 16, 132 * 16), (132 * 16, 3, 3, 16), 1, "wgmma, 144x64"),
    ],
)
def test_the_rule_at_its_limits(hopper, step, x, w, pad, kernel):
    options = {"pad": pad, "groups": x[3] // w[3], "precision": "tf32"}
    with convnet.backend.use(hopper):
        found = ops.conv_kernel(step, x, w, **options)
    assert found == kernel


@pytest.mark.parametrize(("step", "tiles"), [("fprop", 132), ("wgrad", 264)])
def test_work_for_every_multiprocessor(monkeypatch, hopper, step, tiles):
    """A tile for each, in wgrad two slabs: here one of each group."""
    monkeypatch.setenv("CONVNET_WGMMA", "auto")
    with convnet.backend.use(hopper):
        for groups, kernel in ((tiles, "wgmma, "), (tiles - 1, "mma.sync, ")):
            shapes = (1, 8, 12, 16 * groups), (16 * groups, 3, 3, 16)
            options = {"pad": 1, "groups": groups, "precision": "tf32"}
            assert ops.conv_kernel(step, *shapes, **options).startswith(kernel), groups


def test_what_it_leaves_to_others(monkeypatch, hopper):
    with convnet.backend.use(hopper):
        assert kernel_of("conv1", "fprop", "tf32") == "mma.sync, 128x96"
        assert kernel_of("conv3", "wgrad", "fp32").startswith("mma.sync, 128x128, ")
        small = (2, 13, 13, 256), (384, 3, 3, 256)
        assert ops.conv_kernel("fprop", *small, pad=1).startswith("wgmma, ")
        monkeypatch.setenv("CONVNET_WGMMA", "auto")
        assert ops.conv_kernel("fprop", *small, pad=1).startswith("mma.sync, ")
        with pytest.raises(ValueError, match='expected "fprop", "dgrad" or "wgrad"'):
            ops.conv_kernel("forward", *small)


def test_algorithms_of_the_cpu(monkeypatch):
    shapes = (8, 27, 27, 48), (64, 3, 3, 48)
    monkeypatch.setenv("CONVNET_WINOGRAD", "always")
    assert re.match(r"Winograd, F\(\d x \d, 3 x 3\)", ops.conv_kernel("fprop", *shapes, pad=1))
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")
    assert ops.conv_kernel("fprop", *shapes, pad=1) == "direct"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_infinity_is_as_ieee_754_has_it(kernels_backend, rng, precision):
    """A window without padding and without a zero: what sees an infinity is infinite, of its sign,
    and NaN where it sees one of each."""
    case = ConvCase("no-padding", 2, 12, 14, 16, 32, 5, 3)
    x, w, dy = (cases.floats(rng, s) for s in (case.x_shape, case.w_shape, case.y_shape))
    x[0, 3, 4, 5], x[0, 9, 4, 5], x[1, 6, 6, 2] = np.inf, -np.inf, np.inf
    dy[0, 3, 4, 5], dy[1, 2, 7, 30] = np.inf, -np.inf
    x, dy = (a.astype(stored_type(PRECISIONS[precision])) for a in (x, dy))
    options = {"precision": precision, **case.options}
    with np.errstate(invalid="ignore"):
        expected = [
            reference.conv_fprop(x, w, None, **case.options),
            reference.conv_dgrad(dy, w, case.x_shape, **case.options),
            reference.conv_wgrad(x, dy, case.w_shape, **case.options)[0],
        ]
    arrays = [kernels_backend.asarray(a) for a in (x, w, dy)]
    results = [
        ops.conv_fprop(arrays[0], arrays[1], **options),
        ops.conv_dgrad(arrays[2], arrays[1], case.x_shape, **options),
        ops.conv_wgrad(arrays[0], arrays[2], case.w_shape, **options)[0],
    ]
    for actual, right in zip(results, expected, strict=True):
        host = np.array(kernels_backend.to_host(actual)).astype(np.float32)
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind(host), kind(right), kind.__name__)
