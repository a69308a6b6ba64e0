"""How long commands take on a folder of 1,500 images, of which they use 150.

python benchmarks/folder_commands.py FOLDER [--images 1500] [--only NAME,...]

Draws the images (PNG files of 1024 x 768 with transparent places, as drawings on the web are),
trains for one epoch, and times `eval`, `plot` and `predict`, each in a process of its own, with
what the runs before have left in the cache. CONVNET_CACHE=off measures without it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circles", "lines", "squares")
SIZE = (1024, 768)
NET = [
    "--set=data.size=[48,48]",
    "--set=augment.crop=[0,0]",
    "--set=data.bad_files=skip",
    "--set=train.batch=64",
]


def draw(folder: Path, count: int) -> None:
    """Images of three classes: coloured shapes over noise, with a transparent margin."""
    rng = np.random.default_rng(1)
    for number in range(count):
        kind = number % len(CLASSES)
        path = folder / CLASSES[kind] / f"{number:05}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 40, (SIZE[1] // 8, SIZE[0] // 8, 4), dtype=np.uint8)
        noise[..., :3] += rng.integers(0, 200, 3, dtype=np.uint8)
        noise[..., 3] = 255
        noise[:8, :, 3] = 0
        image = Image.fromarray(noise).resize(SIZE, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, side = (int(n) for n in rng.integers(60, 600, 3))
            colour = tuple(int(n) for n in rng.integers(0, 256, 3))
            if kind == 0:
                pen.ellipse([x, y, x + side, y + side], fill=colour)
            elif kind == 1:
                pen.line([x, y, y, x + side], fill=colour, width=12)
            else:
                pen.rectangle([x, y, x + side, y + side], fill=colour)
        image.save(path, compress_level=1)


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds that one command takes in a process of its own, and of all its threads."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "convnet", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def commands(folder: Path, run: Path) -> dict[str, list[str]]:
    """The commands that are timed, by the names that are printed."""
    files = sorted(str(path) for path in folder.glob("*/*.png"))[::10]
    plots = ["predictions", "confusion"]
    return {
        "train, 1 epoch": [
            "train", "folder", "--data", str(folder), "--run-dir", str(run), "--epochs", "1", "-q",
            *NET,
        ],
        "train again": [
            "train", "folder", "--data", str(folder), "--run-dir", f"{run}-2", "--epochs", "1",
            "-q", *NET,
        ],
        "eval": ["eval", str(run)],
        **{f"plot {kind}": ["plot", str(run), kind, "-o", f"{run}-{kind}.png"] for kind in plots},
        f"predict {len(files)} files": ["predict", str(run), *files],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for the images and the runs; some 100 MB")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--run", type=Path, help="another run folder, trained before")
    parser.add_argument("--only", default="", help="parts of the names of commands, with commas")
    arguments = parser.parse_args()
    images = arguments.folder / "images"
    draw(images, arguments.images)
    run = arguments.folder / f"run-{os.getpid()}" if arguments.run is None else arguments.run
    for name, words in commands(images, run).items():
        if not arguments.only or any(part in name for part in arguments.only.split(",")):
            seconds, used = timed(words)
            print(f"{name:24}{seconds:7.1f} s{used:9.1f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
