"""The commands `convnet data ...`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Add = Callable[[str, Any, str], argparse.ArgumentParser]


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds `data` to the sub-commands of `convnet`.

    Args:
        commands: what `add_subparsers` returned.
        shared: a parser with the options of all commands.
    """
    group = Group(commands, shared, "data", "Check, pack and measure folders of images.")
    _add_check(group.add("check", _check, "Look for damaged, huge and duplicate images."))
    _add_pack(group.add("pack", _pack, "Scale images once and pack them in a few large files."))
    mean = group.add("mean", _mean, "Compute mean image and colour covariance of packed images.")
    mean.add_argument("packed", metavar="PACKED", help="folder that data pack has written")
    mean.add_argument("--json", action="store_true", help="print a JSON object")
    _worker_option(mean)


class Group:
    """A command that has commands below it."""

    def __init__(
        self, commands: Any, shared: argparse.ArgumentParser, name: str, text: str
    ) -> None:
        self._shared = shared
        parser = commands.add_parser(name, help=text, description=text)
        self._commands = parser.add_subparsers(
            required=True, metavar="COMMAND", parser_class=type(parser)
        )

    def add(self, name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = self._commands.add_parser(
            name, help=text, description=text, parents=[self._shared]
        )
        command.set_defaults(command=function)
        return command


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("folder", metavar="DIR", help="class folders, train/ and val/, or packed")
    check.add_argument("--all", action="store_true", help="list everything, however long")
    check.add_argument("--json", action="store_true", help="print a JSON object")
    _worker_option(check)


def _add_pack(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("folder", metavar="DIR", help="class folders, or train/ (and val/) of them")
    pack.add_argument("out", metavar="OUT", help="new folder; or an unfinished one, to go on")
    pack.add_argument("--val", metavar="DIR", help="folder of the validation images")
    pack.add_argument(
        "--val-labels",
        metavar="FILE",
        help="where they lie in no class folders: their labels, one a line",
    )
    pack.add_argument(
        "--synsets", metavar="FILE", help="what the numbers in it mean: meta.mat or a text file"
    )
    pack.add_argument(
        "--val-fraction",
        type=_fraction,
        default=0.1,
        metavar="F",
        help="without validation images: the part to hold out (default 0.1)",
    )
    pack.add_argument(
        "--size", type=whole(8, 4096), default=256, metavar="N", help="side (default 256)"
    )
    pack.add_argument(
        "--quality", type=whole(1, 100), default=95, metavar="Q", help="of JPEG (default 95)"
    )
    pack.add_argument("--raw", action="store_true", help="uncompressed, for small sets")
    pack.add_argument(
        "--shard", type=whole(1, 1_000_000), default=2000, metavar="N", help="images a file"
    )
    pack.add_argument(
        "--bad-files",
        choices=("error", "skip"),
        default="error",
        help="what to do about an image that cannot be decoded (default: error)",
    )
    pack.add_argument(
        "--drop-copies", action="store_true", help="of files with the same content, keep one"
    )
    pack.add_argument("--json", action="store_true", help="print a JSON object")
    _worker_option(pack)


def _worker_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=whole(1, 1024),
        metavar="N",
        help="processes (default: one for each CPU, at most 16)",
    )


# ---- arguments -----------------------------------------------------------------------------------


def whole(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f'expected a whole number from {low} to {high}, got "{text}"'
            )
        return number

    return convert


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _fraction(text: str) -> float:
    if not 0 < number(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number above 0 and below 1, got "{text}"')
    return number(text)


# ---- commands ------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import expanded
    from convnet.data.folder.check import check, check_packed
    from convnet.data.folder.trees import find_listings
    from convnet.data.packed.manifest import is_packed

    root = expanded(arguments.folder)
    if is_packed(root):
        with shown_progress("checking", "shards") as progress:
            text = check_packed(root, progress)
        print(json.dumps({"packed": True, "text": text}) if arguments.json else text)
        return 0
    parts = find_listings(root, unlabelled=True)
    with shown_progress("checking", "files") as progress:
        report = check(root, parts, arguments.workers, progress, _warn)
    print(json.dumps(report.as_dict()) if arguments.json else report.text(arguments.all))
    return 1 if report.bad else 0


def _pack(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import DataError, expanded, shown
    from convnet.data.folder.class_folders import split_by_content
    from convnet.data.folder.trees import drop_copies, find_listings
    from convnet.data.packed.pack import PackSettings, pack
    from convnet.data.workers.pool import BadDataError

    root, out = expanded(arguments.folder), expanded(arguments.out)
    places = [expanded(p) if p else None for p in (arguments.val, arguments.val_labels)]
    synsets = expanded(arguments.synsets) if arguments.synsets else None
    for place in [root] + ([places[0]] if places[0] else []):
        if out.absolute().is_relative_to(place.absolute()):
            raise DataError(
                f"{shown(out)}: expected a folder outside of the images, got one in {shown(place)}"
            )
    parts = find_listings(root, places[0], places[1], synsets)
    dropped = 0
    if arguments.drop_copies:
        parts, dropped = drop_copies(parts)
    if "all" in parts:
        train, val, _ = split_by_content(parts["all"], arguments.val_fraction)
    else:
        train, val = parts["train"], parts["val"]
    settings = PackSettings(
        size=(arguments.size, arguments.size),
        encoding="raw" if arguments.raw else "jpeg",
        quality=arguments.quality,
        shard=arguments.shard,
        bad_files=arguments.bad_files,
    )
    start = time.monotonic()
    with shown_progress("packing", "images") as progress:
        try:
            report = pack(train, val, out, settings, arguments.workers, progress, _warn)
        except BadDataError as error:  # of an image
            raise DataError(f"{error} (--bad-files skip leaves such files out)") from None
        except KeyboardInterrupt:
            print(f"{shown(out)}: the same command goes on from here", file=sys.stderr)
            raise
    said = {
        **vars(report),
        "dropped_copies": dropped,
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(said) if arguments.json else _pack_text(said, shown(out)))
    return 0


def _pack_text(said: dict[str, Any], out: str) -> str:
    from convnet.training.progress import duration

    lines = [
        f"{out}: {said['pictures']['train']:,} images for training and"
        f" {said['pictures']['val']:,} for validation, {said['classes']:,} classes,"
        f" {said['bytes'] / 1e6:,.1f} MB, {duration(said['seconds'])}"
    ]
    if said["reused"]:
        lines.append(f"{said['reused']:,} shards were complete before")
    if said["dropped_copies"]:
        lines.append(f"{said['dropped_copies']:,} exact copies left out (--drop-copies)")
    if said["copies"]:
        extra = sum(len(group) - 1 for group in said["copies"])
        lines.append(f"{extra:,} exact copies of another image (listed in packed.json)")
    if said["across"]:
        lines.append(
            f"warning: {said['across']:,} of the validation images are in training, too;"
            " --drop-copies takes them out of training"
        )
    lines += [f"left out: {file}: {why}" for file, why in said["bad"][:20]]
    if len(said["bad"]) > 20:
        lines.append(f"left out: {len(said['bad']) - 20:,} more (listed in packed.json)")
    lines.append(f"next: convnet data mean {out}")
    return "\n".join(lines)


def _mean(arguments: argparse.Namespace) -> int:
    from convnet.data.dataset import expanded, shown
    from convnet.data.packed.dataset import open_packed
    from convnet.data.packed.mean import compute_sums
    from convnet.data.packed.sums import SUMS

    root = expanded(arguments.packed)
    train, _ = open_packed(root, cache_bytes=0)
    with shown_progress("averaging", "images") as progress:
        sums = compute_sums(train, arguments.workers, progress, _warn)
    stats = sums.statistics("channel", colour=True)
    mean, values = stats.mean.reshape(-1).tolist(), stats.eigenvalues.tolist()
    if arguments.json:
        vectors = stats.eigenvectors.T.tolist()
        said = {"pictures": sums.count, "mean": mean, "eigenvalues": values}
        print(json.dumps({**said, "eigenvectors": vectors}))
        return 0
    print(f"{sums.count:,} images; mean of red, green, blue: {_row(mean, '.2f')} (of 0 .. 255)")
    print("covariance of the colours, intensities 0 .. 1: eigenvalue, eigenvector")
    for value, vector in zip(values, stats.eigenvectors.T.tolist(), strict=True):
        print(f"  {value:.6f}  {_row(vector, '+.4f')}")
    print(f"written to {shown(root / SUMS)}, where training finds it")
    return 0


def _row(numbers: list[float], form: str) -> str:
    return " ".join(format(number, form) for number in numbers)


# ---- showing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def shown_progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far something is and how long it will take: a bar on a terminal, else lines."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, unit)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress as a line on standard error every ten seconds."""

    EVERY = 10.0

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._first: int | None = None
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        from convnet.training.progress import duration

        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last < self.EVERY or done == total:
            return
        self._last = now
        rate = (done - self._first) / (now - self._start)
        eta = f", ETA {duration((total - done) / rate)}" if rate > 0 else ""
        print(
            f"{self._what}: {done:,} of {total:,} {self._unit}, {rate:,.0f}/s{eta}", file=sys.stderr
        )


def _warn(text: str) -> None:
    print(f"convnet: warning: {text}", file=sys.stderr)
