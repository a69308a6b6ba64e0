"""Counters as text: a table of kernels, the lines that cost most, two builds side by side."""

from __future__ import annotations

from typing import Any

from convnet.counters.roofline import bound, leaves_out

HEADER = (
    f"{'kernel':44}{'launches':>9}{'blocks':>8}{'instructions':>14}{'GFLOP':>9}"
    f"{'wavefronts':>18}{'sectors':>18}{'DRAM MB':>9}"
)


def kernel_line(kernel: dict[str, Any]) -> str:
    """One row under `HEADER`. Wavefronts and sectors: how many, and times the ideal."""
    flops = sum(kernel[f"{kind}_flops"] for kind in ("float", "tf32", "bf16")) / 1e9
    dram = (kernel["dram_read_bytes"] + kernel["dram_write_bytes"]) / 1e6
    return (
        f"{short_name(kernel['kernel']):44.44}{kernel['launches']:9}{kernel['blocks']:8}"
        f"{kernel['warp_instructions']:14}{flops:9.3f}{_against(kernel, 'shared_wavefronts'):>18}"
        f"{_against(kernel, 'global_sectors'):>18}{dram:9.2f}"
    )


def residency_line(kernel: dict[str, Any]) -> str:
    """Registers of a thread, and how many blocks of each shape an SM of the device holds."""
    shapes = [
        f"{shape['blocks_per_sm']} blocks of {shape['threads']} threads and "
        f"{shape['shared_bytes']} bytes of shared memory"
        for shape in kernel["block_shapes"]
    ]
    return f"  {kernel['registers']} registers; on an SM {', '.join(shapes)}"


def short_name(kernel: str) -> str:
    """``lrn_kernel<4>`` of a demangled name: without namespaces and parameters."""
    name = kernel.replace("(anonymous namespace)::", "").replace("convnet::", "")
    depth = 0
    for at, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            name = name[:at]
            break
    return name.removeprefix("void ")


def _against(kernel: dict[str, Any], metric: str) -> str:
    ideal = kernel[f"{metric}_ideal"]
    if not ideal:
        return "-"
    return f"{kernel[metric]} {kernel[metric] / ideal:.2f}x"


def short_source(source: str) -> str:
    """``mma.cuh:152 < operands.cuh:75 < fprop.cu:72`` of a line and the calls that it
    was inlined by: files without their folders, and no names of functions."""
    places = [place.partition(" (")[0] for place in source.split(", inlined at ")]
    return " < ".join(place.rpartition("/")[2] for place in places)


def lines_table(kernel: dict[str, Any], most: int = 8) -> list[str]:
    """The lines of a kernel that cost the most wavefronts and sectors beyond the ideal, then the
    most instructions."""

    def waste(line: dict[str, Any]) -> tuple[int, int]:
        wavefronts = line["shared_wavefronts"] - line["shared_wavefronts_ideal"]
        sectors = line["global_sectors"] - line["global_sectors_ideal"]
        return wavefronts + sectors, line["warp_instructions"]

    rows = sorted(kernel["lines"], key=waste, reverse=True)[:most]
    return [
        f"  {line['warp_instructions']:12} instructions{_against(line, 'shared_wavefronts'):>18}"
        f" wavefronts{_against(line, 'global_sectors'):>18} sectors  {short_source(line['source'])}"
        for line in rows
    ]


def bound_line(kernel: dict[str, Any], gpu: str) -> str:
    """The bound on a GPU: which resource, and the others' share of it."""
    found = bound(kernel, gpu)
    others = sorted(found.each.items(), key=lambda item: -item[1])[1:4]
    rest = ", ".join(f"{name} {seconds / found.seconds:.0%}" for name, seconds in others if seconds)
    l2 = "" if found.l2_seconds is None else f"; L2 without L1 {1e6 * found.l2_seconds:.2f} us"
    return f"  at least {1e6 * found.seconds:.2f} us on {gpu}: {found.resource} ({rest}){l2}"


def bound_notes(gpu: str) -> list[str]:
    """What stands below a table of bounds."""
    return [
        f"A bound for {gpu}, not a prediction. It leaves out:",
        *(f"  {n}" for n in leaves_out()),
    ]


COMPARED = (
    "warp_instructions",
    "shared_wavefronts",
    "global_sectors",
    "dram_read_bytes",
    "dram_write_bytes",
)


def comparison_line(name: str, now: dict[str, Any], before: dict[str, Any]) -> str:
    """A row of two builds: each metric that changed, as before -> now."""
    changes = [
        f"{metric} {before[metric]} -> {now[metric]}"
        + (f" ({now[metric] / before[metric]:.3f}x)" if before[metric] else "")
        for metric in COMPARED
        if now[metric] != before[metric]
    ]
    return f"{name}: {'; '.join(changes) or 'the same'}"
