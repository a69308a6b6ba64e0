"""The table that describes a net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convnet.graph import INPUT, input_names
from convnet.layer import Shape

if TYPE_CHECKING:
    from convnet.net import Net


def summary_table(net: Net, batch: int) -> str:
    """The nodes with output shapes, parameters and multiply-adds, then totals.

    Args:
        net: the net.
        batch: for which the memory of training is given.
    """
    rows: list[tuple[str, ...]] = [
        ("node", "type", "inputs", "output", "parameters", "multiply-adds")
    ]
    rows.append((INPUT, "", "", _times(net.in_shape), "", ""))
    above = INPUT
    for node in net.nodes:
        inputs = input_names(node)
        count = sum(param.size for param in node.layer.params)
        macs = node.layer.macs
        rows.append(
            (
                node.name,
                node.layer.describe(),
                "" if inputs == (above,) else ", ".join(inputs),
                _times(net.shapes[node.name]),
                f"as {node.share}" if node.share else f"{count:,}" if count else "",
                f"{macs:,}" if macs else "",
            )
        )
        above = node.name
    rows.append(("total", "", "", "", f"{net.parameter_count:,}", f"{net.macs:,}"))
    if not any(row[2] for row in rows[1:]):  # every node takes the one above
        rows = [row[:2] + row[3:] for row in rows]
    return (
        f"{_table(rows, left=len(rows[0]) - 3)}\n"
        f"{net.flops / 1e6:,.1f} MFLOP per image forward; "
        f"{net.memory_bytes(batch) / 2**20:,.1f} MiB to train with a batch of {batch}"
    )


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _table(rows: list[tuple[str, ...]], left: int) -> str:
    """Rows as aligned text, the first `left` columns set to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
