"""Real pictures in eight classes, for trying things out: Debian's drawings, fetched and packed.

The package `openclipart-png` (131 MB) holds public-domain drawings of the Open Clip Art Library as
PNG files, about 1,900 of them in eight folders that name objects. Nearly all have an alpha channel,
many are exact copies of others (a drawing may lie in several folders), and a few have more than a
hundred million pixels. `apt-get download` and `dpkg-deb -x` need no root and install nothing.

    python experiments/openclipart.py FOLDER       # makes FOLDER/pictures and FOLDER/packed
    convnet train folder --data FOLDER/packed
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from convnet.cli import main as convnet
from convnet.data.packed import is_packed

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


def link_classes(tree: Path, pictures: Path) -> None:
    """Makes a folder with the eight class folders, as links into the tree."""
    pictures.mkdir(exist_ok=True)
    for name in CLASSES:
        link = pictures / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(tree / name, pictures))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to put everything; about 250 MB")
    parser.add_argument("--size", default="256", help="side of the packed pictures")
    parser.add_argument("--packed", type=Path, help="default: FOLDER/packed")
    arguments = parser.parse_args()
    pictures = arguments.folder / "pictures"
    packed = arguments.packed or arguments.folder / "packed"
    try:
        link_classes(fetch(arguments.folder), pictures)
    except FileNotFoundError as error:
        print(f"{error.filename}: not found; this needs Debian's apt and dpkg", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))}: exit code {error.returncode}", file=sys.stderr)
        return 1
    if is_packed(packed):
        print(f"{packed}: packed already")
        return 0
    words = ["--size", arguments.size, "--val-fraction", "0.2", "--bad-files", "skip"]
    code = convnet(["data", "pack", str(pictures), str(packed), *words])
    return code or convnet(["data", "mean", str(packed)])


if __name__ == "__main__":
    raise SystemExit(main())
