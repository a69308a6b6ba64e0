"""Real images in eight classes, for trying things out: Debian's drawings, fetched and packed.

The package `openclipart-png` (131 MB) holds public-domain drawings of the Open Clip Art Library as
PNG files, about 1,900 of them in eight folders that name objects. Nearly all have an alpha channel,
many are exact copies of others (a drawing may lie in several folders), and a few have more than a
hundred million pixels. `apt-get download` and `dpkg-deb -x` need no root and install nothing.

    python experiments/openclipart.py FOLDER             # makes FOLDER/images and FOLDER/packed
    python experiments/openclipart.py FOLDER --train     # and trains a small AlexNet on them
    convnet train folder --data FOLDER/packed            # or another net
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import convnet
from convnet.cli.main import main as command
from convnet.config import load_config
from convnet.data.packed.manifest import is_packed
from convnet.training.datasets import open_sets

PACKAGE = "openclipart-png"
INSIDE = Path("usr/share/openclipart/png")  # where the folders lie in the package
CLASSES = (
    "animals",
    "buildings",
    "food",
    "office",
    "people",
    "plants",
    "tools",
    "transportation",
)

# The preset alexnet-half, made for 1,500 images and a few minutes on a CPU: smaller images and
# dense layers, and weights and rates with which a deep net learns at once (docs/alexnet.md).
SMALL = (
    "data.size=[104,104]",
    "augment.crop=[96,96]",
    "data.scale=0.015625",
    "net.options.hidden=512",
    "net.options.init=he",
    "net.options.bias=0.1",
    "schedule.kind=cosine",
    "schedule.warmup_steps=100",
    "train.batch=32",
    "train.epochs=60",
)


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the package into `folder`, unless it is there; returns the tree."""
    tree = folder / "package"
    if not (tree / INSIDE).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        debs = list(folder.glob(f"{PACKAGE}_*.deb"))
        if not debs:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
            debs = list(folder.glob(f"{PACKAGE}_*.deb"))
        half = folder / "package.tmp"
        subprocess.run(["dpkg-deb", "-x", debs[0], half], check=True)
        half.rename(tree)
    return tree / INSIDE


def link_classes(tree: Path, images: Path) -> None:
    """Makes a folder with the eight class folders, as links into the tree."""
    images.mkdir(exist_ok=True)
    for name in CLASSES:
        link = images / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(tree / name, images))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to put everything; about 250 MB")
    parser.add_argument("--size", default="256", help="side of the packed images")
    parser.add_argument("--packed", type=Path, help="default: FOLDER/packed")
    parser.add_argument("--train", action="store_true", help="train a small AlexNet on the CPU")
    arguments = parser.parse_args()
    images = arguments.folder / "images"
    packed = arguments.packed or arguments.folder / "packed"
    try:
        link_classes(fetch(arguments.folder), images)
    except FileNotFoundError as error:
        print(f"{error.filename}: not found; this needs Debian's apt and dpkg", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))}: exit code {error.returncode}", file=sys.stderr)
        return 1
    if is_packed(packed):
        print(f"{packed}: packed already")
    else:
        words = ["--size", arguments.size, "--val-fraction", "0.2", "--bad-files", "skip"]
        code = command(["data", "pack", str(images), str(packed), *words])
        code = code or command(["data", "mean", str(packed)])
        if code:
            return code
    if arguments.train:
        train(packed)
    return 0


def train(packed: Path) -> None:
    """Trains the small AlexNet and says what guessing the largest class would have given."""
    config = load_config("alexnet-half", SMALL)
    result = convnet.train(config, data=packed, device="cpu")
    labels = open_sets(config, packed)[1].labels
    majority = 100.0 * np.bincount(labels).max() / len(labels)
    if result.final is not None:
        print(
            f"held-out images: {result.final['val_top1']:.1f} % right; "
            f"naming the largest class for each would be right for {majority:.1f} %"
        )


if __name__ == "__main__":
    raise SystemExit(main())
