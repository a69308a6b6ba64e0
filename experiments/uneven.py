"""What helps on a small folder of uneven classes and shapes: weights, turns, whole images.

    python experiments/openclipart.py drawings
    convnet data pack drawings/images drawings/padded --val-fraction 0.2 --bad-files skip \\
        --resize pad
    python experiments/uneven.py --source folder --data drawings/packed --padded drawings/padded \\
        --images 0
    python experiments/uneven.py --rare Bag --only today,weights,balanced  # Fashion-MNIST
    python experiments/uneven.py --report                                  # from the results file

The drawings are trained as `openclipart.py --train` does, with one thing changed in each row;
images of 28 x 28 pixels by the preset's net. `--rare` leaves so few images of one class in training
that they are `--percent` of all; the test images stay as they are. Accuracy is that of the centre
crop with the weights of the last step, over all test images and as the mean over the classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openclipart
from options import (
    data_table,
    ended,
    facts,
    open_images,
    parser,
    results_path,
    series_of,
    show,
    variants_of,
)
from parts import Part
from series import Results, SeriesError, Sets
from tables import difference, markdown, measured

from convnet.common.typecheck import did_you_mean
from convnet.config import Config, load_config

PRESETS = {"cifar10": "cifar10-quick", "cifar100": "cifar10-quick"}  # of others: fashion-mnist
TURNS = {"augment": {"scale": [0.8, 1.25], "rotate": 15.0}}


@dataclass(frozen=True)
class Variant:
    """A run with something changed.

    Attributes:
        label: what it is, in a table.
        changes: keys of the configuration, by table.
        padded: it is trained on the images of `--padded`.
    """

    label: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    padded: bool = False


VARIANTS = {
    "today": Variant("as before"),
    "weights": Variant("class weights", {"train": {"class_weights": "balanced"}}),
    "balanced": Variant("balanced sampling", {"train": {"sampling": "balanced"}}),
    "turns": Variant("sizes of 0.8 to 1.25, turns of up to 15°", TURNS),
    "padded": Variant("padded instead of cut", padded=True),
}


def config(arguments: argparse.Namespace, variant: Variant, seed: int) -> Config:
    """The configuration of one run."""
    if arguments.source == "folder":
        base = load_config("alexnet-half", openclipart.SMALL)
    else:
        base = load_config(PRESETS.get(arguments.source, "fashion-mnist"))
    table = base.to_dict()
    table |= {"name": "uneven", "seed": seed}
    table["data"] |= {"source": arguments.source, "path": arguments.data}
    if arguments.size:
        table["data"]["size"] = [arguments.size] * 2
    if variant.padded:
        table["data"]["resize"] = "pad"
    train = {"batch": arguments.batch, "epochs": arguments.epochs}
    table["train"] |= {**train, "checkpoint_steps": 0, "report": False}
    for name, changes in variant.changes.items():
        table[name] |= changes
    return load_config(table, arguments.overrides)


def without_most(train: Part, rare: str, percent: float) -> Part:
    """The training images with so few of one class left that they are `percent` of all.

    Raises: ValueError: there is no such class.
    """
    if rare not in train.classes:
        raise ValueError(f'--rare: unknown class "{rare}"{did_you_mean(rare, train.classes)}')
    mine = train.labels == train.classes.index(rare)
    keep = round(np.count_nonzero(~mine) * percent / (100.0 - percent))
    return Part(
        train, np.sort(np.concatenate([np.flatnonzero(~mine), np.flatnonzero(mine)[:keep]]))
    )


# ---- what came of it ----------------------------------------------------------------------------


def runs_of(results: Results, name: str) -> list[dict[str, Any]]:
    """The records of a variant that are done, one for each seed."""
    found = (run for run in results.runs.values() if run["run"].rpartition("-seed")[0] == name)
    return [run for run in found if run["status"] == "done"]


def by_class(run: Mapping[str, Any]) -> np.ndarray:
    """The share of each class's test images that were named right, in per cent."""
    return 100.0 * np.array(run["right"]) / np.maximum(1, run["images"])


def table(results: Results) -> str:
    """A row for each variant; Markdown."""
    if not runs_of(results, "today"):
        raise SeriesError(f"{results.path}: expected runs as before, got none yet")
    base, rare = None, results.settings["rare"]
    found = []
    for name, variant in VARIANTS.items():
        if runs := runs_of(results, name):
            right = measured([100.0 - run["test_error"] for run in runs])
            base = base or right
            apart = difference(right, base)
            text = "" if name == "today" else f"{apart.mean:+.2f} ± {apart.spread:.2f}"
            row = [variant.label, str(right.count), str(right), text]
            row.append(str(measured([float(by_class(run).mean()) for run in runs])))
            if rare:
                at = results.settings["names"].index(rare)
                hits = ", ".join(str(run["right"][at]) for run in runs)
                row.append(f"{hits} of {runs[0]['images'][at]}")
            found.append(row)
    head = ["", "seeds", "right, %", "difference", "mean over classes, %"]
    return markdown([*head, f"right of {rare}, by seed"] if rare else head, found)


# ---- the command --------------------------------------------------------------------------------


def opened(arguments: argparse.Namespace, variant: Variant) -> Sets:
    """The images of a variant."""
    data = {**data_table(arguments), "size": list(config(arguments, variant, 1).data.size)}
    if variant.padded:
        data |= {"path": arguments.padded, "resize": "pad"}
    sets = open_images(arguments, data)
    if not arguments.rare:
        return sets
    train = without_most(sets.train, arguments.rare, arguments.percent)
    return Sets(train, Part(train, sample_of(train)), sets.test)


def sample_of(train: Part) -> np.ndarray:
    """Where training accuracy is measured: every fifth image."""
    return np.arange(0, len(train), 5)


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__, "uneven", epochs=60, batch=32, images=1000, sample=300)
    options.add_argument(
        "--padded", default="", metavar="PATH", help="the images packed by padding"
    )
    options.add_argument("--rare", default="", metavar="CLASS", help="leave few images of this one")
    options.add_argument("--percent", type=float, default=2.0, help="of the training images")
    options.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(VARIANTS)}")
    arguments = options.parse_args(argv)
    path = results_path(arguments)
    if arguments.report:
        results = Results(path)
    else:
        names = variants_of(arguments.only, VARIANTS)
        sets = {
            padded: opened(arguments, VARIANTS["padded" if padded else "today"])
            for padded in {VARIANTS[name].padded for name in names}
        }
        first = next(iter(sets.values()))
        said = facts(arguments, "source", "epochs", "batch", "rare", "percent", "overrides")
        results = Results(path, said | {"names": list(first.train.classes)} | first.facts())
        with series_of(arguments, results) as series:
            for seed in range(1, arguments.seeds + 1):
                for name in names:
                    cfg = config(arguments, VARIANTS[name], seed)
                    series.run(
                        f"{name}-seed{seed}", cfg, sets[VARIANTS[name].padded], by_class=True
                    )
    return show(arguments, table(results))


if __name__ == "__main__":
    raise SystemExit(ended(main, Path(__file__).name))
