"""What docs/kernels.md says of the kernels' accesses, counted: no bank met twice, whole sectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import convnet.backend
from convnet import ops
from convnet.backend import Backend
from convnet.common.dtypes import stored_type
from convnet.counters.counts import counted


@pytest.fixture
def gpu() -> Iterator[Backend]:
    pytest.importorskip("convnet._vgpu")
    with convnet.backend.use("vgpu") as backend:
        yield backend


def kernels_of(gpu: Backend, call: Any) -> dict[str, dict[str, Any]]:
    """Counters by the kernel's name without arguments."""
    with counted(gpu.module) as kernels:
        call()
    return {
        kernel["kernel"].partition("_kernel")[0].rpartition(":")[2]: kernel for kernel in kernels
    }


def needs(gpu: Backend, capability: int) -> None:
    """Leaves a test out on an older device (VGPU_CC), which has not the kernels."""
    found = re.search(r"sm_([0-9]+)", gpu.describe())
    if found is None or int(found[1]) < capability:
        pytest.skip(f"kernels for compute capability {capability / 10}")


def ratio(kernel: dict[str, Any], metric: str) -> float:
    return float(kernel[metric] / kernel[f"{metric}_ideal"])


X, W = (2, 13, 13, 64), (64, 3, 3, 64)


def convolution(gpu: Backend, step: str, precision: str) -> Any:
    """A pass of a 3 x 3 convolution of 64 channels to 64, on zeros."""
    x, w, b, y = gpu.zeros(X), gpu.zeros(W), gpu.zeros(W[:1]), gpu.zeros((*X[:3], W[0]))
    options: dict[str, Any] = {"pad": (1, 1), "precision": precision}
    if step == "fprop":
        return lambda: ops.conv_fprop(x, w, b, out=y, **options)
    if step == "dgrad":
        return lambda: ops.conv_dgrad(y, w, X, out=x, **options)
    return lambda: ops.conv_wgrad(x, y, W, out=(w, b), **options)


@pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
def test_simt_tiles_meet_no_bank_twice_and_move_whole_sectors(gpu: Backend, step: str) -> None:
    kernel = kernels_of(gpu, convolution(gpu, step, "ffma"))[f"conv_{step}"]
    assert ratio(kernel, "shared_wavefronts") == 1.0
    assert ratio(kernel, "global_sectors") < 1.02


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("step", ["fprop", "dgrad", "wgrad"])
def test_tensor_core_tiles_meet_no_bank_twice(gpu: Backend, step: str, precision: str) -> None:
    """Results are stored 16 bytes at a time, half a sector: up to 1.25 times the sectors here."""
    needs(gpu, 80)
    kernel = kernels_of(gpu, convolution(gpu, step, precision))[f"conv_{step}"]
    assert ratio(kernel, "shared_wavefronts") == 1.0
    assert ratio(kernel, "global_sectors") < 1.3
    # 3xTF32 is three products; tiles reach over the edges of the result
    products = {"fp32": 3, "tf32": 1, "bf16": 1}[precision]
    flops = kernel["tf32_flops"] + kernel["bf16_flops"]
    least = products * 2 * 2 * 13 * 13 * 64 * 64 * 9
    assert least <= flops < 1.6 * least


@pytest.mark.parametrize(
    ("step", "limit"),
    [("fprop", 1.6), ("dgrad", 1.6), ("wgrad", 1.3)],
)
def test_hopper_kernels_meet_banks_as_often_as_is_known(
    gpu: Backend, step: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where successive pixels of a slab lie on two lines."""
    needs(gpu, 90)
    monkeypatch.setenv("CONVNET_WGMMA", "always")
    kernels = kernels_of(gpu, convolution(gpu, step, "tf32"))
    kernel = kernels["wgmma_wgrad" if step == "wgrad" else "wgmma_conv"]
    assert 1.0 < ratio(kernel, "shared_wavefronts") < limit
    assert ratio(kernel, "global_sectors") < 1.05
    if step != "wgrad":
        assert ratio(kernels["fill_filters"], "global_sectors") == 1


@pytest.mark.parametrize("wgmma", ["off", "always"])
def test_split_sums_of_both_gradients_are_one_launch(
    gpu: Backend, wgmma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVNET_WGMMA", wgmma)
    kernels = kernels_of(gpu, convolution(gpu, "wgrad", "tf32"))
    assert {name: kernel["launches"] for name, kernel in kernels.items()} == {
        "wgmma_wgrad" if "wgmma_wgrad" in kernels else "conv_wgrad": 1,
        "split_sum": 1,
    }


POOL = {"size": 3, "stride": 2}
NORM1, NORM2 = ((1, 27, 27, 96), {"groups": 2}), ((1, 13, 13, 256), {"groups": 2})


def memory_bound(
    gpu: Backend, shape: tuple[int, ...], norm: dict[str, int], dtype: Any
) -> Iterator[tuple[str, Any]]:
    n, h, w, c = shape
    x, dy, y = gpu.zeros(shape, dtype), gpu.zeros(shape, dtype), gpu.empty(shape, dtype)
    pooled = n, (h - 3) // 2 + 1, (w - 3) // 2 + 1, c
    z, won = gpu.zeros(pooled, dtype), gpu.zeros(pooled, np.uint8)
    yield "map", lambda: ops.relu_fprop(x, out=y)
    yield "map_pair", lambda: ops.relu_bprop(x, dy, out=y)
    yield "dropout", lambda: ops.dropout_fprop(x, 0.5, seed=1, layer=0, step=0, out=y)
    yield "maxpool_fprop", lambda: ops.maxpool_fprop(x, **POOL, out=(z, won))
    yield "maxpool_bprop", lambda: ops.maxpool_bprop(z, won, shape, **POOL, out=y)
    yield "avgpool_fprop", lambda: ops.avgpool_fprop(x, **POOL, out=z)
    yield "avgpool_bprop", lambda: ops.avgpool_bprop(z, shape, **POOL, out=y)
    yield "blur", lambda: ops.blur_fprop(x, 5, 1.2, out=y)
    yield "peer", lambda: ops.peer_copy(y.reshape(-1, c), x.reshape(-1, c))
    yield "lrn_fprop_warp", lambda: ops.lrn_fprop(x, **norm, out=y)
    yield "lrn_bprop_warp", lambda: ops.lrn_bprop(x, dy, **norm, out=y)
    yield "lrn_maxpool_fprop", lambda: ops.lrn_maxpool_fprop(x, **POOL, **norm, out=(z, won))
    yield (
        "lrn_maxpool_bprop_warp",
        lambda: ops.lrn_maxpool_bprop(x, z, won, **POOL, **norm, out=y),
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "norm"), [NORM1, NORM2], ids=["norm1", "norm2"])
def test_memory_bound_kernels_move_whole_sectors(
    gpu: Backend, shape: tuple[int, ...], norm: dict[str, int], dtype: str
) -> None:
    """But LRN's: where warps overlap by lanes, these shift the others against sectors; and where it
    is one with the pool, a thread reads what its neighbours read, in part."""
    straddles = shape == NORM1[0]
    limits = {"lrn_maxpool_fprop": 1.15 if dtype == "float32" else 1.55}
    if straddles:
        limits |= dict.fromkeys(("lrn_fprop_warp", "lrn_bprop_warp"), 1.22)
        limits |= {"lrn_maxpool_bprop_warp": 1.2}
    for name, call in memory_bound(gpu, shape, norm, stored_type(dtype)):
        found = ratio(kernels_of(gpu, call)[name], "global_sectors")
        assert 1 <= found <= limits.get(name, 1.0), name


def test_bfloat16_takes_half_the_bytes(gpu: Backend) -> None:
    def bytes_moved(dtype: str) -> dict[str, int]:
        moved = {}
        for name, call in memory_bound(gpu, *NORM2, stored_type(dtype)):
            kernel = kernels_of(gpu, call)[name]
            moved[name] = kernel["dram_read_bytes"] + kernel["dram_write_bytes"]
        return moved

    full, half = bytes_moved("float32"), bytes_moved("bfloat16")
    for name in full:
        winners = 36 * 256 if "maxpool" in name else 0  # bytes in either
        assert half[name] - winners == (full[name] - winners) / 2, name


def test_counts_of_an_operation_do_not_move(gpu: Backend) -> None:
    calls = [convolution(gpu, "wgrad", "fp32") for _ in range(2)]
    assert kernels_of(gpu, calls[0]) == kernels_of(gpu, calls[1])


def test_zeros_begin_at_cache_lines(gpu: Backend) -> None:
    """Which sectors are touched depends on it."""
    for shape in ((3,), (5, 7), (2, 13, 13, 64)):
        assert gpu.zeros(shape).ctypes.data % 64 == 0
        assert gpu.empty(shape, np.float32).ctypes.data % 64 == 0
