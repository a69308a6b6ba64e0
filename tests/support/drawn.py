"""What the tests of pictures look at: pixels, and the lines of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnet.cli.main import main
from convnet.interpret import charts
from convnet.layers import Dense, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB")).astype(int)


def count(pixels: np.ndarray, colour: str) -> int:
    """How many pixels have this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - rgb).max(axis=-1) <= 2).sum())


def net(*layers: tuple[str, Any]) -> Net:
    nodes = [Node(name, layer) for name, layer in layers]
    return Net(
        [*nodes, Node("fc", Dense(3)), Node("out", SoftmaxCrossEntropy())], (16, 16, 3), "cpu"
    )


def complain(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    try:
        code = main(["plot", *map(str, words)])
    except SystemExit as error:
        code = int(error.code or 0)
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("convnet: error: ")
    assert error.count("\n") == 1
    return error


def guess(label: str | None, classes: str = "abcde") -> charts.Guess:
    grey = np.full((40, 40, 3), 128, np.uint8)
    likely = (0.6, 0.2, 0.1, 0.06, 0.04)[: len(classes)]
    return charts.Guess(grey, label, tuple(classes), likely)
