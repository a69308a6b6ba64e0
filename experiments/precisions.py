"""Whether a net learns in mixed precision as in float32.

    python experiments/precisions.py                              # the packaged Fashion-MNIST
    python experiments/precisions.py --drawings drawings/packed   # of openclipart.py
    python experiments/precisions.py --config folder --data DIR --seeds 1 --results FILE

A run that is in the results file, one line of JSON each, is not made again; `--report` makes none.
Tables are of the seeds that have run in both.

The same runs with `train.precision` fp32 and bf16, which differ in nothing else: accuracy and loss
at the end, the losses of the epochs, and, in the nets as they were trained, the share of zeros
among the gradients that each node hands down. bfloat16 has the exponents of float32, so that no
gradient should vanish, and no loss has to be scaled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openclipart
from drawing import Curve, curves
from tables import markdown, measured, put_into

import convnet
from convnet.config import Config, load_config
from convnet.nn.divergence import Watch
from convnet.nn.eager import Eager
from convnet.nn.net import Net

PRECISIONS = ("fp32", "bf16")
RESULTS = Path(__file__).parent / "results"


class Zeros(Watch):
    """Counts the zeros among the gradients that each node hands down."""

    def __init__(self) -> None:
        super().__init__({})
        self.shares: dict[str, float] = {}

    def see_gradients(self, name: str, gradients: Sequence[Any]) -> None:
        counts = [(np.count_nonzero(each == 0), each.size) for each in gradients[:1]]
        self.shares[name] = sum(zeros for zeros, _ in counts) / sum(size for _, size in counts)


def zeros(net: Net, count: int = 64) -> dict[str, float]:
    """The share of zeros by node, in the backward pass of one batch of noise."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, *net.in_shape), dtype=np.float32)
    labels = rng.integers(0, net.classes or 2, count).astype(np.int32)
    watch = Zeros()
    with convnet.backend.use(net.backend):
        passes = Eager(net).passes(net.step_nodes, watch)
        passes.backward(passes.forward(x, True, labels), lambda param, grad: None)
    return watch.shares


def run(cfg: Config, data: str | None) -> dict[str, Any]:
    """What came of a run: figures of each epoch, and zeros by node."""
    with tempfile.TemporaryDirectory() as folder:
        result = convnet.train(cfg, "cpu", run_dir=folder, data=data, quiet=True)
    if result.status != "done":
        raise SystemExit(f"precisions: the run was {result.status}; nothing was kept of it")
    names = ("loss", "val_loss", "val_top1")
    epochs = [{name: row[name] for name in names} for row in result.history if "val_loss" in row]
    return {"epochs": epochs, "zeros": zeros(result.net)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="fashion-mnist", help="a preset or a file")
    parser.add_argument("--data", default="sample", help="as for `convnet train`")
    parser.add_argument("--drawings", metavar="DIR", help="these, by the net of openclipart.py")
    parser.add_argument("--epochs", type=int, help="10, and 20 of the drawings")
    parser.add_argument("--seeds", default="1,2,3", help="comma list")
    parser.add_argument("--results", type=Path, metavar="FILE")
    parser.add_argument("--report", action="store_true", help="only tables of what there is")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="losses of the epochs, as SVG")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the tables into it")
    args = parser.parse_args()
    name = "drawings" if args.drawings else args.config
    if args.drawings:
        args.config, args.data = "alexnet-half", args.drawings
    args.epochs = args.epochs or (20 if args.drawings else 10)
    results = args.results or RESULTS / f"precisions-{name}.jsonl"
    recipe = openclipart.SMALL if args.drawings else ()
    runs = read_runs(results)
    wanted = itertools.product(map(int, args.seeds.split(",")), PRECISIONS)
    for seed, precision in () if args.report else wanted:
        key = {"config": args.config, "epochs_run": args.epochs, "seed": seed}
        key["precision"] = precision
        if any(key.items() <= each.items() for each in runs):
            continue
        words = [*recipe, f"train.epochs={args.epochs}", f"train.precision={precision}"]
        words.append(f"seed={seed}")
        runs.append(key | run(load_config(args.config, words), args.data))
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(runs[-1]) + "\n")
    found = tables(runs)
    print(*found.values(), sep="\n\n")
    if args.document:
        for kind, table in found.items():
            put_into(args.document, f"{kind}-{name}", table)
    if args.plot:
        args.plot.write_text(plot(name, runs), encoding="utf-8")


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a results file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tables(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Accuracies and losses of the seeds that ran in both precisions, and the first one's zeros."""
    found = _by_precision(runs)
    shares = {each: some[0]["zeros"] for each, some in found.items()}
    return {"precisions": _results(_histories(found)), "zeros": _zeros(shares)}


def plot(name: str, runs: list[dict[str, Any]]) -> str:
    """Training and validation losses of every run, in both precisions."""
    found: list[Curve] = []
    for colour, (precision, histories) in enumerate(_histories(_by_precision(runs)).items()):
        for history in histories:
            for kind, dashed in (("loss", False), ("val_loss", True)):
                points = [(float(at), row[kind]) for at, row in enumerate(history, 1)]
                label = f"{precision}, {'validation' if dashed else 'training'}"
                shown = label if history is histories[0] else ""
                found.append(Curve(points, shown, colour, dashed))
    title = f"{name}: loss in float32 and in mixed precision"
    return curves(title, found, "epoch", "loss")


def _by_precision(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    made = [{run["seed"] for run in runs if run["precision"] == each} for each in PRECISIONS]
    both = set.intersection(*made)
    runs = sorted((run for run in runs if run["seed"] in both), key=lambda run: run["seed"])
    return {each: [run for run in runs if run["precision"] == each] for each in PRECISIONS}


def _histories(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[list[dict[str, Any]]]]:
    return {each: [run["epochs"] for run in some] for each, some in found.items()}


def _results(histories: dict[str, list[list[dict[str, Any]]]]) -> str:
    rows = []
    for precision, runs in histories.items():
        last = [history[-1] for history in runs]
        figures = ("val_top1", "val_loss", "loss")
        rows.append((precision, *(str(measured([row[name] for row in last])) for name in figures)))
    head = ("precision", "accuracy, %", "validation loss", "training loss")
    return markdown(head, rows)


def _zeros(shares: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(shares.values())))
    rows = [(name, *(f"{each[name]:.4f}" for each in shares.values())) for name in names]
    return markdown(("node", *(f"{precision}: zeros" for precision in shares)), rows)


if __name__ == "__main__":
    main()
