"""The table of a program: what a step does, in which order, and where everything lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convnet.common.text import aligned
from convnet.nn.plan import Placement, peak, plan
from convnet.nn.program import Program
from convnet.nn.trace import WAIT, Call, Tensor, Trace

_PRODUCTS = ("conv", "local", "dense")


def flops(call: Call) -> int:
    """Floating-point operations of a convolution or dense layer, a multiply-add being two; 0 for
    other operations, which memory limits."""
    family, _, rest = call.op.name.partition("_")
    if family not in _PRODUCTS:
        return 0
    if rest == "prepare":
        return 0
    pixels = call["y" if rest[0] == "f" else "dy"]
    shape = call.args.get("w_shape") or call["dw" if "dw" in call.args else "w"].shape
    if family == "local":  # filters of its own at each place
        return 2 * pixels.shape[0] * math.prod(shape)
    return 2 * pixels.size // pixels.shape[-1] * math.prod(shape)


def program_table(program: Program, trace: Trace, constant: Program | None = None) -> str:
    """One line a call: its number, operation, nodes, what it writes (shape, type and bytes), FLOPs,
    and the offset in the block of its device, in KiB; then what the block takes.

    "out" is an output of the program or an input, "state" what lasts from step to step; "constant"
    what the calls of `constant` have made once, which come first.
    """
    places = [plan(program, number) for number in range(len(trace.devices))]
    rows: list[tuple[str, ...]] = [
        ("#", "call", "nodes", "writes", "type", "KiB", "MFLOP", "at KiB")
    ]
    once = [] if constant is None else constant.calls
    for number, call in enumerate([*once, *program.calls]):
        if call.op is WAIT:
            rows.append((str(number), f"wait for {call['other'].device}", *[""] * 6))
            continue
        written = [tensor for tensor in call.writes if tensor.root.kind != "scratch"]
        work = flops(call)
        rows.append(
            (
                str(number),
                call.op.name,
                ", ".join(call.nodes),
                _shapes(written),
                ", ".join(dict.fromkeys(tensor.dtype.name for tensor in written)),
                f"{sum(tensor.nbytes for tensor in written) / 1024:,.1f}",
                f"{work / 1e6:,.1f}" if work else "",
                ", ".join(dict.fromkeys(_where(tensor, places, trace) for tensor in written)),
            )
        )
    total = sum(map(flops, program.calls))
    rows.append(("total", "", "", "", "", "", f"{total / 1e6:,.1f}", ""))
    lines = []
    for number, (device, place) in enumerate(zip(trace.devices, places, strict=True)):
        least, where = peak(program, number)
        lines.append(
            f"{device.device}: a block of {place.size / 2**20:,.1f} MiB; alive at once are at most "
            f"{least / 2**20:,.1f}{f', in {where}' if where is not None else ''}"
        )
        if constant is not None:
            held = sum(root.nbytes for root in program.constants if root.traced_on is device)
            lines[-1] += f"; constants of {held / 2**20:,.1f} MiB"
    return aligned(rows, left=5) + "\n" + "\n".join(lines)


def _shapes(tensors: Sequence[Tensor]) -> str:
    shapes = ["x".join(map(str, tensor.shape)) for tensor in tensors[:2]]
    more = len(tensors) - len(shapes)
    return ", ".join(shapes) + (f" and {more} more" if more else "")


def _where(tensor: Tensor, places: Sequence[Placement], trace: Trace) -> str:
    root = tensor.root
    if root.kind in ("state", "constant"):
        return root.kind
    number = trace.devices.index(root.traced_on)
    offset = places[number].offset.get(root)
    return "out" if offset is None else f"{math.floor(offset / 1024):,}"
