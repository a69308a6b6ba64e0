"""The command `convnet plot RUN curves|filters|predictions|confusion`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from convnet.cli.data import whole


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `plot` to the sub-commands of `convnet`.

    Args:
        commands: what `add_subparsers` returned.
        shared: a parser with the options of all commands.
    """
    text = "Draw what a run has learned."
    plot = commands.add_parser("plot", help=text, description=text)
    plot.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    kinds = plot.add_subparsers(required=True, metavar="WHAT", parser_class=type(plot))

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        kind: argparse.ArgumentParser = kinds.add_parser(
            name, help=text, description=text, parents=[shared]
        )
        kind.set_defaults(command=function)
        kind.add_argument(
            "-o", "--out", metavar="FILE", help=f"default: {name}.png in the run's folder"
        )
        return kind

    add("curves", _curves, "Loss, error and learning rate against epochs.")
    filters = add("filters", _filters, "The kernels of the first layer, towers apart.")
    filters.add_argument("--layer", metavar="NAME", help="another convolution")
    filters.add_argument(
        "--towers", type=whole(1, 1024), metavar="N", help="default: as many as the net has"
    )
    filters.add_argument(
        "--scale", type=whole(1, 1000), default=0, metavar="N", help="pixels a weight"
    )
    filters.add_argument(
        "--each", action="store_true", help="full contrast for every filter by itself"
    )
    guess = add("predictions", _predictions, "Images with their likeliest classes.")
    guess.add_argument(
        "images", nargs="*", metavar="IMG", help="image files (default: validation images)"
    )
    guess.add_argument(
        "--labels",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,...",
        help="their classes (default: by the folders they lie in)",
    )
    pick_option(guess)
    guess.add_argument(
        "--count",
        type=whole(1, 400),
        default=8,
        metavar="N",
        help="validation images",
    )
    guess.add_argument("--top", type=whole(1, 50), default=5, metavar="N", help="bars an image")
    confusion = add("confusion", _confusion, "What the images of each class are taken for.")
    for kind in (guess, confusion):
        kind.add_argument(
            "--ten-crop", action="store_true", help="average over corners, centre, mirror images"
        )
        kind.add_argument("--data", metavar="D", help="folder or file of the data")
        kind.add_argument("--device", metavar="D", help="auto (default), cpu, cuda, cuda:N")


def pick_option(command: argparse.ArgumentParser) -> None:
    """Adds `--pick N,N,...`."""
    command.add_argument(
        "--pick",
        type=_numbers,
        default=[],
        metavar="N,N,...",
        help="validation images by number, from 0",
    )


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) < 12 for word in words):
        raise argparse.ArgumentTypeError(f'expected whole numbers such as 3,17; got "{text}"')
    return [int(word) for word in words]


def _said(result: tuple[Path, str]) -> int:
    path, text = result
    print(text)
    print(f"wrote {path}")
    return 0


def _curves(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_curves

    return _said(plot_curves(arguments.run, arguments.out))


def _filters(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_filters

    return _said(
        plot_filters(
            arguments.run,
            arguments.out,
            arguments.layer,
            arguments.towers,
            arguments.scale,
            arguments.each,
            warn=warn,
        )
    )


def _predictions(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_predictions

    return _said(
        plot_predictions(
            arguments.run,
            arguments.images,
            arguments.out,
            labels=arguments.labels,
            pick=arguments.pick,
            count=arguments.count,
            top=arguments.top,
            ten_crop=arguments.ten_crop,
            data=arguments.data,
            device=arguments.device,
            warn=warn,
        )
    )


def _confusion(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_confusion

    return _said(
        plot_confusion(
            arguments.run,
            arguments.out,
            arguments.ten_crop,
            arguments.data,
            arguments.device,
            warn=warn,
        )
    )


def warn(text: str) -> None:
    """Prints a warning."""
    print(f"convnet: warning: {text}", file=sys.stderr)
