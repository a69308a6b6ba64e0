"""The commands `convnet features`, `hash`, `search` and `retrieval`."""

from __future__ import annotations

import argparse
import json
import sys

from convnet.cli.arguments import Commands, chosen, integer, integers, positive, warn
from convnet.cli.plot import pick_option


def add_commands(commands: Commands) -> None:
    """Adds the commands to the sub-commands of `convnet`."""
    features = commands.add(
        "features", _features, "Write the last hidden layer's outputs for a set of images."
    )
    features.run()
    features.argument("data", "DATA", "folder or file of the data (default: the run's)", "?")
    features.out("F", ".safetensors file", required=True)
    features.option("--layer", "NAME", "another node of the net")
    features.choice("--part", "training images, validation images, or both", "train", "val", "all")

    codes = commands.add("hash", _hash, "Learn binary codes of features, by an auto-encoder.")
    codes.argument("index", "F", "file of convnet features")
    codes.out("CODES", ".safetensors file", required=True)
    text = 'hidden layers of the encoder; "none" for none (default: from the feature\'s size)'
    codes.option("--hidden", "N,N,...", text, _sizes)
    codes.option("--bits", "N", "bits per code", integer(1, 4096), 64)
    codes.option("--epochs", "N", "passes over the features", integer(1, 100_000), 30)
    codes.option("--seed", "N", "seed of the weights and of the data order", integer(0), 1)
    codes.option("--lr", "R", "learning rate", positive(1000), 0.01)
    codes.shared("device")

    search = commands.add("search", _search, "Find and draw the images nearest to others.")
    search.argument("run", "RUN", "the run that the index was made with")
    search.argument("index", "INDEX", "file of convnet features or convnet hash")
    search.argument("images", "IMG", "image files", "*")
    pick_option(search)
    search.option("-k", "N", "neighbours", integer(1, 10_000), 6)
    search.out("FILE", "the drawing (default: search.png in the run's folder)")
    search.add_argument("--no-image", "--no-picture", action="store_true", help="draw nothing")
    search.flag("--no-check", "trust the index: read it once")
    search.option("--data", "D", "where the images are, if they have moved")
    search.shared("json", "engine", "device", "code")

    table = commands.add("retrieval", _retrieval, "Measure search by features, codes and pixels.")
    table.argument("index", "F", "features to search")
    table.argument("queries", "QUERIES", "features to search for, of others")
    table.argument("codes", "CODES", "files of convnet hash, from F", "*")
    table.option("-k", "N", "neighbours", integer(1, 10_000), 10)
    table.option("--most", "N", "use at most N queries", integer(1))
    table.flag("--no-pixels", "leave out the raw pixels")
    table.shared("json", "engine")


def _sizes(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(integers(1, 1 << 20)(text))


# ---- commands ------------------------------------------------------------------------------------


def _features(arguments: argparse.Namespace) -> int:
    from convnet.retrieval.features import write_features
    from convnet.training.progress import duration

    options = chosen(arguments, "run", "data", "out", "layer", "part", "device")
    try:
        written = write_features(**options, warn=warn)
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

    settings = HashSettings(**chosen(arguments, "bits", "hidden", "epochs", "lr", "seed"))
    device = arguments.device or "auto"
    index, loss = write_codes(arguments.index, arguments.out, settings, device)
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
    options = chosen(arguments, "run", "images", "pick", "k", "data", "device")
    found = search(index=index, **options, warn=warn)
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

    options = chosen(arguments, "queries", "codes", "k", "most", "engine")
    report = retrieval(arguments.index, pixels=not arguments.no_pixels, **options)
    print(json.dumps(report.as_dict()) if arguments.json else report.text())
    return 0
