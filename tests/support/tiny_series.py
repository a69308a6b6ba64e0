"""A series of runs small enough for tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ablations
import numpy as np
import tiny
from parts import Part
from series import Sets

from convnet.data import ArrayDataset
from convnet.data.idx import write_idx

SVG = "{http://www.w3.org/2000/svg}"  # before the names of elements of drawings


def write_data(folder: Path) -> Path:
    """The images of `tiny`, twice as large."""
    for stem, count, seed in (("train", tiny.TRAIN, 1), ("t10k", tiny.TEST, 2)):
        images, labels = tiny.images(count, seed)
        write_idx(folder / f"{stem}-images-idx3-ubyte", images.repeat(2, axis=1).repeat(2, axis=2))
        write_idx(folder / f"{stem}-labels-idx1-ubyte", labels)
    return folder


def words(data: Path, folder: Path, *more: str) -> list[str]:
    """Arguments of a tiny series."""
    common = ["--source", "mnist", "--data", str(data), "--batch", "16", "--threads", "1"]
    common += ["--results", str(folder / "results.jsonl"), "--runs", str(folder / "runs")]
    return [*common, "--sample", "80", "--epochs", "2", "--seeds", "2", "--device", "cpu", *more]


def lines(path: Path) -> list[dict[str, Any]]:
    """A results file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(*errors: float) -> list[dict[str, Any]]:
    """The epochs of a record."""
    return [{"epoch": number, "error": error} for number, error in enumerate(errors, start=1)]


def planned(source: str, shape: tuple[int, int, int], net: str = "small") -> ablations.Ablations:
    """Ablations on empty images of this shape."""
    images = np.zeros((20, *shape), np.uint8)
    part = Part(ArrayDataset(images, np.arange(20) % 4, ["a", "b", "c", "d"]))
    arguments = argparse.Namespace(
        source=source, data="", size=None, net=net, lr=0.02, batch=4, epochs=1, overrides=[]
    )
    return ablations.Ablations(arguments, None, Sets(part, part, part))  # type: ignore[arg-type]
