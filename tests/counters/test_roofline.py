"""The bound on the time of counted kernels, worked out by hand from the ceilings in gpus.toml."""

from __future__ import annotations

from typing import Any

import pytest

from convnet.counters.counts import METRICS, counted, total
from convnet.counters.report import Report
from convnet.counters.roofline import bound, gpu_names, leaves_out
from convnet.counters.table import comparison_line, kernel_line, short_name, short_source

H200_CLOCKS = 132 * 1.98e9  # of all SMs, a second


def kernel(**counts: Any) -> dict[str, Any]:
    """A kernel of 132 blocks, one for each SM of an H200, that does nothing but what is given."""
    shape = {"threads": 128, "shared_bytes": 0, "launches": 1, "blocks": counts.pop("blocks", 132)}
    nothing = dict.fromkeys(METRICS, 0) | {"dram_read_bytes": 0, "dram_write_bytes": 0}
    facts = {"launches": 1, "blocks": shape["blocks"], "warps": 4, "kernel": "void f(int)"}
    return nothing | facts | {"instructions": {}, "block_shapes": [shape], "lines": []} | counts


@pytest.mark.parametrize(
    ("counts", "resource", "seconds"),
    [
        ({"dram_read_bytes": 3e9, "dram_write_bytes": 1.3e9}, "dram", 1e-3),
        ({"bf16_flops": 989e9}, "tensor", 1e-3),
        ({"tf32_flops": 494e9, "bf16_flops": 989e9}, "tensor", 2e-3),
        ({"shared_wavefronts": int(H200_CLOCKS)}, "shared", 1.0),
        # four schedulers; 64 lanes of integers are half of what they could issue
        ({"instructions": {"control": int(4 * H200_CLOCKS)}}, "issue", 1.0),
        ({"instructions": {"integer": int(2 * H200_CLOCKS)}}, "integer", 1.0),
        ({"instructions": {"float": int(4 * H200_CLOCKS)}}, "issue", 1.0),
        # the second wave is one block: an SM has two, where 133 / 132 are the average
        ({"shared_wavefronts": int(H200_CLOCKS), "blocks": 133}, "shared", 2 / (133 / 132)),
        ({"dram_read_bytes": 4.3e9, "blocks": 133}, "dram", 1e-3),
    ],
)
def test_bound(counts: dict[str, Any], resource: str, seconds: float) -> None:
    found = bound(kernel(**counts), "h200")
    assert (found.resource, found.seconds) == (resource, pytest.approx(seconds, rel=1e-9))


def test_moves_are_not_issued() -> None:
    found = bound(kernel(instructions={"move": 10**9, "parameter": 10**9}), "h200")
    assert found.seconds == 0


def test_l2_is_beside_the_bound() -> None:
    found = bound(kernel(global_sectors=5.5e12 / 32), "h200")
    assert (found.seconds, found.l2_seconds) == (0, pytest.approx(1.0))
    assert bound(kernel(), "t4").l2_seconds is None


def test_every_gpu_has_its_ceilings_and_what_is_left_out_is_said() -> None:
    assert {"h200", "a100", "t4"} <= set(gpu_names())
    for gpu in gpu_names():
        assert bound(kernel(dram_read_bytes=1e9), gpu).resource == "dram"
    assert any("latency" in line for line in leaves_out())


def test_what_a_gpu_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="has no tf32 tensor cores"):
        bound(kernel(tf32_flops=1), "t4")
    with pytest.raises(ValueError, match="gpu: expected one of h200"):
        bound(kernel(), "h300")


def test_a_module_without_counters_is_refused() -> None:
    import types

    with pytest.raises(ValueError, match="expected a device vgpu"), counted(types.ModuleType("m")):
        pass


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void convnet::(anonymous namespace)::lrn_kernel<4>(int, float*)", "lrn_kernel<4>"),
        ("convnet::f<g(int)>(int)", "f<g(int)>"),
        ("plain", "plain"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short


def test_short_sources() -> None:
    source = "/a/device.h:7 (void f<1, (g)0>), inlined at b/tile.cuh:3 (h), inlined at k.cu:9"
    assert short_source(source) == "device.h:7 < tile.cuh:3 < k.cu:9"
    assert short_source("?") == "?"


def test_rows_and_comparison() -> None:
    shown: list[str] = []
    report = Report("h200", 1, shown.append)
    counts = {"shared_wavefronts": 8, "shared_wavefronts_ideal": 4, "warp_instructions": 7}
    line = dict.fromkeys(METRICS, 0) | {"source": "f.cu:3"} | counts
    report.add("conv1 fprop", [kernel(**counts, lines=[line], dram_read_bytes=32)])
    report.close()
    text = "\n".join(shown)
    assert "8 2.00x" in text
    assert "f.cu:3" in text
    assert "It leaves out:" in text

    before = total([kernel(shared_wavefronts=4, warp_instructions=7, dram_read_bytes=32)])
    now = total(report.rows[0]["kernels"])
    assert comparison_line("a", now, before) == "a: shared_wavefronts 4 -> 8 (2.000x)"
    assert comparison_line("a", now, now) == "a: the same"

    shown.clear()
    report.compare([{"name": "conv2 fprop", "kernels": [kernel()]}])
    assert shown == ["conv1 fprop: only here", "conv2 fprop: only there"]


def test_a_kernel_without_shared_memory_has_no_ratio() -> None:
    assert " - " in kernel_line(kernel())
