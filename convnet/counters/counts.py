"""Counting what the kernels of the virtual GPU do: `counted` around calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Of a kernel or of one of its lines: what may be added up.
METRICS = (
    "warp_instructions",
    "thread_instructions",
    "float_flops",
    "tf32_flops",
    "bf16_flops",
    "shared_wavefronts",
    "shared_wavefronts_ideal",
    "global_sectors",
    "global_sectors_ideal",
    "shared_bytes",
    "global_bytes",
    "other_bytes",
)


@contextmanager
def counted(module: ModuleType) -> Iterator[list[dict[str, Any]]]:
    """Counts the launches within; the list is filled at the end.

    Args:
        module: the compiled module of a device ``vgpu`` (``backend.module``).

    Yields:
        A dict for each kernel, by name: ``kernel``, ``launches``, ``blocks``, ``warps``,
        ``instructions`` by kind, `METRICS`, ``dram_read_bytes`` and ``dram_write_bytes`` (of the
        sectors that a launch touches, once), ``block_shapes``, and ``lines``, which has `METRICS`
        and ``instructions`` for each ``source`` line. Where ``VGPU_REGISTERS`` names a table of a
        build with machine code, also ``registers`` of a thread, and ``blocks_per_sm`` of each
        block shape: how many a multiprocessor of the device holds.

    Raises:
        ValueError: the device is not a virtual GPU.
    """
    if not hasattr(module, "counters_start"):
        raise ValueError("counters: expected a device vgpu: kernels are counted by the virtual GPU")
    found: list[dict[str, Any]] = []
    module.counters_start()
    try:
        yield found
    finally:
        found += json.loads(module.counters())


def total(kernels: list[dict[str, Any]]) -> dict[str, Any]:
    """Several kernels as one, without their lines: of a pass that takes more than one."""
    sums: dict[str, Any] = {name: sum(kernel[name] for kernel in kernels) for name in METRICS}
    for name in ("launches", "blocks", "warps", "dram_read_bytes", "dram_write_bytes"):
        sums[name] = sum(kernel[name] for kernel in kernels)
    kinds = sorted({kind for kernel in kernels for kind in kernel["instructions"]})
    sums["instructions"] = {
        kind: sum(kernel["instructions"].get(kind, 0) for kernel in kernels) for kind in kinds
    }
    sums["block_shapes"] = [shape for kernel in kernels for shape in kernel["block_shapes"]]
    return sums
