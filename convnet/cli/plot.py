"""The command `convnet plot RUN curves|filters|predictions|confusion|saliency|...`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from convnet.cli.arguments import Commands, Parser, chosen, integer, integers, warn

_DATA = ("data", "device", "overrides")  # options of all that shows images


def add_commands(commands: Commands) -> None:
    """Adds `plot` to the sub-commands of `convnet`."""
    plot = commands.group("plot", "Draw what a run has learned.")
    plot.argument("run", "RUN", "run folder or checkpoint file")
    kinds = Commands(plot, "WHAT")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> Parser:
        kind = kinds.add(name, function, text)
        kind.out("FILE", f"default: {name}.png in the run's folder")
        return kind

    add("curves", _curves, "Loss, error and learning rate against epochs.")
    filters = add("filters", _filters, "The filters of the first layer, towers apart.")
    filters.option("--layer", "NAME", "another convolution")
    filters.option("--towers", "N", "default: as many as the net has", integer(1, 1024))
    filters.option("--scale", "N", "pixels per weight (default: as fits)", integer(1, 1000))
    filters.flag("--each", "full contrast for every filter by itself")
    guess = add("predictions", _predictions, "Images with their likeliest classes.")
    guess.argument("images", "IMG", "image files (default: validation images)", "*")
    text = "classes of the images (default: by the folders they lie in)"
    guess.option("--labels", "NAME,...", text, lambda names: names.split(","), ())
    pick_option(guess)
    guess.option("--count", "N", "validation images to show", integer(1, 400), 8)
    guess.option("--top", "N", "classes per image", integer(1, 50), 5)
    confusion = add("confusion", _confusion, "What the images of each class are taken for.")
    for kind in (guess, confusion):
        kind.shared("ten-crop")
    saliency = add("saliency", _saliency, "What of an image the likeliest class depends on.")
    saliency.argument("images", "IMG", "image files (default: validation images)", "*")
    pick_option(saliency)
    saliency.option("--count", "N", "validation images to show", integer(1, 100), 6)
    deconv = add("deconv", _deconv, "What excites the units of a net, layer by layer.")
    deconv.option("--layer", "NAME", "one convolution (default: all)")
    deconv.option("--units", "N", "units of a layer", integer(1, 1024), 6)
    deconv.option("--most", "N", "validation images to look at", integer(1), 1000)
    activations = add("activations", _activations, "An image on its way through the layers.")
    activations.argument("images", "IMG", "an image file (default: a validation image)", "*")
    pick_option(activations)
    for kind in (guess, confusion, saliency, deconv, activations):
        kind.shared("data", "device", "code")
        kind.reading()
    filters.shared("code")


def pick_option(command: Parser) -> None:
    """Adds `--pick N,N,...`."""
    command.option("--pick", "N,N,...", "validation images by number, from 0", integers(0), ())


def _wrote(result: tuple[Path, str]) -> int:
    path, text = result
    print(f"{text}\nwrote {path}")
    return 0


def _curves(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_curves

    return _wrote(plot_curves(arguments.run, arguments.out))


def _filters(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_filters

    options = chosen(arguments, "run", "out", "layer", "towers", "each")
    return _wrote(plot_filters(**options, scale=arguments.scale or 0, warn=warn))


def _predictions(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_predictions

    options = ("run", "images", "out", "labels", "pick", "count", "top", "ten_crop")
    return _wrote(plot_predictions(**chosen(arguments, *options, *_DATA), warn=warn))


def _confusion(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import plot_confusion

    options = chosen(arguments, "run", "out", "ten_crop", *_DATA)
    return _wrote(plot_confusion(**options, warn=warn))


def _saliency(arguments: argparse.Namespace) -> int:
    from convnet.interpret.look import plot_saliency

    options = chosen(arguments, "run", "images", "out", "pick", "count", *_DATA)
    return _wrote(plot_saliency(**options, warn=warn))


def _deconv(arguments: argparse.Namespace) -> int:
    from convnet.interpret.look import plot_deconv

    options = chosen(arguments, "run", "out", "layer", "units", "most", *_DATA)
    return _wrote(plot_deconv(**options, warn=warn))


def _activations(arguments: argparse.Namespace) -> int:
    from convnet.interpret.look import plot_activations

    options = chosen(arguments, "run", "images", "out", "pick", *_DATA)
    return _wrote(plot_activations(**options, warn=warn))
