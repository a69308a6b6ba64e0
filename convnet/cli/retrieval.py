"""The commands `convnet features`, `hash`, `search` and `retrieval`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from convnet.cli.data import shown_progress, whole
from convnet.cli.plot import pick_option, warn


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the commands to the sub-commands of `convnet`.

    Args:
        commands: what `add_subparsers` returned.
        shared: a parser with the options of all commands.
    """

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text, parents=[shared]
        )
        command.set_defaults(command=function)
        return command

    features = add("features", _features, "Write the last hidden layer for a set of images.")
    features.add_argument("run", metavar="RUN", help="run folder or checkpoint file")
    features.add_argument(
        "data", nargs="?", metavar="DATA", help="folder or file of the data (default: the run's)"
    )
    features.add_argument("-o", "--out", required=True, metavar="F", help=".safetensors file")
    features.add_argument("--layer", metavar="NAME", help="another node of the net")
    features.add_argument(
        "--part",
        choices=("train", "val", "all"),
        default="train",
        help="training images (default), validation images, or both",
    )
    _device(features)

    codes = add("hash", _hash, "Learn short binary codes of features, by an auto-encoder.")
    codes.add_argument("index", metavar="F", help="file of convnet features")
    codes.add_argument("-o", "--out", required=True, metavar="CODES", help=".safetensors file")
    codes.add_argument(
        "--bits", type=whole(1, 4096), default=64, metavar="N", help="of a code (64)"
    )
    codes.add_argument(
        "--hidden",
        type=_sizes,
        metavar="N,N,...",
        help='hidden layers of the encoder; "none" for none (default: from the feature\'s size)',
    )
    codes.add_argument("--epochs", type=whole(1, 100_000), default=30, metavar="N")
    codes.add_argument("--lr", type=_rate, default=0.01, metavar="R", help="learning rate (0.01)")
    codes.add_argument("--seed", type=whole(0, 2**31 - 1), default=1, metavar="N")
    _device(codes)

    search = add("search", _search, "Find and draw the images nearest to others.")
    search.add_argument("run", metavar="RUN", help="the run that the index was made with")
    search.add_argument("index", metavar="INDEX", help="file of convnet features or convnet hash")
    search.add_argument("images", nargs="*", metavar="IMG", help="image files")
    pick_option(search)
    search.add_argument("-k", type=whole(1, 10_000), default=6, metavar="N", help="neighbours (6)")
    search.add_argument(
        "-o", "--out", metavar="FILE", help="the image (default: search.png in the run's folder)"
    )
    search.add_argument("--no-image", "--no-picture", action="store_true", help="draw nothing")
    search.add_argument("--no-check", action="store_true", help="trust the index: read it once")
    search.add_argument("--data", metavar="D", help="where the images are, if they have moved")
    search.add_argument("--json", action="store_true", help="print a JSON object a query")
    _engine(search)
    _device(search)

    table = add("retrieval", _retrieval, "Measure search by features, codes and pixels.")
    table.add_argument("index", metavar="F", help="features to search")
    table.add_argument("queries", metavar="QUERIES", help="features to search for, of others")
    table.add_argument("codes", nargs="*", metavar="CODES", help="files of convnet hash, from F")
    table.add_argument("-k", type=whole(1, 10_000), default=10, metavar="N", help="neighbours (10)")
    table.add_argument("--most", type=whole(1, 10**9), metavar="N", help="use so many queries")
    table.add_argument("--no-pixels", action="store_true", help="leave out the raw pixels")
    table.add_argument("--json", action="store_true", help="print a JSON object")
    _engine(table)


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", metavar="D", help="auto (default), cpu, cuda, cuda:N")


def _engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine", choices=("numpy", "faiss"), default="numpy", help="of features (numpy)"
    )


def _sizes(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    return tuple(whole(1, 1 << 20)(word) for word in text.split(","))


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f'expected a number above 0, up to 1000; got "{text}"')
    return number


# ---- commands ------------------------------------------------------------------------------------


def _features(arguments: argparse.Namespace) -> int:
    from convnet.retrieval.features import write_features
    from convnet.training.progress import duration

    with shown_progress("features", "images") as progress:
        try:
            written = write_features(
                arguments.run,
                arguments.data,
                arguments.out,
                arguments.layer,
                arguments.part,
                arguments.device,
                warn,
                progress,
            )
        except KeyboardInterrupt:
            print(f"{arguments.out}: the same command goes on from here", file=sys.stderr)
            raise
    text = f"{written.count:,} images, {written.size} numbers each, of {written.layer}"
    if written.done_before:
        text += f"; {written.done_before:,} were done before"
    print(f"{text}; {duration(written.seconds)}")
    print(f"wrote {written.path}")
    return 0


def _hash(arguments: argparse.Namespace) -> int:
    from convnet.retrieval.hashing import HashSettings
    from convnet.retrieval.index import write_codes

    settings = HashSettings(
        bits=arguments.bits,
        hidden=arguments.hidden,
        epochs=arguments.epochs,
        lr=arguments.lr,
        seed=arguments.seed,
    )
    with shown_progress("hash", "epochs") as progress:
        index, loss = write_codes(
            arguments.index, arguments.out, settings, arguments.device or "auto", progress
        )
    sizes = [index.facts["encoder"]["size"], *index.facts["encoder"]["hidden"], settings.bits]
    print(
        f"{len(index):,} codes of {settings.bits} bits (encoder {'-'.join(map(str, sizes))}); they"
        f" leave {100 * loss:.1f} % of the variance of the features unexplained"
    )
    print(f"wrote {index.path}")
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from convnet.interpret.plot import place_for
    from convnet.retrieval.index import distance_text, draw, open_index, search

    index = open_index(arguments.index, arguments.engine, check=not arguments.no_check)
    found = search(
        arguments.run,
        index,
        arguments.images,
        arguments.pick,
        arguments.k,
        arguments.data,
        arguments.device,
        warn,
    )
    for one in found:
        if arguments.json:
            print(json.dumps(one.as_dict()))
            continue
        print(one.query.name + (f" ({one.query.label})" if one.query.label else ""))
        width = max(len(label or "") for label in one.labels)
        for name, label, distance in zip(one.names, one.labels, one.distances, strict=True):
            far = distance_text(index, distance)
            print(f"  {far:>8}  {label or '':{width}}  {name}")
    if not arguments.no_image:
        out = place_for(arguments.run, "search.png", arguments.out)
        draw(found, index, out, arguments.data)
        if not arguments.json:
            print(f"wrote {out}")
    return 0


def _retrieval(arguments: argparse.Namespace) -> int:
    from convnet.retrieval.benchmark import retrieval

    with shown_progress("retrieval", "kinds of search") as progress:
        report = retrieval(
            arguments.index,
            arguments.queries,
            arguments.codes,
            arguments.k,
            arguments.most,
            not arguments.no_pixels,
            arguments.engine,
            progress,
        )
    print(json.dumps(report.as_dict()) if arguments.json else report.text())
    return 0
