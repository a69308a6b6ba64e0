"""Writes measured figures into documentation pages, from the JSON that benchmarks have left.

    python benchmarks/results_page.py [--check] [PAGE...]

What stands in a page between `<!-- results: PATH -->` and `<!-- end of results -->` is replaced by
a table of that file; for a PATH ending in "/*/", by a section for each such folder, as
benchmarks/gpu_check.sh leaves them; for "expected:" and such a PATH, by what the page has computed
of the paper's net beside what was measured (expected.py). With --check nothing is written, and a
stale page is an error.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expected import comparison
from provenance import read_record

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/performance.md", "docs/gpu-results.md", "docs/kernels.md")
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

# What gpu_check.sh leaves, in the order of the page: a step's log, or a benchmark's JSON.
LOGS = ("smoke", "tests", "memcheck", "racecheck", "initcheck", "fashion", "alexnet")
COMMANDS = {
    "conv_throughput": "python benchmarks/conv_throughput.py --ops {ops} --rounds {rounds} "
    "--batch {batch}",
    "train_throughput": "python benchmarks/train_throughput.py {preset} --image {size} "
    "--classes {classes} --rounds {rounds} --batch {batch}",
    "tune_tiles": "python benchmarks/tune_tiles.py --rounds {rounds} --batch {batch}",
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
    return BLOCK.sub(lambda found: found[1] + results(found[2], root, text) + found[3], text)


def results(path: str, root: Path, page: str = "") -> str:
    _, compared, path = path.rpartition("expected:")
    if path.endswith("/*/"):
        folders = sorted(p for p in root.glob(path.rstrip("/")) if p.is_dir())
        if compared:
            return comparison(page, folders)
        sections = [folder_section(folder) for folder in folders]
        return "\n".join(sections) if sections else "There are none yet.\n"
    file = root / path
    if not file.is_file():
        raise SystemExit(f"{path}: no such file of results")
    return record_text(read_record(file), path)


def folder_section(folder: Path) -> str:
    """All that gpu_check.sh left in a folder."""
    text = [f"## {folder.name}\n"]
    for name in LOGS:
        log = folder / f"{name}.log"
        if log.is_file():
            text.append(f"- {name}: {said(log)}")
    text.append("")
    for file in sorted(folder.glob("*.json")):
        text.append(f"### {file.stem}\n")
        text.append(record_text(read_record(file), file.name))
    return "\n".join(text)


def said(log: Path) -> str:
    """The closing line of a log, or those of each run of pytest in it."""
    lines = [line.strip(" =") for line in log.read_text(errors="replace").splitlines()]
    closing = [line for line in lines if re.match(r"\d+ (passed|failed|error)", line)]
    closing = closing or [line for line in lines if line][-1:] or ["nothing was said"]
    return ", ".join(f"`{line}`" for line in closing)


def record_text(record: dict[str, Any], path: str) -> str:
    kind = record.get("benchmark")
    if kind not in TABLES:
        raise SystemExit(f"{path}: expected the JSON of one of {', '.join(TABLES)}, got {kind!r}")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    size = ",".join(map(str, record.get("image", record.get("picture", ()))))
    command = COMMANDS[kind].format(**record, size=size)
    command += "".join(f" --set {text}" for text in record.get("set", ()))
    precisions = list(
        dict.fromkeys(row["precision"] for row in rows_of(record) if row.get("precision"))
    )
    if precisions and precisions != ["fp32"]:
        command += f" --precision {','.join(precisions)}"
    command += f" --peers {record['peers']}" if record.get("peers") else ""
    command += " --infer" if record.get("work") == "inference" else ""
    said = f"`{command}` on {record['device']}; commit {record['commit']}; {versions}."
    return f"{said}\n\n{TABLES[kind](record)}\n"


def conv_table(record: dict[str, Any]) -> str:
    said = (
        f"Limits in the same run: copy {record['copy_gbytes']:.0f} GB/s, matrix product "
        f"{record['gemm_gflops']:,.0f} GFLOP/s ({record['gemm_by']})."
    )
    precisions = {row.get("precision") for row in record["rows"]}
    head = [
        "layer",
        "pass",
        *(["precision"] if len(precisions) > 1 else []),
        "ms",
        "GFLOP/s",
        "GB/s",
    ]
    head += ["of the limit", "error", "PyTorch ms", "ratio"]
    rows = []
    for row in record["rows"]:
        peers = row["peers_ms"].values()
        cells = [row["layer"], row["pass"]]
        cells += [row.get("precision") or ""] if len(precisions) > 1 else []
        cells += [short(row["ms"]), f"{row['gflops']:,.0f}", f"{row['gbytes']:.1f}"]
        cells += [f"{row['limit_share']:.0%} ({row['bound']})", f"{row['error']:.1e}"]
        cells += [short(min(peers)) if peers else ""]
        cells += [f"{row['ratio']:.2f}x" if row["ratio"] else ""]
        rows.append(cells)
    return f"{said}\n\n{markdown(head, rows)}"


def rows_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What a record has for each precision; older ones of whole steps have one, unnamed."""
    one = [{"precision": None, "results": record["results"]}] if "results" in record else []
    return record.get("rows") or record.get("runs") or one


def short(ms: float) -> str:
    return f"{ms:.2f}" if ms >= 1 else f"{ms:.4f}"


def train_table(record: dict[str, Any]) -> str:
    runs = rows_of(record)
    found = [row for run in runs for row in run["results"].values()]
    extra = {"peak_mib": "peak MiB", "compile_s": "compile s"}
    extra = {key: head for key, head in extra.items() if any(key in row for row in found)}
    several = len(runs) > 1
    head = [*(["precision"] if several else []), "", "ms", "quartiles", "images/s"]
    rows = []
    for run in runs:
        own = run["results"]["convnet"]["ms"]
        for name, row in run["results"].items():
            cells = [run["precision"]] if several else []
            if "failed" in row:
                blank = [""] * (4 + len(extra))
                rows.append([*cells, f"{name}: failed, `{row['failed']}`", *blank])
                continue
            digits = 1 if row["ms"] >= 10 else 3
            ms, low, high = (f"{row[key]:,.{digits}f}" for key in ("ms", "q1_ms", "q3_ms"))
            cells += [name, ms, f"{low} - {high}"]
            cells += [f"{row['images_per_s']:,.0f}"]
            cells += [f"{row[key]:,.0f}" if key in row else "" for key in extra]
            rows.append([*cells, f"{row['ms'] / own:.2f}x"])
    said = "".join(f"{text}\n\n" for run in runs if (text := verdict(run)))
    return said + markdown([*head, *extra.values(), "ratio"], rows)


def verdict(run: dict[str, Any]) -> str:
    """How a run in a named precision compares with the fastest of its peers."""
    times = {name: row["ms"] for name, row in run["results"].items() if "ms" in row}
    own = times["convnet"]
    times = {name: ms for name, ms in times.items() if not name.startswith("convnet")}
    if not times or run["precision"] is None:
        return ""
    best = min(times, key=times.__getitem__)
    ratio = f"{times[best] / own:.2f}x"
    return f"`{run['precision']}`: {ratio} as fast as {best}, the fastest of PyTorch's."


def tune_table(record: dict[str, Any]) -> str:
    head = ["layer", "pass", "precision", "product", "rule", "ms", "best", "ms", "gain", "tried"]
    rows, gains = [], []
    for row in record["rows"]:
        if "left_out" in row:
            continue
        m, n, k, products = row["product"]
        size = f"{m} x {n} x {k}" + (f", {products}" if products > 1 else "")
        cells = [row["layer"], row["pass"], row["precision"], size]
        for name in ("rule", "best"):
            choice = row[name]
            splits = f", {choice['splits']} splits" if choice["splits"] > 1 else ""
            cells += [choice["tile"] + splits, f"{choice['ms']:.4f}"]
        rows.append([*cells, f"{row['gain']:.2f}x", str(len(row["candidates"]))])
        gains.append(row["gain"])
    if not gains:
        return "Nothing was tuned.\n"
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    text = f"{mean:.3f}x what the rules choose (geometric mean of {len(gains)} products)"
    return f"{text}; turns: {record['turns']}.\n\n{markdown(head, rows)}"


TABLES = {
    "conv_throughput": conv_table,
    "train_throughput": train_table,
    "tune_tiles": tune_table,
}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
