"""What each part of the paper's net is worth: sections 3.3, 3.4, 4.1, 4.2 and 7.

    python experiments/ablations.py                                       # Fashion-MNIST
    python experiments/ablations.py --source cifar10 --data DIR --images 0
    python experiments/ablations.py --source folder --data DIR --only whole,no-colour-noise
    python experiments/ablations.py --source folder --data ILSVRC --net alexnet --images 0 \\
        --epochs 90 --batch 128 --lr 0.01                                 # where there is time
    python experiments/ablations.py --report                              # from the results file

The whole net is AlexNet made small, with all its parts: five convolutions, response normalization
and overlapping pools where AlexNet has them, two hidden dense layers with dropout, random crops,
mirrors and, on colour images, colour noise. Each other variant lacks one of them, and is trained
with the same rates, schedule and seeds. Test errors are those of the centre crop with the weights
of the last step; training errors are measured in the same way, on some of the training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawing import Row, rows
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
    variants_of,
)
from series import Results, Series, SeriesError, Sets
from tables import Measured, difference, markdown, measured

from convnet.config import Config, ConfigError, load_config


@dataclass(frozen=True)
class Variant:
    """A net that differs from the whole one.

    Attributes:
        section: of the paper.
        label: what it is, in a table.
        net: options of the net that differ.
        augment: keys of the `augment` table that differ; "crop" None stands for the centre alone.
        colour: it makes sense on colour images only.
    """

    section: str
    label: str
    net: Mapping[str, Any] = field(default_factory=dict)
    augment: Mapping[str, Any] = field(default_factory=dict)
    colour: bool = False


CENTRE = {"crop": None}
VARIANTS = {
    "whole": Variant("", "the whole net"),
    "no-lrn": Variant("3.3", "without response normalization", {"lrn": False}),
    "no-overlap": Variant("3.4", "pools that do not overlap", {"overlap": False}),
    "no-crops": Variant("4.1", "without random crops", augment=CENTRE),
    "no-mirrors": Variant("4.1", "without mirrors", augment={"mirror": False}),
    "no-crops-no-mirrors": Variant("4.1", "without both", augment={**CENTRE, "mirror": False}),
    "no-colour-noise": Variant(
        "4.1", "without colour noise", augment={"colour_noise": 0.0}, colour=True
    ),
    "more-colour-noise": Variant(
        "4.1", "ten times the colour noise", augment={"colour_noise": 1.0}, colour=True
    ),
    "no-dropout": Variant("4.2", "without dropout", {"dropout": 0.0}),
    **{
        f"no-conv{number}": Variant(
            "7", f"without convolution {number}", {"without": [f"conv{number}"]}
        )
        for number in range(1, 6)
    },
}
TEN_CROPS = "the whole net, ten crops at test time"


def small_alexnet(
    shape: Sequence[int],
    classes: int,
    lrn: bool = True,
    overlap: bool = True,
    dropout: float = 0.5,
    without: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """AlexNet with a sixth of its filters and small windows, as [[net.layers]].

    The options are those of `convnet.models.alexnet`. Pools of 3/2 and 2/2 give the same sizes.
    The images are divided by 64, so the paper's alpha, made for values of up to 255, is
    multiplied by 64 squared.
    """
    stride = stride_for(shape)
    convs = {1: (16, 5, stride), 2: (40, 3, 1), 3: (64, 3, 1), 4: (64, 3, 1), 5: (40, 3, 1)}
    layers: list[dict[str, Any]] = []
    for number, (filters, size, step) in convs.items():
        if f"conv{number}" not in without:
            window = {"filters": filters, "size": size, "stride": step, "pad": size // 2}
            layers.append({"name": f"conv{number}", "type": "conv", **window, "init": "he"})
            layers.append({"name": f"relu{number}", "type": "relu"})
        if lrn and number in (1, 2):
            layers.append({"name": f"lrn{number}", "type": "lrn", "alpha": 1e-4 * 64**2})
        if number in (1, 2, 5):
            pool = {"size": 3 if overlap else 2, "stride": 2}
            layers.append({"name": f"pool{number}", "type": "maxpool", **pool})
    for number in (6, 7):
        layers.append({"name": f"fc{number}", "type": "dense", "units": 256, "init": "he"})
        layers.append({"name": f"relu{number}", "type": "relu"})
        if dropout:
            layers.append({"name": f"drop{number}", "type": "dropout", "drop": dropout})
    layers.append({"name": "fc8", "type": "dense", "units": classes, "init": "xavier"})
    return [*layers, {"name": "softmax", "type": "softmax_cross_entropy"}]


class Ablations:
    """The runs of the table."""

    def __init__(self, arguments: argparse.Namespace, series: Series, sets: Sets) -> None:
        self.arguments, self.series, self.sets = arguments, series, sets
        self.base = base_table(arguments)
        side = self.sets.train.shape[0]
        augment = self.base.setdefault("augment", {})
        augment.setdefault("crop", [side * 7 // 8] * 2)
        augment.setdefault("mirror", arguments.source != "mnist")
        augment.setdefault("colour_noise", 0.1 if sets.train.shape[2] == 3 else 0.0)
        height, width = augment["crop"]
        self.crop = (height, width)
        self.centre = sets.centred(self.crop)

    def run(self, names: Sequence[str]) -> None:
        """Makes all variants with one seed, then with the next."""
        for seed in range(1, self.arguments.seeds + 1):
            for name in names:
                variant = VARIANTS[name]
                sets = self.centre if "crop" in variant.augment else self.sets
                config = self.config(variant, seed)
                self.series.run(f"{name}-seed{seed}", config, sets, ten_crop=name == "whole")

    def config(self, variant: Variant, seed: int) -> Config:
        """The configuration of one run."""
        table = {**self.base, "seed": seed}
        table["augment"] = {**self.base["augment"], **variant.augment}
        if table["augment"]["crop"] is None:
            table["augment"]["crop"] = [0, 0]
        if "net" in self.base:
            net = self.base["net"]
            table["net"] = {**net, "options": {**net["options"], **variant.net}}
        else:
            classes = len(self.sets.train.classes)
            shape = (*self.crop, self.sets.train.shape[2])
            table["net"] = {"layers": small_alexnet(shape, classes, **variant.net)}
        return load_config(table, self.arguments.overrides)


def base_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the configurations of all variants have in common, the net of the small one excepted.

    Raises:
        ConfigError: a preset that is no AlexNet.
    """
    table: dict[str, Any] = {"data": data_table(arguments)}
    table["schedule"] = {"kind": "cosine", "warmup_steps": 50}
    if arguments.net != "small":
        preset = load_config(arguments.net).to_dict()
        if preset["net"].get("model") != "alexnet":
            raise ConfigError(
                f'--net: expected "small" or a preset of the model "alexnet", got "{arguments.net}"'
            )
        data = {**preset["data"], "source": arguments.source, "path": arguments.data}
        data["size"] = [arguments.size] * 2 if arguments.size else preset["data"]["size"]
        table = {key: preset[key] for key in ("net", "augment", "schedule")} | {"data": data}
    table["sgd"] = {"lr": arguments.lr, "momentum": 0.9, "weight_decay": 0.0005}
    train = {"batch": arguments.batch, "epochs": arguments.epochs}
    return {**table, "name": "ablations", "train": {**train, "checkpoint_steps": 0}}


# ---- what came of it ----------------------------------------------------------------------------


def errors(results: Results, name: str, key: str = "test_error") -> list[float]:
    """The errors of a variant, one for each seed; of a run that diverged, that of guessing.

    `key` is "test_error", "ten_crop_error" or "training_error".
    """
    guessing = 100.0 * (1.0 - 1.0 / results.settings["classes"])
    found = []
    for run in results.runs.values():
        if run["run"].rpartition("-seed")[0] == name:
            last = run["epochs"][-1]["error"] if run["status"] == "done" else guessing
            found.append(last if key == "training_error" else run.get(key, guessing))
    return found


def table(results: Results) -> str:
    """A row for each variant: errors, and the difference to the whole net; Markdown."""
    if not errors(results, "whole"):
        raise SeriesError(f"{results.path}: expected runs of the whole net, got none yet")
    base = measured(errors(results, "whole"))
    found = []
    for name, variant in VARIANTS.items():
        if errors(results, name):
            test = measured(errors(results, name))
            row = [variant.label, variant.section, str(test.count), str(test)]
            row += ["", ""] if name == "whole" else compared(test, base)
            found.append([*row, str(measured(errors(results, name, "training_error")))])
        if name == "whole":
            test = measured(errors(results, name, "ten_crop_error"))
            found.append([TEN_CROPS, "4.1", str(test.count), str(test), *compared(test, base), ""])
    head = ["", "section", "seeds", "test error, %", "difference", "reading", "training error, %"]
    return markdown(head, found)


def compared(test: Measured, base: Measured) -> list[str]:
    """The difference to the whole net, and what it is worth beside the spread over seeds."""
    apart = difference(test, base)
    if apart.count < 2:
        reading = "one seed"
    elif abs(apart.mean) <= apart.spread:
        reading = "within the spread"
    else:
        reading = "worse" if apart.mean > 0.0 else "better"
    return [f"{apart.mean:+.2f}" + (f" ± {apart.spread:.2f}" if apart.count > 1 else ""), reading]


def plot(results: Results) -> str:
    """The test error of every run, by variant."""
    found = []
    for name, variant in VARIANTS.items():
        if errors(results, name):
            found.append(Row(variant.label, errors(results, name)))
        if name == "whole":
            found.append(Row(TEN_CROPS, errors(results, name, "ten_crop_error")))
    net = {"small": "A small AlexNet"}.get(results.settings["net"], results.settings["net"])
    title = f"{net} without one of its parts: {title_of(results)}"
    return rows(title, found, "test error, %: a dot for each seed, a stroke for their mean")


# ---- the command --------------------------------------------------------------------------------


def wanted(only: str | None, channels: int) -> list[str]:
    """The variants to make; the whole net is always among them.

    Raises:
        ValueError: an unknown one, or one of colours where there are none.
    """
    fitting = [name for name in VARIANTS if channels == 3 or not VARIANTS[name].colour]
    if only is None:
        return fitting
    names = variants_of(only, VARIANTS)
    for name in names:
        if name not in fitting:
            raise ValueError(f"--only: {name}: expected images in colour, got {channels} channel")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__, "ablations", epochs=50, batch=32, images=1000, sample=500)
    options.add_argument("--lr", type=float, default=0.05, help="at first; falls as a cosine")
    options.add_argument("--net", default="small", help='"small", or a preset of AlexNet')
    options.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(VARIANTS)}")
    arguments = options.parse_args(argv)
    path = results_path(arguments)
    if arguments.report:
        results = Results(path)
    else:
        sets = open_images(arguments, base_table(arguments)["data"])
        names = wanted(arguments.only, sets.train.shape[2])
        said = facts(arguments, "source", "net", "epochs", "batch", "lr", "overrides")
        results = Results(path, said | sets.facts())
        with series_of(arguments, results) as series:
            Ablations(arguments, series, sets).run(names)
    return show(arguments, table(results), lambda: plot(results))


if __name__ == "__main__":
    raise SystemExit(ended(main, Path(__file__).name))
