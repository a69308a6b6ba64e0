"""A lower bound on the time of counted kernels on a GPU that is only named.

Each resource that a kernel uses takes some time at the least: what is counted, by the rate that the
GPU has of it (``gpus.toml``). A kernel cannot be faster than the slowest of them. Blocks are spread
over the SMs as evenly as their number allows; where one SM has more of them than the average, what
is per SM takes as much longer.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((files("convnet.counters") / "gpus.toml").read_text(encoding="utf-8"))


def gpu_names() -> list[str]:
    """The GPUs that have ceilings, such as ``h200``."""
    return [name for name in _data() if name != "rules"]


def leaves_out() -> list[str]:
    """What the bound knows nothing of, each in a few words."""
    return list(_data()["rules"]["leaves_out"])


@dataclass(frozen=True)
class Bound:
    """The least time of a kernel's launches together.

    Attributes:
        seconds: of the slowest resource.
        resource: that one: ``issue``, ``integer``, ``float``, ``tensor``, ``shared`` or ``dram``.
        each: seconds by resource.
        l2_seconds: to move every sector that warps ask for once through L2; not part of the bound,
            as L1 may hold some. None where the GPU's rate is not known.
    """

    seconds: float
    resource: str
    each: dict[str, float]
    l2_seconds: float | None


def bound(kernel: dict[str, Any], gpu: str) -> Bound:
    """The bound of one kernel.

    Args:
        kernel: an element of `convnet.counters.counts.kernels`.
        gpu: one of `gpu_names`.

    Raises:
        ValueError: an unknown GPU, or one that has no unit for what the kernel does.
    """
    if gpu not in gpu_names():
        raise ValueError(f"gpu: expected one of {', '.join(gpu_names())}, got {gpu!r}")
    rules, limits = _data()["rules"], _data()[gpu]
    clocks = limits["sms"] * limits["clock_ghz"] * 1e9  # of all SMs together, a second
    counts = kernel["instructions"]
    issued = sum(n for kind, n in counts.items() if kind not in rules["not_issued"])
    uneven = _unevenness(kernel, limits["sms"])
    each = {
        "issue": uneven * issued / (limits["schedulers"] * clocks),
        "integer": uneven * counts.get("integer", 0) * 32 / (limits["integer_lanes"] * clocks),
        "float": uneven * counts.get("float", 0) * 32 / (limits["float_lanes"] * clocks),
        "tensor": uneven * _tensor_seconds(kernel, limits),
        "shared": uneven
        * kernel["shared_wavefronts"]
        / (rules["shared_wavefronts_per_clock"] * clocks),
        "dram": (kernel["dram_read_bytes"] + kernel["dram_write_bytes"])
        / (limits["dram_gbytes"] * 1e9),
    }
    slowest = max(each, key=lambda resource: each[resource])
    l2 = limits.get("l2_gbytes")
    l2_seconds = 32 * kernel["global_sectors"] / (l2 * 1e9) if l2 else None
    return Bound(each[slowest], slowest, each, l2_seconds)


def _tensor_seconds(kernel: dict[str, Any], limits: dict[str, Any]) -> float:
    seconds = 0.0
    for kind in ("tf32", "bf16"):
        flops = kernel[f"{kind}_flops"]
        if flops and f"{kind}_tflops" not in limits:
            raise ValueError(f"{limits['name']} has no {kind} tensor cores")
        if flops:
            seconds += flops / (limits[f"{kind}_tflops"] * 1e12)
    return seconds


def _unevenness(kernel: dict[str, Any], sms: int) -> float:
    """The blocks of the SM that has the most, over the average; of several grids, their mean."""
    longest = average = 0.0
    for shape in kernel["block_shapes"]:
        blocks = shape["blocks"] / shape["launches"]
        longest += shape["launches"] * math.ceil(blocks / sms)
        average += shape["launches"] * blocks / sms
    return longest / average if average else 1.0
