"""The commands `convnet data check`, `pack` and `mean`: preparing folders of images."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from convnet.cli.arguments import Commands, Parser, chosen, integer, positive, warn


def add_commands(commands: Commands) -> None:
    """Adds `data` to the sub-commands of `convnet`."""
    group = Commands(commands.group("data", "Check, pack and measure folders of images."))
    check = group.add("check", _check, "Look for damaged, huge and duplicate images.")
    check.argument("folder", "DIR", "class folders, train/ and val/, or packed images")
    check.flag("--all", "list everything, however long")
    check.flag("--similar", "list images that look alike, too (needs imagehash)")
    pack = group.add("pack", _pack, "Resize images once and pack them in a few large files.")
    _add_pack(pack)
    mean = group.add("mean", _mean, "Compute mean image and colour covariance of packed images.")
    mean.argument("packed", "PACKED", "folder that convnet data pack has written")
    for command in (check, pack, mean):
        command.shared("json")
        text = "processes (default: one for each CPU, at most 16)"
        command.option("--workers", "N", text, integer(1, 1024))


def _add_pack(pack: Parser) -> None:
    pack.argument("folder", "DIR", "class folders, or train/ (and val/) of them")
    pack.argument("out", "OUT", "new folder; or an unfinished one, to go on")
    pack.option("--val", "DIR", "folder of the validation images")
    text = "labels of the validation images, one a line, where they are not in class folders"
    pack.option("--val-labels", "FILE", text)
    pack.option("--synsets", "FILE", "names of the labels: meta.mat or a text file")
    text = "part to hold out where there are no validation images"
    pack.option("--val-fraction", "F", text, positive(1, below=True), 0.1)
    pack.option("--size", "N", "height and width in pixels", integer(8, 4096), 256)
    text = (
        "how images get that size: cut off, filled up with the edges' colour, or out of proportion"
    )
    pack.choice("--resize", text, "crop", "pad", "stretch")
    pack.option("--quality", "Q", "quality of the JPEG files", integer(1, 100), 95)
    pack.flag("--raw", "store pixels uncompressed, for small sets")
    pack.option("--shard", "N", "images per file", integer(1, 1_000_000), 2000)
    text = "what to do about an image that cannot be decoded"
    pack.choice("--bad-files", text, "error", "skip")
    pack.flag("--drop-copies", "keep one of several files with the same content")


# ---- commands ------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import expanded
    from convnet.data.folder.check import check, check_packed
    from convnet.data.folder.trees import find_listings
    from convnet.data.packed.manifest import is_packed

    root = expanded(arguments.folder)
    if is_packed(root):
        text = check_packed(root)
        print(json.dumps({"packed": True, "text": text}) if arguments.json else text)
        return 0
    parts = find_listings(root, unlabelled=True)
    report = check(root, parts, arguments.workers, warn, arguments.similar)
    print(json.dumps(report.as_dict()) if arguments.json else report.text(arguments.all))
    return 1 if report.bad else 0


def _pack(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import DataError, shown
    from convnet.data.packed.pack import PackSettings, pack
    from convnet.data.workers.pool import BadDataError

    train, val, out, dropped = _listed(arguments)
    settings = PackSettings(
        size=(arguments.size, arguments.size),
        encoding="raw" if arguments.raw else "jpeg",
        **chosen(arguments, "quality", "shard", "bad_files", "resize"),
    )
    start = time.monotonic()
    try:
        report = pack(train, val, out, settings, arguments.workers, warn)
    except BadDataError as error:  # of an image
        raise DataError(f"{error} (--bad-files skip leaves such files out)") from None
    except KeyboardInterrupt:
        print(f"{shown(out)}: the same command goes on from here", file=sys.stderr)
        raise
    seconds = round(time.monotonic() - start, 1)
    facts = {**vars(report), "dropped_copies": dropped, "seconds": seconds}
    print(json.dumps(facts) if arguments.json else _pack_text(facts, shown(out)))
    return 0


def _listed(arguments: argparse.Namespace) -> tuple[Any, Any, Path, int]:
    """The listings to train on and to validate with, the folder to pack them in, and how many
    copies were left out."""
    from convnet.data.dataset import DataError, expanded, shown
    from convnet.data.folder.class_folders import split_by_content
    from convnet.data.folder.trees import drop_copies, find_listings

    root, out = expanded(arguments.folder), expanded(arguments.out)
    given = chosen(arguments, "val", "val_labels", "synsets").values()
    val, labels, synsets = (expanded(path) if path else None for path in given)
    for place in (root, val):
        if place and out.absolute().is_relative_to(place.absolute()):
            raise DataError(
                f"{shown(out)}: expected a folder outside of the images, got one in {shown(place)}"
            )
    parts, dropped = find_listings(root, val, labels, synsets), 0
    if arguments.drop_copies:
        parts, dropped = drop_copies(parts)
    if "all" in parts:
        return *split_by_content(parts["all"], arguments.val_fraction)[:2], out, dropped
    return parts["train"], parts["val"], out, dropped


def _pack_text(report: dict[str, Any], out: str) -> str:
    from convnet.training.progress import duration

    lines = [
        f"{out}: {report['pictures']['train']:,} images for training and"
        f" {report['pictures']['val']:,} for validation, {report['classes']:,} classes,"
        f" {report['bytes'] / 1e6:,.1f} MB, {duration(report['seconds'])}"
    ]
    if report["reused"]:
        lines.append(f"{report['reused']:,} shards were complete before")
    if report["dropped_copies"]:
        lines.append(f"{report['dropped_copies']:,} exact copies left out (--drop-copies)")
    if report["copies"]:
        extra = sum(len(group) - 1 for group in report["copies"])
        lines.append(f"{extra:,} exact copies of another image (listed in packed.json)")
    if report["across"]:
        lines.append(
            f"warning: {report['across']:,} of the validation images are in training, too;"
            " --drop-copies takes them out of training"
        )
    lines += [f"left out: {file}: {why}" for file, why in report["bad"][:20]]
    if len(report["bad"]) > 20:
        lines.append(f"left out: {len(report['bad']) - 20:,} more (listed in packed.json)")
    lines.append(f"next: convnet data mean {out}")
    return "\n".join(lines)


def _mean(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import expanded, shown
    from convnet.data.packed.dataset import open_packed
    from convnet.data.packed.mean import compute_sums
    from convnet.data.packed.sums import SUMS

    root = expanded(arguments.packed)
    train, _ = open_packed(root, cache_bytes=0)
    sums = compute_sums(train, arguments.workers, warn)
    stats = sums.statistics("channel", colour=True)
    mean, values = stats.mean.reshape(-1).tolist(), stats.eigenvalues.tolist()
    if arguments.json:
        vectors = stats.eigenvectors.T.tolist()
        report = {"pictures": sums.count, "mean": mean, "eigenvalues": values}
        print(json.dumps({**report, "eigenvectors": vectors}))
        return 0
    print(f"{sums.count:,} images; mean of red, green, blue: {_row(mean, '.2f')} (of 0 .. 255)")
    print("covariance of the colours, intensities 0 .. 1: eigenvalue, eigenvector")
    for value, vector in zip(values, stats.eigenvectors.T.tolist(), strict=True):
        print(f"  {value:.6f}  {_row(vector, '+.4f')}")
    print(f"written to {shown(root / SUMS)}, where training finds it")
    return 0


def _row(numbers: list[float], form: str) -> str:
    return " ".join(format(number, form) for number in numbers)
