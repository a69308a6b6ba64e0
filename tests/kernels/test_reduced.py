"""Products in lower precision on the CPU: which passes take them on a processor with AMX.

oneDNN says by the name of an implementation whether it rounds operands. Here it is made to say what
it says elsewhere, so that the choice is tested on any processor; test_precision.py tests that what
is chosen computes as it claims, on the processor at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cases
import check
import numpy as np
import pytest
from cases import ConvCase, DenseCase
from passes import conv_passes, dense_passes

import convnet
from convnet import ops
from convnet.common.dtypes import stored_type

AMX = "brgconv:avx512_core_amx"
PASSES = ("fprop", "dgrad", "wgrad")
Says = Callable[[str], None]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Iterator[Says]:
    """Makes oneDNN say a name for every product in lower precision, and leaves the choice to it."""
    monkeypatch.setenv("CONVNET_WINOGRAD", "auto")
    monkeypatch.setenv("CONVNET_AMX", "off")
    with convnet.backend.use("cpu") as backend:
        yield backend.module.pretend_implementation
        backend.module.pretend_implementation("")


ROUNDS = (
    "brgconv:avx512_core_amx",
    "brgconv_1x1:avx512_core_amx",
    "brg_fwd:avx512_core_amx+brgconv:avx512_core_amx",
    "ip:any+brgemm:avx512_core_amx",
    "brg:avx512_core_amx",
    "brgemm_bwd_w:avx512_core_amx_fp16",
    "brg_conv_fwd:avx10_1_512_amx",
)
COMPUTES_IN_FLOAT32 = (
    "brgconv:avx512_core",
    "brg:avx512_core_bf16",
    "brgemm_bwd_d:avx512_core",
    "jit:avx512_core",
    "jit:avx2",
    "gemm:jit:f32",
    "ref:any",
)
POINTWISE = (8, 27, 27, 96), (256, 1, 1, 96)  # of no other algorithm


@pytest.mark.parametrize("name", ROUNDS + COMPUTES_IN_FLOAT32)
def test_what_a_name_means(says: Says, name: str) -> None:
    says(name)
    ending = ", bf16" if name in ROUNDS else ""
    for step in PASSES:
        assert ops.conv_kernel(step, *POINTWISE, precision="bf16") == f"direct{ending}"
        assert (
            ops.dense_kernel(step, (128, 1024), (512, 1024), precision="bf16") == f"matmul{ending}"
        )


CONVOLUTIONS = {  # x, w, pad and groups of the paper's net; conv1 has stride 4
    "conv1": ((224, 224, 3), (96, 11, 11, 3), 0, 1),
    "conv2": ((27, 27, 96), (256, 5, 5, 48), 2, 2),
    "conv3": ((13, 13, 256), (384, 3, 3, 256), 1, 1),
    "conv4": ((13, 13, 384), (384, 3, 3, 192), 1, 2),
    "conv5": ((13, 13, 384), (256, 3, 3, 192), 1, 2),
}
LAYERS = {"fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096)}


def kernel(layer: str, step: str, batch: int, precision: str, dtype: str = "float32") -> str:
    given = {"precision": precision, "dtype": dtype}
    if layer in LAYERS:
        return ops.dense_kernel(step, (batch, LAYERS[layer][1]), LAYERS[layer], **given)
    image, filters, pad, groups = CONVOLUTIONS[layer]
    options = {"stride": 4 if layer == "conv1" else 1, "pad": pad, "groups": groups}
    shapes = (batch, *image), filters
    return ops.conv_kernel(step, *shapes, **options, rounding="ceil", **given)


@pytest.mark.parametrize("batch", [1, 3, 32, 128])
@pytest.mark.parametrize("layer", [*CONVOLUTIONS, *LAYERS])
def test_without_such_a_product_the_kernel_is_that_of_fp32(
    says: Says, layer: str, batch: int
) -> None:
    says("brgconv:avx512_core")
    for step in PASSES:
        expected = kernel(layer, step, batch, "fp32")
        assert kernel(layer, step, batch, "bf16") == expected
        assert kernel(layer, step, batch, "tf32") == expected


@pytest.mark.parametrize("step", ["fprop", "dgrad"])
@pytest.mark.parametrize("batch", [32, 128])
@pytest.mark.parametrize("layer", list(CONVOLUTIONS))
def test_with_amx_winograd_may_still_win(
    says: Says, monkeypatch: pytest.MonkeyPatch, layer: str, batch: int, step: str
) -> None:
    """A convolution in lower precision costs four fifths of a direct one in float32."""
    says(AMX)
    fp32 = kernel(layer, step, batch, "fp32")
    assert fp32.startswith(("Winograd, ", "space to depth"))
    assert kernel(layer, step, batch, "bf16") == fp32
    monkeypatch.setenv("CONVNET_WINOGRAD", "off")
    assert kernel(layer, step, batch, "bf16") == "direct, bf16"
    few = (64, 27, 27, 30), (30, 3, 3, 30)  # channels: Winograd saves less than a fifth
    monkeypatch.setenv("CONVNET_WINOGRAD", "auto")
    assert ops.conv_kernel(step, *few, pad=1) == "Winograd, F(3 x 3, 3 x 3)"
    assert ops.conv_kernel(step, *few, pad=1, precision="bf16") == "direct, bf16"


@pytest.mark.parametrize(
    ("rows", "ending"), [(1, ""), (3, ""), (8, ""), (16, ", bf16"), (128, ", bf16")]
)
@pytest.mark.parametrize("layer", LAYERS)
def test_few_rows_are_not_worth_rounding_the_weights(
    says: Says, layer: str, rows: int, ending: str
) -> None:
    says(AMX)
    for step in ("fprop", "dgrad"):
        assert kernel(layer, step, rows, "bf16") == kernel(layer, step, rows, "fp32") + ending


def test_plain_sums_stay_plain(says: Says) -> None:
    says(AMX)
    assert ops.conv_kernel("fprop", *POINTWISE, precision="ffma") == "direct"
    assert ops.dense_kernel("wgrad", (128, 1024), (512, 1024), precision="ffma") == "matmul"


def test_the_description_names_the_passes(says: Says) -> None:
    says(AMX)
    for precision, name in (("bf16", "stored as bfloat16; bfloat16"), ("tf32", "TF32")):
        said = ops.precision_description(precision)
        assert said.startswith(f"{name} by oneDNN ")
        assert "conv fprop, conv dgrad, conv wgrad, dense fprop, dense dgrad, dense wgrad" in said
    says("brgconv:avx512_core")
    assert ops.precision_description("bf16") == (
        "stored as bfloat16; products as fp32: this processor has no unit for those of bfloat16"
    )


@pytest.mark.parametrize("name", [AMX, "jit:avx512_core"])
def test_results_are_right_whatever_is_chosen(
    says: Says, rng: np.random.Generator, name: str
) -> None:
    """And the scratch memory is enough for it. Whole numbers are the same in bfloat16."""
    says(name)
    backend = convnet.backend.get("cpu")
    for conv in (
        ConvCase("winograd", 2, 9, 8, 16, 80, 5, 5, pad=(2, 2), groups=2),
        ConvCase("space-to-depth", 2, 24, 24, 3, 96, 11, 11, stride=(4, 4), rounding="ceil"),
        ConvCase("strided", 3, 11, 13, 12, 40, 4, 3, stride=(2, 3), pad=(1, 2)),
        ConvCase("pointwise", 3, 7, 5, 24, 40, 1, 1),
    ):
        for _, actual, expected in conv_passes(backend, conv, cases.integers, rng, "bf16"):
            check.equal(actual, expected)
    for dense in (DenseCase("few-rows", 2, 200, 130), DenseCase("rows", 65, 200, 130)):
        for _, actual, expected in dense_passes(backend, dense, cases.integers, rng, "bf16"):
            check.equal(actual, expected)


def test_pretending_is_for_the_cpu(kernels_backend: convnet.backend.Backend) -> None:
    with pytest.raises(ValueError, match="pretend_implementation: no library forms these products"):
        kernels_backend.module.pretend_implementation(AMX)


# ---- bfloat16 arrays --------------------------------------------------------------------------

HALF = {"precision": "bf16", "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("name", "ending"),
    [(AMX, ", bf16"), ("brgconv:avx512_core_bf16", ", bf16"), ("brgconv:avx512_core", "")],
)
def test_bfloat16_arrays_want_a_unit_for_them(says: Says, name: str, ending: str) -> None:
    says(name)
    for step in PASSES:
        assert ops.conv_kernel(step, *POINTWISE, **HALF) == f"direct{ending}"
        assert ops.dense_kernel(step, (128, 1024), (512, 1024), **HALF) == f"matmul{ending}"
        in_float32 = HALF | {"precision": "fp32"}
        assert ops.conv_kernel(step, *POINTWISE, **in_float32) == "direct"


@pytest.mark.parametrize("layer", [*CONVOLUTIONS, *LAYERS])
def test_with_amx_bfloat16_arrays_are_multiplied_as_they_lie(says: Says, layer: str) -> None:
    """Nothing is rounded on the way but w, so that Winograd's algorithm saves too little. Not in
    conv1: its three channels fill a fifth of oneDNN's tiles in wgrad, and no net asks for dgrad."""
    says(AMX)
    for step in PASSES:
        reduced = kernel(layer, step, 128, **HALF).endswith(", bf16")
        if (layer, step) != ("conv1", "dgrad"):
            assert reduced == ((layer, step) != ("conv1", "wgrad"))


@pytest.mark.parametrize("name", [AMX, "jit:avx512_core"])
def test_results_of_bfloat16_arrays_are_right_whatever_is_chosen(
    says: Says, rng: np.random.Generator, name: str
) -> None:
    says(name)
    backend, half = convnet.backend.get("cpu"), stored_type("bfloat16")
    conv = ConvCase("strided", 3, 11, 13, 12, 40, 4, 3, stride=(2, 3), pad=(1, 2))
    dense = DenseCase("rows", 65, 200, 130)
    for passes, case in ((conv_passes, conv), (dense_passes, dense)):
        for _, actual, expected in passes(backend, case, cases.integers, rng, "bf16", stored=half):
            check.equal(actual, expected.astype(actual.dtype))
