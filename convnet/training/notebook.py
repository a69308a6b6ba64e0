"""A run as a notebook shows it: a table of its epochs and the curves of its losses."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

_WIDTH, _HEIGHT, _MARGIN = 420, 160, 34
_SHOWN = 12  # rows; of longer runs the first and the last
_COLUMNS = (
    ("epoch", "epoch", "d"),
    ("loss", "loss", ".4f"),
    ("top1", "top-1 %", ".2f"),
    ("val_loss", "validation loss", ".4f"),
    ("val_top1", "top-1 %", ".2f"),
    ("lr", "lr", "g"),
)


def page(title: str, history: Sequence[Record]) -> str:
    """HTML with a title, the curves and the table.

    Args:
        title: in a line above; history: the records of a run.
    """
    epochs = [record for record in history if record["kind"] == "epoch"]
    return f"<div><b>{html.escape(title)}</b>{_curves(epochs)}{_table(epochs)}</div>"


def _table(epochs: list[Record]) -> str:
    rows = epochs if len(epochs) <= _SHOWN else [*epochs[: _SHOWN // 2], *epochs[-_SHOWN // 2 :]]
    head = "".join(f"<th>{title}</th>" for _, title, _ in _COLUMNS)
    lines = [
        f"<tr>{''.join(_cell(record, *column) for column in _COLUMNS)}</tr>" for record in rows
    ]
    if len(rows) < len(epochs):
        lines.insert(_SHOWN // 2, f"<tr><td colspan={len(_COLUMNS)}>...</td></tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(record: Record, key: str, _title: str, form: str) -> str:
    return f"<td>{record[key]:{form}}</td>" if key in record else "<td></td>"


def _curves(epochs: list[Record]) -> str:
    """The training and the validation loss over the epochs."""
    series = {
        name: [(record["epoch"], record[key]) for record in epochs if key in record]
        for name, key in (("training", "loss"), ("validation", "val_loss"))
    }
    points = [point for line in series.values() for point in line]
    if len(epochs) < 2 or not points:
        return ""
    last, top = max(x for x, _ in points), max(y for _, y in points) or 1.0
    lines = []
    for (name, line), colour in zip(series.items(), ("#1f77b4", "#d62728"), strict=True):
        places = " ".join(
            f"{_MARGIN + (x - 1) / max(1, last - 1) * _WIDTH:.1f},{_HEIGHT * (1 - y / top):.1f}"
            for x, y in line
        )
        lines.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5">'
            f"<title>{name} loss</title></polyline>"
        )
    axis = (
        f'<path d="M{_MARGIN} 0V{_HEIGHT}H{_MARGIN + _WIDTH}" fill="none" stroke="#888"/>'
        f'<text x="0" y="10" font-size="10">{top:.2f}</text>'
        f'<text x="0" y="{_HEIGHT + 14}" font-size="10">epoch 1 to {last}: loss, '
        f"training blue, validation red</text>"
    )
    size = f'width="{_WIDTH + _MARGIN}" height="{_HEIGHT + 20}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{axis}{"".join(lines)}</svg>'
