"""Imports every definition in a folder, and writes the table of what became of each.

    git clone https://github.com/computerhistory/AlexNet-Source-Code
    python tests/stress/import_definitions.py docs/imported-definitions.md AlexNet-Source-Code ...

Nothing is fetched, and no file of others is in the repository: the folders are clones of yours. The
layers and parameters of each imported net are held to the original's rules, written out anew in
tests/support/original_rules.py. Exit code 1: one of them disagrees.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from original_rules import Rules

from convnet.exchange.cuda_convnet.convert import Imported, import_files

HEAD = """# The definitions of cuda-convnet, one by one

What `convnet import cuda-convnet` makes of the definitions of three repositories. `layers` are
those of the definition that lead to a cost; they and the parameters are those of the original's
rules (`tests/support/original_rules.py`). *Declined* gives the importer's reason. Written by
`python tests/stress/import_definitions.py docs/imported-definitions.md FOLDER...`.
"""
# Crops were an option of the command: those of the paper, and of cuda-convnet on CIFAR-10.
CROPS = ((r"conv-local|11pct", 24), (r"imagenet|^layers/layers-", 224), (r"", 0))


def main() -> int:
    """The table, and whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    lines, wrong = [HEAD], 0
    for folder in arguments.folders:
        rows, imported = [], 0
        for path in sorted(folder.rglob("layers*.cfg")):
            row, ok, good = _row(folder, path)
            rows.append(row)
            imported, wrong = imported + good, wrong + (not ok)
        lines.append(f"\n## {folder.name}\n\n{imported} of {len(rows)} definitions are imported.\n")
        lines += [
            "| definition | parameter file | crop | layers | parameters |",
            "|---|---|---|---|---|",
        ]
        lines += rows
    arguments.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {arguments.table}; {wrong} disagree with the original's rules")
    return 1 if wrong else 0


def _row(folder: Path, path: Path) -> tuple[str, bool, bool]:
    """A line of the table; whether the net is as the rules say; whether there is one."""
    name, crop = path.relative_to(folder).as_posix(), 0
    crop = next(size for pattern, size in CROPS if re.search(pattern, name))
    files = _parameter_files(path)
    reason = ""
    for params in files:
        try:
            found = import_files(path, params, crop=crop)
        except ValueError as error:
            reason = reason or re.sub(r"^.*?: (\[)", r"\1", str(error))
            continue
        return (*_compared(name, path, params, crop, found), True)
    reason = reason or "there is no parameter file"
    return (
        f"| `{name}` | {files[0].name if files else ''} | {crop or ''} | declined | {reason} |",
        True,
        False,
    )


def _parameter_files(path: Path) -> list[Path]:
    """The parameter files beside a definition: that of its name, then those whose names begin like
    it, with its number, and the rest."""
    name = path.stem.removeprefix("layers").strip("-.")
    number = name.split("-")[0]

    def nearness(other: Path) -> tuple[int, str]:
        own = other.stem.removeprefix("layer-params").strip("-.")
        order = [own == name, own.startswith(name), own.split("-")[0] == number, True]
        return order.index(True), own

    return sorted(path.parent.glob("layer-params*.cfg"), key=nearness)


def _compared(name: str, path: Path, params: Path, crop: int, found: Imported) -> tuple[str, bool]:
    """The line of a net, and whether every layer and the sum of parameters are as the rules say."""
    rules = Rules(path, math.prod(found.net.in_shape))
    shapes = {node: math.prod(shape) for node, shape in found.net.shapes.items()}
    known = {layer: rules.outputs[layer] for layer in rules.parameters if layer in shapes}
    costs = {layer for layer in known if rules.sections[layer]["type"].startswith("cost.")}
    other = [layer for layer in known if layer not in costs and known[layer] != shapes[layer]]
    total = sum(rules.parameters.values())
    ok = not other and total == found.net.parameter_count
    if not ok:
        print(f"{name}: expected {total:,} parameters, got {found.net.parameter_count:,}; {other}")
    notes = [
        remark.text
        for remark in found.report.notes
        if "would be learned" in remark.text or "nothing will" in remark.text
    ]
    count = f"{found.net.parameter_count:,}" + (
        "; a snapshot of the end of training" if notes else ""
    )
    return f"| `{name}` | {params.name} | {crop or ''} | {len(rules.parameters)} | {count} |", ok


if __name__ == "__main__":
    sys.exit(main())
