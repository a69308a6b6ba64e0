"""Writes measured figures into documentation pages, from the JSON that benchmarks have left.

    python benchmarks/results_page.py [--check] [PAGE...]

What stands in a page between `<!-- results: PATH -->` and `<!-- end of results -->` is replaced by
a table of that file, or, for a PATH ending in "/*/", by a section for each such folder, as
benchmarks/gpu_check.sh leaves them. With --check nothing is written, and a stale page is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/performance.md", "docs/gpu-results.md")
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

# What gpu_check.sh leaves, in the order of the page: a step's log, or a benchmark's JSON.
LOGS = ("tests", "memcheck", "racecheck", "initcheck", "fashion", "alexnet")
COMMANDS = {
    "conv_throughput": "python benchmarks/conv_throughput.py --ops {ops} --rounds {rounds} "
    "--batch {batch}",
    "train_throughput": "python benchmarks/train_throughput.py {preset} --picture {size} "
    "--classes {classes} --rounds {rounds} --batch {batch}",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=[ROOT / page for page in PAGES])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    args = parser.parse_args(argv)
    stale = []
    for page in args.pages:
        before = page.read_text()
        after = filled(before)
        if after == before:
            continue
        stale.append(page.name)
        if not args.check:
            page.write_text(after)
    if stale:
        print(f"{', '.join(stale)}: {'stale' if args.check else 'written'}")
    return 1 if stale and args.check else 0


def filled(text: str, root: Path = ROOT) -> str:
    """The page with all its blocks made anew.

    Raises:
        SystemExit: a block names a file that is not there or of a benchmark that is not known.
    """
    return BLOCK.sub(lambda found: found[1] + results(found[2], root) + found[3], text)


def results(path: str, root: Path) -> str:
    if path.endswith("/*/"):
        folders = sorted(p for p in root.glob(path.rstrip("/")) if p.is_dir())
        sections = [folder_section(folder) for folder in folders]
        return "\n".join(sections) if sections else "There are none yet.\n"
    file = root / path
    if not file.is_file():
        raise SystemExit(f"{path}: no such file of results")
    return record_text(json.loads(file.read_text()), path)


def folder_section(folder: Path) -> str:
    """All that gpu_check.sh left in a folder."""
    text = [f"## {folder.name}\n"]
    for name in LOGS:
        log = folder / f"{name}.log"
        if log.is_file():
            lines = log.read_text(errors="replace").strip().splitlines()
            text.append(f"- {name}: `{lines[-1].strip(' =') if lines else 'nothing was said'}`")
    text.append("")
    for file in sorted(folder.glob("*.json")):
        text.append(f"### {file.stem}\n")
        text.append(record_text(json.loads(file.read_text()), file.name))
    return "\n".join(text)


def record_text(record: dict[str, Any], path: str) -> str:
    kind = record.get("benchmark")
    if kind not in TABLES:
        raise SystemExit(f"{path}: expected the JSON of one of {', '.join(TABLES)}, got {kind!r}")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    size = ",".join(map(str, record.get("picture", ())))
    command = COMMANDS[kind].format(**record, size=size)
    command += "".join(f" --set {text}" for text in record.get("set", ()))
    command += " --infer" if record.get("work") == "inference" else ""
    said = f"`{command}` on {record['device']}; commit {record['commit']}; {versions}."
    return f"{said}\n\n{TABLES[kind](record)}\n"


def conv_table(record: dict[str, Any]) -> str:
    said = (
        f"Limits in the same run: copy {record['copy_gbytes']:.0f} GB/s, matrix product "
        f"{record['gemm_gflops']:,.0f} GFLOP/s ({record['gemm_by']})."
    )
    maths = {row.get("math") for row in record["rows"]}
    head = ["layer", "pass", *(["math"] if len(maths) > 1 else []), "ms", "GFLOP/s", "GB/s"]
    head += ["of the limit", "error", "PyTorch ms", "ratio"]
    rows = []
    for row in record["rows"]:
        peers = row["peers_ms"].values()
        cells = [row["layer"], row["pass"]]
        cells += [row.get("math") or ""] if len(maths) > 1 else []
        cells += [f"{row['ms']:.2f}", f"{row['gflops']:,.0f}", f"{row['gbytes']:.1f}"]
        cells += [f"{row['limit_share']:.0%} ({row['bound']})", f"{row['error']:.1e}"]
        cells += [f"{min(peers):.2f}" if peers else ""]
        cells += [f"{row['ratio']:.2f}x" if row["ratio"] else ""]
        rows.append(cells)
    return f"{said}\n\n{markdown(head, rows)}"


def train_table(record: dict[str, Any]) -> str:
    results = record["results"]
    memory = any("peak_mib" in row for row in results.values())
    head = ["", "ms", "quartiles", "images/s", *(["peak MiB"] if memory else []), "ratio"]
    own = results["convnet"]["ms"]
    rows = []
    for name, row in results.items():
        cells = [name, f"{row['ms']:,.1f}", f"{row['q1_ms']:,.1f} - {row['q3_ms']:,.1f}"]
        cells += [f"{row['images_per_s']:,.0f}"]
        cells += [f"{row['peak_mib']:,.0f}" if "peak_mib" in row else ""] if memory else []
        rows.append([*cells, f"{row['ms'] / own:.2f}x"])
    return markdown(head, rows)


TABLES = {"conv_throughput": conv_table, "train_throughput": train_table}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
