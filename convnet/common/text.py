"""Text for people."""

from __future__ import annotations


def aligned(rows: list[tuple[str, ...]], left: int, totals: bool = True) -> str:
    """Rows as aligned text, the first `left` columns set to the left, the others to the right;
    `totals`: with rules below the first row, the heading, and above the last."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if not totals:
        return "\n".join(lines)
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
