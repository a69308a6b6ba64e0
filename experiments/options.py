"""What the commands of the experiments have in common: options, and errors as one line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from parts import Part, chosen
from series import Results, Series, Sets, Stopped
from tables import put_into

from convnet import DeviceError
from convnet.common.typecheck import did_you_mean
from convnet.config import load_config
from convnet.training.datasets import open_sets

RESULTS = Path(__file__).parent / "results"
SOURCES = {
    "fashion-mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "folder": "a folder",
}
SIDE = 64  # of the images of a folder


class Parser(argparse.ArgumentParser):
    """Errors as one line, like those of `convnet`."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parser(
    doc: str | None, study: str, epochs: int, batch: int, images: int, sample: int
) -> Parser:
    """The options of every experiment; `study` names its results files, the others are defaults."""
    made = Parser(description=(doc or "").partition("\n")[0])
    add = made.add_argument
    add("--source", choices=list(SOURCES), default="fashion-mnist", help="kind of data")
    add("--data", metavar="PATH", default="", help="where they are (see docs/configs.md)")
    add("--size", type=positive, metavar="N", help="folders: side of the images")
    text = f"to train on (up to {images}); 0: all"
    add("--images", "--pictures", type=natural, metavar="N", help=text)
    add("--sample", type=natural, metavar="N", help=f"of them, for training error (up to {sample})")
    add("--test-images", "--test-pictures", type=natural, default=0, metavar="N", help="0: all")
    add("--epochs", type=positive, default=epochs)
    add("--batch", type=positive, default=batch)
    add("--seeds", type=positive, default=3, help="how many runs of each kind")
    add("--set", action="append", default=[], dest="overrides", metavar="K=V", help="of the config")
    add("--device", default="auto")
    add("--threads", type=natural, default=0, help="0: all cores")
    add("--results", type=Path, metavar="FILE", help=f"default: results/{study}-SOURCE.jsonl")
    add("--runs", type=Path, default=Path("runs/experiments"), help="for checkpoints")
    add("--report", action="store_true", help="train nothing: table and plot of --results")
    add("--plot", "--picture", type=Path, metavar="SVG", help="where to draw the result")
    add("--document", type=Path, metavar="MD", help="a document to put the table into")
    made.set_defaults(study=study, most=(images, sample))
    return made


def natural(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text}")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return value


def results_path(arguments: argparse.Namespace) -> Path:
    """The results file."""
    path = arguments.results or RESULTS / f"{arguments.study}-{arguments.source}.jsonl"
    return Path(path)


def facts(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """What the results file says of the series, besides the images: these of its options."""
    return {name: getattr(arguments, name) for name in names}


def series_of(arguments: argparse.Namespace, results: Results) -> Series:
    """The series of a results file."""
    folder = arguments.runs / results_path(arguments).stem
    return Series(results, folder, arguments.device, arguments.threads)


def show(arguments: argparse.Namespace, table: str, plot: Callable[[], str] | None = None) -> int:
    """Prints the table of a series, and writes it and the drawing where that is wanted; the exit
    code of the command."""
    print(f"\n{table}")
    if arguments.plot and plot:
        arguments.plot.write_text(plot(), encoding="utf-8")
    if arguments.document:
        put_into(arguments.document, results_path(arguments).stem, table)
    return 0


def variants_of(only: str | None, known: Mapping[str, object]) -> list[str]:
    """The names that `--only` gives, in the order of `known`; without it all, and always the first,
    which the others are compared with.

    Raises: ValueError: an unknown one.
    """
    if only is None:
        return list(known)
    names = only.split(",")
    for name in names:
        if name not in known:
            raise ValueError(f'--only: unknown variant "{name}"{did_you_mean(name, known)}')
    return [name for at, name in enumerate(known) if at == 0 or name in names]


def data_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """The `data` table of a configuration: differences from the mean come to about 1."""
    table: dict[str, Any] = {"source": arguments.source, "path": arguments.data, "scale": 1 / 64}
    if arguments.source == "folder":
        table["size"] = [arguments.size or SIDE] * 2
    return table


def title_of(results: Results) -> str:
    """The data of a results file, as they are called in titles."""
    images = str(results.settings["train"]).partition(" ")[0]
    return f"{int(images):,} images of {SOURCES[results.settings['source']]}"


def stride_for(shape: Sequence[int]) -> int:
    """The stride of the first convolution: 1 for images below 48 pixels, 2 below 128, else 4."""
    return 1 if shape[0] < 48 else 2 if shape[0] < 128 else 4


def open_images(arguments: argparse.Namespace, data: dict[str, Any]) -> Sets:
    """The images of a series.

    Raises:
        DataError: there are none, or fewer than asked for.
    """
    cfg = load_config({"data": data, "net": {"model": "small"}})
    whole, held_out = open_sets(cfg)
    train = Part(whole, _chosen(arguments.images, len(whole), arguments.most[0], "--images"))
    sample = Part(train, _chosen(arguments.sample, len(train), arguments.most[1], "--sample"))
    test = Part(held_out, chosen(arguments.test_images, len(held_out), "--test-images"))
    return Sets(train, sample, test)


def _chosen(count: int | None, total: int, most: int, option: str) -> npt.NDArray[np.int64]:
    return chosen(min(most, total) if count is None else count, total, option)


def ended(main: Callable[[], int], name: str) -> int:
    """Runs a command; errors are told in one line. Exit codes as those of `convnet`."""
    try:
        return main()
    except Stopped as stop:
        print(f"{name}: stopped; the same command goes on", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ValueError, OSError, DeviceError) as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 3 if isinstance(error, DeviceError) else 2
