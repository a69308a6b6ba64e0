"""src/kernels/gemm/tuned.inc, the table of measured tiles: reading it and writing it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "src" / "kernels" / "gemm" / "tuned.inc"
# By the names that the compiled modules use.
TILES = {
    "256x128": "kHuge",
    "128x128": "kLarge",
    "128x96": "kNinetySix",
    "128x64": "kMedium",
    "64x32": "kSmall",
}
PASSES = {"fprop": "kFprop", "dgrad": "kDgrad", "wgrad": "kWgrad"}
ON_HOPPER = {"rule": "kRule", "wgmma": "kWgmma", "mma": "kMma"}
PRECISIONS = {"fp32": "kFp32", "tf32": "kTf32", "bf16": "kBf16"}

HEAD = """\
// Tiles and splits that were measured, for plan.cu: where a product is listed here, its rules are
// not asked. Written by benchmarks/tune_tiles.py --write, from the JSON of a run on a GPU; not by
// hand.
//
{empty}// {{measured on, pass, precision, {{m, n, k, products}}, tile, splits, Hopper}},  // layer
"""
EMPTY = "// Empty: no GPU has been measured yet.\n//\n"
ROW = re.compile(
    r'^\{"([^"]*)", Pass::(\w+), Precision::(\w+), \{(\d+), (\d+), (\d+), (\d+)\}, '
    r"TileKind::(\w+), (\d+), OnHopper::(\w+)\},(?:  // (.*))?$"
)


@dataclass(frozen=True)
class TunedRow:
    """One row: of a product m, n, k and how many side by side, the tile and the splits with
    mma.sync; and which kernel takes it where there is wgmma too.

    `measured_on` and `note` are for the reader; a row applies on every GPU.
    """

    measured_on: str
    step: str
    precision: str
    product: tuple[int, int, int, int]
    tile: str
    splits: int
    on_hopper: str = "rule"
    note: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[int, int, int, int]]:
        return self.step, self.precision, self.product


def table_text(rows: Sequence[TunedRow]) -> str:
    """The file with these rows, ordered by pass, precision and product."""
    lines = []
    for row in sorted(rows, key=lambda row: row.key):
        name, note = (re.sub(r'["\\]', "", text) for text in (row.measured_on, row.note))
        product = ", ".join(map(str, row.product))
        note = f"  // {note}" if note else ""
        lines.append(
            f'{{"{name}", Pass::{PASSES[row.step]}, Precision::{PRECISIONS[row.precision]}, '
            f"{{{product}}}, TileKind::{TILES[row.tile]}, {row.splits}, "
            f"OnHopper::{ON_HOPPER[row.on_hopper]}}},"
            f"{note}\n"
        )
    return HEAD.format(empty="" if lines else EMPTY) + "".join(lines)


def read_table(path: Path = TABLE) -> list[TunedRow]:
    """The rows of a file.

    Raises:
        ValueError: a line is neither a row nor a comment.
    """
    tiles, passes, precisions, on_hopper = (
        {name: key for key, name in names.items()}
        for names in (TILES, PASSES, PRECISIONS, ON_HOPPER)
    )
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("//"):
            continue
        match = ROW.match(line)
        if match is None:
            raise ValueError(f"{path.name}:{number}: expected a row or a comment, got {line!r}")
        name, step, precision, *product, tile, splits, hopper, note = match.groups()
        m, n, k, products = map(int, product)
        rows.append(
            TunedRow(
                name,
                passes[step],
                precisions[precision],
                (m, n, k, products),
                tiles[tile],
                int(splits),
                on_hopper[hopper],
                note or "",
            )
        )
    return rows
