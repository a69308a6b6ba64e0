"""Figure 1 of the paper: how many times sooner a net with ReLUs learns than the same with tanh.

    python experiments/relu_vs_tanh.py                                   # Fashion-MNIST
    python experiments/relu_vs_tanh.py --weights own                     # other initial weights
    python experiments/relu_vs_tanh.py --source cifar10 --data DIR --target 25 --images 0
    python experiments/relu_vs_tanh.py --source folder --data DIR --size 64 --target 50
    python experiments/relu_vs_tanh.py --report --plot FILE           # from the results file

Four layers, as in the paper: three convolutions with pools and a dense layer; no regularization, a
constant learning rate. For each kind of neuron by itself the learning rate is searched with which a
run reaches the target training error soonest: from 0.01 on in steps of the square root of ten until
the best rate has a worse one on both sides, then once more between them. The rate found then trains
nets from other seeds, whose curves are the result. Training error is measured in test mode after
every epoch. Initial weights are those of cuda-convnet's net of four layers for CIFAR-10, or for
each kind of neuron those that suit it: He's for ReLUs, Glorot's for tanh.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drawing import Curve, curves
from options import (
    data_table,
    ended,
    facts,
    open_images,
    parser,
    results_path,
    series_of,
    show,
    stride_for,
    title_of,
)
from series import Record, Results, Series, SeriesError, Sets
from tables import markdown, measured

from convnet.config import Config, load_config

# By the name of the layer type: initial weights of the scale at which it starts well.
NEURONS = {"relu": "he", "tanh": "xavier"}
# Standard deviations of cuda-convnet's net of four layers for CIFAR-10 (layers-18pct.cfg), of which
# the first is for images of 0 .. 255; here they are divided by 64.
STD_2012 = (0.0001 * 64, 0.01, 0.01, 0.01)
TITLES = {"relu": "ReLU", "tanh": "tanh"}
SEARCH_SEED = 1000  # of the search; the runs that are reported have seeds 1, 2, ...
FIRST_RATE, LOWEST, HIGHEST = 0.01, 1e-5, 10.0


def four_layers(
    shape: Sequence[int], classes: int, neuron: str, weights: str
) -> list[dict[str, Any]]:
    """The net as [[net.layers]]: cuda-convnet's filters, 32, 32 and 64 of 5 x 5, and pools 3/2.

    `weights` is "2012", cuda-convnet's for both, or "own", those that suit the neuron.
    """
    start: list[dict[str, Any]] = [{"init": NEURONS[neuron]}] * 3 + [{"init": "xavier"}]
    if weights == "2012":
        start = [{"init": "gaussian", "std": std} for std in STD_2012]
    layers: list[dict[str, Any]] = []
    for number, filters in enumerate((32, 32, 64), start=1):
        conv = {"filters": filters, "size": 5, "pad": 2, **start[number - 1]}
        conv["stride"] = stride_for(shape) if number == 1 else 1
        layers += [
            {"name": f"conv{number}", "type": "conv", **conv},
            {"name": f"{neuron}{number}", "type": neuron},
            {"name": f"pool{number}", "type": "maxpool", "size": 3, "stride": 2},
        ]
    layers += [
        {"name": "fc4", "type": "dense", "units": classes, **start[3]},
        {"name": "softmax", "type": "softmax_cross_entropy"},
    ]
    return layers


def epochs_to(target: float, epochs: Sequence[Mapping[str, Any]], chance: float) -> float:
    """After how many epochs the training error came down to `target` per cent.

    Between the ends of two epochs it is taken to fall evenly; before the first it is `chance`, that
    of guessing. Infinity where it never did.
    """
    before, reached = 0.0, chance
    for epoch in epochs:
        if epoch["error"] <= target:
            if reached <= target:
                return before
            part = (reached - target) / (reached - epoch["error"])
            return before + part * (epoch["epoch"] - before)
        before, reached = float(epoch["epoch"]), epoch["error"]
    return math.inf


def rank(record: Record, target: float, chance: float) -> tuple[float, float]:
    """What the search makes smallest: the epochs to the target, else the last training error."""
    errors = [epoch["error"] for epoch in record["epochs"]]
    last = math.inf if record["status"] == "diverged" or not errors else errors[-1]
    return epochs_to(target, record["epochs"], chance), last


class Figure:
    """The runs of the figure, and what they come to."""

    def __init__(self, arguments: argparse.Namespace, series: Series, sets: Sets) -> None:
        self.arguments, self.series, self.sets = arguments, series, sets
        self.chance = chance(series.results.settings)

    def config(self, neuron: str, rate: float, seed: int) -> Config:
        """The configuration of one run."""
        arguments = self.arguments
        shape, classes = self.sets.train.shape, len(self.sets.train.classes)
        table = {
            "name": f"{neuron}-lr{rate:g}",
            "seed": seed,
            "data": data_table(arguments),
            "net": {"layers": four_layers(shape, classes, neuron, arguments.weights)},
            "sgd": {"lr": rate, "momentum": 0.9, "weight_decay": 0.0},
            "train": {"batch": arguments.batch, "epochs": arguments.epochs, "checkpoint_steps": 0},
        }
        return load_config(table, arguments.overrides)

    def score(self, neuron: str, rate: float, limit: float) -> tuple[float, float]:
        """The rank of a rate; the run ends where it has reached the target, or cannot any more
        reach it within `limit` epochs."""

        def stop(epoch: Record) -> bool:
            return bool(epoch["error"] <= self.arguments.target or epoch["epoch"] >= limit)

        name = f"search-{neuron}-lr{rate:g}"
        record = self.series.run(name, self.config(neuron, rate, SEARCH_SEED), self.sets, stop)
        return rank(record, self.arguments.target, self.chance)

    def best_rate(self, neuron: str) -> float:
        """The learning rate with which this kind of neuron learns fastest."""
        scores: dict[float, tuple[float, float]] = {}

        def look(power: float) -> None:
            """Scores FIRST_RATE times ten to this power."""
            if power not in scores and LOWEST <= (rate := rate_at(power)) <= HIGHEST:
                fewest = min((score[0] for score in scores.values()), default=math.inf)
                scores[power] = self.score(neuron, rate, fewest)

        def best() -> float:
            return min(scores, key=lambda power: scores[power])

        for step in (0.5, 0.25):
            centre = math.nan
            look(0.0)
            while centre != best():
                centre = best()
                look(centre + step)
                look(centre - step)
        return rate_at(best())

    def run(self) -> None:
        """Searches, then trains."""
        for neuron in NEURONS:
            rate = self.best_rate(neuron)
            for seed in range(1, self.arguments.seeds + 1):
                name = f"{neuron}-lr{rate:g}-seed{seed}"
                self.series.run(name, self.config(neuron, rate, seed), self.sets)


def rate_at(power: float) -> float:
    """The learning rates that are looked at, with three digits."""
    return float(f"{FIRST_RATE * 10.0**power:.3g}")


def chance(settings: Mapping[str, Any]) -> float:
    """The error of guessing, in per cent."""
    return 100.0 * (1.0 - 1.0 / settings["classes"])


def reported(results: Results, neuron: str) -> list[Record]:
    """The runs of one kind of neuron from which the figure is made, without those of the search.

    Raises:
        SeriesError: there are none yet.
    """
    found = [run for name, run in results.runs.items() if name.startswith(f"{neuron}-")]
    if not found:
        raise SeriesError(f"{results.path}: expected runs of {neuron}, got none yet")
    return found


def table(results: Results) -> str:
    """Epochs to several training errors, and how many times sooner ReLU got there (more than 1) or
    tanh (less); Markdown."""
    target, found = results.settings["target"], []
    for wanted in (target * factor for factor in (2.0, 1.5, 1.0, 0.75, 0.5)):
        if wanted >= chance(results.settings):
            continue
        row, means = [f"{wanted:g} %"], []
        for neuron in NEURONS:
            runs = reported(results, neuron)
            taken = [epochs_to(wanted, run["epochs"], chance(results.settings)) for run in runs]
            reached = sum(map(math.isfinite, taken))
            text = str(measured(taken))
            if reached < len(runs):
                text = f"{reached} of {len(runs)} in {max(len(run['epochs']) for run in runs)}"
            row.append(text)
            means.append(measured(taken).mean)
        ratio = f"{means[1] / means[0]:.2f}" if all(map(math.isfinite, means)) else ""
        found.append([*row, f"**{ratio}**" if ratio and wanted == target else ratio])
    heads = [f"{TITLES[name]}, epochs (seeds: {len(reported(results, name))})" for name in NEURONS]
    return markdown(["training error", *heads, "tanh / ReLU"], found)


def searched(results: Results) -> str:
    """What the search found for every learning rate; Markdown. The best ones are bold."""
    found = []
    for neuron in NEURONS:
        chosen = {run["run"].rpartition("-seed")[0] for run in reported(results, neuron)}
        prefix = f"search-{neuron}-lr"
        rates = {
            float(name.removeprefix(prefix)): run
            for name, run in results.runs.items()
            if name.startswith(prefix)
        }
        for rate, run in sorted(rates.items()):
            taken, last = rank(run, results.settings["target"], chance(results.settings))
            text = f"{taken:.2f}"
            if math.isinf(taken):
                text = f"at {last:.1f} % after {len(run['epochs'])}"
            text = "diverged" if run["status"] == "diverged" else text
            bold = "**" if f"{neuron}-lr{rate:g}" in chosen else ""
            found.append([TITLES[neuron], f"{bold}{rate:g}{bold}", text])
    return markdown(["neuron", "learning rate", "epochs to the target"], found)


def plot(results: Results) -> str:
    """The figure: a line for the mean of each kind of neuron, faint ones for each run."""
    found = []
    for colour, (neuron, title) in enumerate(TITLES.items()):
        runs = [run["epochs"] for run in reported(results, neuron)]
        points = [[(epoch["epoch"], epoch["error"]) for epoch in run] for run in runs]
        dashed = neuron == "tanh"
        found += [Curve(line, colour=colour, dashed=dashed) for line in points]
        mean = [
            (step[0][0], statistics.fmean(error for _, error in step))
            for step in zip(*points, strict=True)
        ]
        found.append(Curve(mean, f"{title}, mean of {len(runs)}", colour, dashed))
    weights = {"own": "each its own initial weights", "2012": "initial weights of 2012"}
    return curves(
        f"ReLU and tanh: {title_of(results)}, {weights[results.settings['weights']]}",
        found,
        "epochs",
        "training error, %",
        results.settings["target"],
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__, "relu-vs-tanh", epochs=16, batch=32, images=6000, sample=1000)
    options.add_argument("--target", type=float, default=10.0, help="training error in per cent")
    options.add_argument("--weights", choices=("2012", "own"), default="2012", help="initial ones")
    arguments = options.parse_args(argv)
    if not 0.0 < arguments.target < 100.0:
        options.error(f"--target: expected a number between 0 and 100, got {arguments.target:g}")
    if arguments.weights != "2012":
        arguments.study += f"-{arguments.weights}"
    path = results_path(arguments)
    if arguments.report:
        results = Results(path)
    else:
        sets = open_images(arguments, data_table(arguments))
        said = facts(arguments, "source", "target", "epochs", "batch", "weights", "overrides")
        results = Results(path, said | sets.facts())
        if arguments.target >= chance(results.settings):
            raise ValueError(
                f"--target: expected less than {chance(results.settings):g}, the error of guessing "
                f"one of {results.settings['classes']} classes, got {arguments.target:g}"
            )
        with series_of(arguments, results) as series:
            Figure(arguments, series, sets).run()
    print(f"\n{searched(results)}")
    return show(arguments, table(results), lambda: plot(results))


if __name__ == "__main__":
    raise SystemExit(ended(main, Path(__file__).name))
