"""Lower precision against fp32, pass by pass, the two taking turns.

    python benchmarks/precision_table.py                           # bf16, the paper's net, batch 32
    python benchmarks/precision_table.py --precision tf32 --ops conv --batch 128 --json FILE

Each pass is first checked against float64 at a sample of its results. Times are medians; *gain* is
fp32's time over the other's. A pass that takes the same kernel in both runs the same code, and
differs by noise only. Ends with 1 where another one is slower than in fp32 by more than `--allow`
per cent.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import conv_throughput
import provenance
from timing import interleaved, spread, turns
from work import Work

import convnet
from convnet import ops

HEADER = (
    f"{'layer':9}{'pass':7}{'shape':40}{'fp32 ms':>10}{'ms':>10}{'gain':>7}{'error':>9}  "
    "kernel in fp32 -> kernel"
)


def main() -> None:
    args = arguments()
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        convnet.backend.set_threads(args.threads)
    with convnet.backend.use(backend):
        print(f"device  {backend.describe()}")
        print(
            f"{args.precision:7} {ops.precision_description(args.precision)}\n\n{HEADER}",
            flush=True,
        )
        found = conv_throughput.works(
            argparse.Namespace(**vars(args) | {"precision": ["fp32", args.precision]}), backend
        )
        rows = []
        for pair in zip(found[::2], found[1::2], strict=True):
            rows.append(compare(*pair, args.rounds))
            print(line(rows[-1]), flush=True)
    slower = summary(rows, args.allow)
    if args.json:
        record = {
            "benchmark": "precision_table",
            "device": backend.describe(),
            "precision": args.precision,
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "batch": args.batch,
            "rounds": args.rounds,
            "rows": rows,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if slower else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    conv_throughput.add_work_arguments(parser)
    parser.set_defaults(batch=32)
    parser.add_argument("--precision", "--math", default="bf16", choices=("tf32", "bf16"))
    parser.add_argument("--ops", default="conv,dense", help="comma list of conv, dense")
    parser.add_argument("--passes", default="", help="comma list of fprop, dgrad, wgrad")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--allow", type=float, default=3, help="per cent")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    for kind in args.ops.split(","):
        if kind not in ("conv", "dense"):
            parser.error(f"expected some of conv, dense, got {kind!r}")
    return args


def compare(fp32: Work, other: Work, rounds: int) -> dict[str, Any]:
    """One row: the same pass in fp32 and in another mode. Times are medians in milliseconds."""
    readies = {"fp32": fp32.prepare(), "other": other.prepare()}
    errors = {name: ready.check() for name, ready in readies.items()}
    calls = {name: (ready.queue, ready.finish) for name, ready in readies.items()}
    once = interleaved({name: turns(*call, 1) for name, call in calls.items()}, 1)
    repeats = max(1, math.ceil(0.02 / max(once["fp32"][0], 1e-6)))
    batches = {name: turns(*call, repeats) for name, call in calls.items()}
    times = interleaved(batches, rounds, warmup=1)
    ms = {name: spread(seconds)[1] / repeats * 1e3 for name, seconds in times.items()}
    return {
        "kind": fp32.kind,
        "layer": fp32.name,
        "pass": fp32.step,
        "shape": fp32.text,
        "fp32_kernel": conv_throughput.kernel(fp32),
        "kernel": conv_throughput.kernel(other),
        "fp32_ms": ms["fp32"],
        "ms": ms["other"],
        "error": errors["other"],
    }


def line(row: dict[str, Any]) -> str:
    kernels = " -> ".join(dict.fromkeys((row["fp32_kernel"], row["kernel"])))
    return (
        f"{row['layer']:9}{row['pass']:7}{row['shape']:40}{row['fp32_ms']:10.3f}{row['ms']:10.3f}"
        f"{row['fp32_ms'] / row['ms']:6.2f}x{row['error']:9.1e}  {kernels}"
    )


def summary(rows: list[dict[str, Any]], allow: float) -> list[dict[str, Any]]:
    """Prints the sums; the rows that are slower than they may be."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        fp32, other = (
            sum(row[column] for row in rows if row["kind"] == kind) for column in ("fp32_ms", "ms")
        )
        print(f"all {kind}: {fp32:.1f} ms in fp32, {other:.1f} ms, {fp32 / other:.2f}x")
    # Where the kernels are the same, so is the code that runs.
    slower = [
        row
        for row in rows
        if row["kernel"] != row["fp32_kernel"] and row["ms"] > (1 + allow / 100) * row["fp32_ms"]
    ]
    names = ", ".join(f"{row['layer']} {row['pass']}" for row in slower) or "none"
    print(f"slower than fp32 by more than {allow:g} %: {names}")
    return slower


if __name__ == "__main__":
    main()
