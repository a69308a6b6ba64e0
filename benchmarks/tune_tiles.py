"""Which tile and how many splits are the fastest for each product on tensor cores.

    python benchmarks/tune_tiles.py --json tiles.json             # AlexNet's, batch 128
    python benchmarks/tune_tiles.py --json tiles.json --minutes 8 # stops in time; again to go on
    python benchmarks/tune_tiles.py --shape 128,13,13,256,384,3,3 --pad 1 --precision tf32
    python benchmarks/tune_tiles.py --write tiles.json            # the table in the source tree

For each convolution and dense layer, pass and precision, every tile with several numbers of
splits, and on Hopper the kernel with wgmma, take turns with what the rules choose
(src/kernels/gemm/plan.cu): all of them for a few turns, and the fastest again beside the rules'.
Before that each is checked against float64 at a sample of its results. On a GPU a turn is one CUDA
graph of many calls, so that Python's part is not measured. The JSON is written after every product,
and what it holds already is not measured again.

--write makes src/kernels/gemm/tuned.inc of it, with the rows that gain at least --least, beside
those for other products that are there; plans then prefer these rows on every GPU, and results
change by the order of their sums. Build again and run the tests of tests/kernels after it.

Exit codes: 0 all products are measured; 75 the time was up before; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import provenance
from conv_throughput import add_work_arguments, modes, works
from replay import Replay
from tiles_table import PASSES, PRECISIONS, TABLE, TunedRow, read_table, table_text
from timing import interleaved, spread
from work import Work
from work_products import RESULT

import convnet
from convnet.backend import Backend

UNFINISHED = 75  # EX_TEMPFAIL
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FEWEST_STEPS = 4  # of 16 k, in a split
MOST_BLOCKS = 132 * 4  # beyond these, more splits cannot fill a GPU better
MOST_WORKSPACE = 256 << 20
TURN = 0.01  # seconds
FINALISTS = 4  # beside the rules'

Choice = tuple[str, int]  # tile and splits
WGMMA: Choice = ("wgmma", 1)  # the kernel for Hopper, which has a rule of its own for its tiles
SWITCH = "CONVNET_WGMMA"


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.write:
        return write(args)
    backend = convnet.backend.get(args.device)
    if backend.name == "cpu":
        refuse("the cpu backend has no tiles; expected --device cuda or vgpu")
    before = os.environ.get(SWITCH)
    try:
        with convnet.backend.use(backend):
            return run(args, backend)
    finally:
        backend.module.set_tile_choices(None)
        os.environ.pop(SWITCH, None)
        if before is not None:
            os.environ[SWITCH] = before


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_work_arguments(parser)
    parser.set_defaults(ops="conv,dense")
    parser.add_argument("--precision", "--math", default="fp32,tf32,bf16", help="comma list")
    parser.add_argument("--passes", default="", help="comma list of fprop, dgrad, wgrad")
    parser.add_argument("--rounds", type=int, default=9, help="turns of the finalists")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=0, help="begin nothing after so long")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, metavar="JSON", help="make the table of this file")
    parser.add_argument("--least", type=float, default=1.03, help="gain of a row to be written")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table to write")
    args = parser.parse_args(argv)
    for text, choices in ((args.passes, PASSES), (args.precision, PRECISIONS)):
        for name in filter(None, text.split(",")):
            if name not in choices:
                parser.error(f"expected some of {', '.join(choices)}, got {name!r}")
    return args


# ---- measuring ----------------------------------------------------------------------------------


def run(args: argparse.Namespace, backend: Backend) -> int:
    started = time.monotonic()
    print(f"device  {backend.describe()}")
    args.precision = modes(args.precision)
    record = {
        "benchmark": "tune_tiles",
        "device": backend.describe(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "batch": args.batch,
        "rounds": args.rounds,
        "net": args.shape or args.net,
        "turns": "",
        "rows": [],
    }
    rows = held(args.json, record) if args.json else {}
    replay = Replay(backend)
    print(f"\n{HEADER}", flush=True)
    for work in works(args, backend):
        if key(work) not in rows:
            if args.minutes and time.monotonic() - started > 60 * args.minutes:
                print("the time is up; run again to go on")
                return UNFINISHED
            rows[key(work)] = tune(work, backend, replay, args.rounds)
            record["turns"] = replay.problem or "CUDA graphs"
            record["rows"] = list(rows.values())
            if args.json:
                save(args.json, record)
        print(line(rows[key(work)]), flush=True)
    summary(list(rows.values()))
    return 0


def key(work: Work) -> str:
    return f"{work.name} {work.step} {work.precision} {work.text}"


def held(path: Path, record: dict[str, Any]) -> dict[str, dict]:
    """The rows of an earlier run of the same kind, by key. Raises SystemExit for another's file."""
    if not path.exists():
        return {}
    found = provenance.read_record(path)
    for name in ("benchmark", "device", "batch"):
        if found.get(name) != record[name]:
            refuse(f"{path}: expected results for {name} {record[name]}, got {found.get(name)}")
    return {f"{r['layer']} {r['pass']} {r['precision']} {r['shape']}": r for r in found["rows"]}


def save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


def tune(work: Work, backend: Backend, replay: Replay, rounds: int) -> dict[str, Any]:
    """A row: what the rules choose, the fastest, and all that were tried."""
    module, shape = backend.module, conv_shape(work)

    def ruled(switch: str) -> Any:
        os.environ[SWITCH] = switch
        return module.tile_choice(work.step, *shape, work.precision)

    module.set_tile_choices([])
    *_, product, tile, splits, kernel = ruled("auto")
    row = {"layer": work.name, "pass": work.step, "precision": work.precision, "shape": work.text}
    if not tile:
        return row | {"left_out": "too few products for tensor cores"}
    if not wide(work):
        return row | {"left_out": "copies of single floats have one tile"}
    mma: Choice = (tile, splits)
    rule = WGMMA if kernel == "wgmma" else mma
    outputs = math.prod(work.shapes[RESULT[work.step]])
    found = candidates(module.tiles_of(work.step, work.precision), work, product, outputs)
    tried = dict.fromkeys([rule, mma, *found])
    if ruled("always")[5] == "wgmma":
        tried |= {WGMMA: None}

    def choose(choice: Choice) -> None:
        os.environ[SWITCH] = "always" if choice == WGMMA else "off"
        rows = [] if choice == WGMMA else [(work.step, work.precision, product, *choice, "rule")]
        module.set_tile_choices(rows)

    times, errors = race(work, backend, replay, choose, list(tried), [rule, mma], rounds)
    best = min(times, key=times.__getitem__)
    best_mma = min((choice for choice in times if choice != WGMMA), key=times.__getitem__)
    return row | {
        "product": list(product),
        "rule": figures(rule, times[rule]),
        "best": figures(best, times[best]),
        "gain": times[rule] / times[best],
        "mma": {"rule": figures(mma, times[mma]), "best": figures(best_mma, times[best_mma])},
        "error": max(errors.values()),
        "gflops": work.flops / times[best] / 1e6,
        "candidates": [
            figures(choice, times[choice]) | {"error": errors[choice]}
            for choice in sorted(tried, key=times.__getitem__)
        ],
    }


def race(
    work: Work,
    backend: Backend,
    replay: Replay,
    choose: Callable[[Choice], None],
    tried: list[Choice],
    seeded: list[Choice],
    rounds: int,
) -> tuple[dict[Choice, float], dict[Choice, float]]:
    """Milliseconds and errors of these choices; `seeded` are finalists whatever they take."""
    module, shape = backend.module, conv_shape(work)
    ready = work.prepare()
    space, errors, calls = 0, {}, {}
    for choice in tried:
        choose(choice)
        space = max(space, module.conv_workspace(work.step, *shape, work.precision, "float32"))
        errors[choice] = ready.check()
        calls[choice] = chosen(ready.queue, lambda choice=choice: choose(choice))
    start = time.perf_counter()
    calls[seeded[0]]()
    ready.finish()
    repeats = max(1, math.ceil(TURN / max(time.perf_counter() - start, 1e-6)))
    contenders = {}
    for choice in tried:
        choose(choice)
        contenders[choice] = replay.turn(calls[choice], repeats, space)

    def measured(choices: list[Choice], count: int) -> dict[Choice, float]:
        times = interleaved({c: contenders[c] for c in choices}, count, warmup=1)
        return {c: spread(seconds)[1] / repeats * 1e3 for c, seconds in times.items()}

    first = measured(tried, 3)
    order = sorted(tried, key=first.__getitem__)
    last = measured(list(dict.fromkeys([*seeded, *order[:FINALISTS]])), rounds)
    # What is no finalist must not look faster for having been measured another time.
    slowest = max(last.values())
    return {c: last.get(c, max(first[c], slowest)) for c in tried}, errors


def chosen(queue: Callable[[], object], choose: Callable[[], None]) -> Callable[[], object]:
    """A call with its tile: where calls are not captured, they come after others' choices."""

    def call() -> None:
        choose()
        queue()

    return call


def conv_shape(work: Work) -> tuple[Any, ...]:
    """The arguments of the modules' functions for a work, a dense layer as a convolution."""
    x, w = (s if len(s) == 4 else (s[0], 1, 1, s[1]) for s in (work.shapes["x"], work.shapes["w"]))
    o = work.options or {"stride": (1, 1), "pad": (0, 0), "rounding": "floor", "groups": 1}
    return x, w, o["stride"], o["pad"], o["rounding"], o["groups"]


def wide(work: Work) -> bool:
    """Whether a pass can copy 16 bytes at a time (gemm/fprop.cu): else the tile is given."""
    (_, _, width, channels), (filters, *_), stride, pad, _, groups = conv_shape(work)
    columns = groups == 1 and all(n * channels % 4 == 0 for n in (stride[1], pad[1], width))
    fours_c, fours_k = channels // groups % 4 == 0, filters // groups % 4 == 0
    if work.step == "fprop":
        return fours_c or columns
    return fours_k and (fours_c or (columns and work.step == "wgrad"))


def candidates(tiles: list[str], work: Work, product: list[int], outputs: int) -> Iterator[Choice]:
    """What is worth a try: tiles that are not mostly empty, and splits that leave each some steps,
    a workspace to be found, and not far more blocks than a GPU runs at once."""
    m, n, k, products = product
    across = work.step == "wgrad"
    areas = {}
    for tile in tiles:
        rows, columns = map(int, tile.split("x"))
        if across:
            rows, columns = columns, rows
        blocks = math.ceil(m / rows) * math.ceil(n / columns) * products
        areas[tile] = blocks, blocks * rows * columns
    least = min(area for _, area in areas.values())
    for tile, (blocks, area) in areas.items():
        if area > 1.7 * least and blocks > 1:
            continue
        for splits in SPLITS:
            fits = splits * FEWEST_STEPS <= math.ceil(k / 16)
            fits = fits and splits * blocks <= MOST_BLOCKS
            fits = fits and splits * outputs * 4 <= MOST_WORKSPACE
            if splits == 1 or fits:
                yield tile, splits


def figures(choice: Choice, ms: float) -> dict[str, Any]:
    return {"tile": choice[0], "splits": choice[1], "ms": ms}


# ---- reporting ----------------------------------------------------------------------------------

HEADER = (
    f"{'layer':9}{'pass':7}{'precision':11}{'m x n x k':28}"
    f"{'rule':>13}{'ms':>9}{'best':>13}{'ms':>9}"
    f"{'gain':>7}{'tried':>7}{'error':>9}"
)


def line(row: dict[str, Any]) -> str:
    text = f"{row['layer']:9}{row['pass']:7}{row['precision']:11}"
    if "left_out" in row:
        return text + f"left out: {row['left_out']}"
    m, n, k, products = row["product"]
    size = f"{m} x {n} x {k}" + (f", {products}" if products > 1 else "")
    text += f"{size:28}"
    for name in ("rule", "best"):
        choice = row[name]
        name = choice["tile"] + (f" /{choice['splits']}" if choice["tile"] != WGMMA[0] else "")
        text += f"{name:>13}{choice['ms']:9.4f}"
    return text + f"{row['gain']:6.2f}x{len(row['candidates']):7}{row['error']:9.1e}"


def summary(rows: list[dict[str, Any]]) -> None:
    for mode in PRECISIONS:
        gains = [row["gain"] for row in rows if row["precision"] == mode and "gain" in row]
        if gains:
            mean = math.exp(sum(map(math.log, gains)) / len(gains))
            print(f"{mode}: {mean:.3f}x the rule's choice (geometric mean), most {max(gains):.2f}x")


def tuned_row(
    name: str, row: dict[str, Any], product: tuple[int, ...], least: float
) -> TunedRow | None:
    """What the table should say of a product; None where the rules are as good."""
    rule, best, mma = row["rule"], row["best"], row["mma"]
    tile, on_hopper = mma["rule"], "rule"
    changed = any(mma["rule"][name] != mma["best"][name] for name in ("tile", "splits"))
    if changed and mma["rule"]["ms"] >= least * mma["best"]["ms"]:
        tile = mma["best"]
    if (best["tile"] == WGMMA[0]) != (rule["tile"] == WGMMA[0]) and row["gain"] >= least:
        on_hopper = "wgmma" if best["tile"] == WGMMA[0] else "mma"
    if tile is mma["rule"] and on_hopper == "rule":
        return None
    note = f"{row['layer']}, {best['ms']:.4g} for {rule['ms']:.4g}"
    step, mode = row["pass"], row["precision"]
    return TunedRow(name, step, mode, product, tile["tile"], tile["splits"], on_hopper, note)


def refuse(text: str) -> NoReturn:
    print(f"tune_tiles: {text}", file=sys.stderr)
    sys.exit(2)


def write(args: argparse.Namespace) -> int:
    """The table from a file of results. Raises SystemExit where those are not of a GPU's."""
    record = provenance.read_record(args.write)
    if record.get("benchmark") != "tune_tiles":
        refuse(f"{args.write}: expected the JSON of tune_tiles, got {record.get('benchmark')!r}")
    kind, _, name = record["device"].partition(": ")
    if not kind.startswith("cuda") and args.table.resolve() == TABLE:
        refuse(f"{args.write}: measured on {kind}, whose times say nothing of a GPU's")
    name = name.partition(",")[0]
    rows = {row.key: row for row in read_table(args.table)} if args.table.exists() else {}
    before = len(rows)
    for row in record["rows"]:
        if "gain" not in row:
            continue
        product = tuple(row["product"])
        rows.pop((row["pass"], row["precision"], product), None)  # measured anew
        tuned = tuned_row(name, row, product, args.least)
        if tuned is not None:
            rows[tuned.key] = tuned
    args.table.write_text(table_text(list(rows.values())))
    print(f"{args.table.name}: {len(rows)} rows, {before} before; build again, and run the tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
