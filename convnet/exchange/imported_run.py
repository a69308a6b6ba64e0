"""A run folder for weights that were trained elsewhere.

It has a configuration and one checkpoint, with the mean to subtract, so that `convnet predict`,
`eval` and `train --init` take it like a run that was trained here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convnet.common.reading import LINES, read_text
from convnet.config import Config
from convnet.data import Statistics
from convnet.data.image import Resize
from convnet.data.sources import PUBLISHED
from convnet.exchange.errors import ExchangeError
from convnet.nn.net import Net
from convnet.nn.weights import misfits
from convnet.training.checkpoint import statistics_arrays, write
from convnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the net's input: (pixel - mean) scale, of a crop of the centre.

    Attributes:
        size: (height, width) to which an image is resized, before the crop.
        crop: (height, width) of what the net sees.
        mean: float32 [1, 1, C] or [H, W, C], in grey levels of 0 to 255, in the order RGB.
        scale: one number, or one for each channel.
        resize: how images get their size; None: as the configuration has it.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    mean: np.ndarray
    scale: float | tuple[float, ...]
    resize: Resize | None = None

    def applied(self, cfg: Config, channels: int) -> Config:
        """A configuration with this preprocessing."""
        kind: Literal["channel", "image"] = "channel" if self.mean.shape[:2] == (1, 1) else "image"
        scale, size = self.scale, (0, 0) if cfg.data.source in PUBLISHED else self.size
        if isinstance(scale, tuple) and len(scale) != channels:
            raise ExchangeError(f"scale: expected {channels} numbers, got {len(scale)}")
        resize = self.resize or cfg.data.resize
        data = dataclasses.replace(cfg.data, mean=kind, scale=scale, size=size, resize=resize)
        crop = dataclasses.replace(cfg.augment, crop=self.crop)
        net = dataclasses.replace(cfg.net, init="")
        return dataclasses.replace(cfg, data=data, augment=crop, net=net)


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        run: its folder; cfg: its configuration.
        layers: how many got weights; parameters: how many numbers these are.
        notes: what to know of it: the net, what was assumed.
    """

    run: Path
    cfg: Config
    layers: int
    parameters: int
    notes: tuple[str, ...]


def write_run(
    folder: str | os.PathLike[str] | None,
    cfg: Config,
    net: Net,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    origin: Mapping[str, object],
    notes: Sequence[str] = (),
) -> Imported:
    """Makes the folder of a run with these weights.

    Args:
        folder: where, with no run in it; None: a dated one under runs/.
        cfg: its configuration, preprocessing applied.
        net: of that configuration, perhaps of sizes only.
        weights: of all its parameters, float32, by their names here.
        preprocessing: its mean goes into the checkpoint.
        classes: names of the outputs.
        origin: what to note in the checkpoint of where the weights are from.
        notes: what to know of the import.

    Returns: what was made.
    Raises:
        ExchangeError: a weight that is missing or does not fit, with both shapes.
        RunError: a run is there. OSError: it cannot be written.
    """
    try:
        misfits(net.whole_params, weights, strict=True)
    except ValueError as error:
        raise ExchangeError(str(error)) from None
    size = preprocessing.size if any(preprocessing.size) else preprocessing.crop
    shape = (*size, net.in_shape[-1])
    state, statistics = checkpoint_state(cfg, shape, preprocessing, classes, origin)
    run = RunFolder.create(folder, cfg)
    try:
        run.checkpoints.folder.mkdir(exist_ok=True)
        write(run.checkpoints.best, state, {**weights, **statistics})
    finally:
        run.close()
    count = sum(array.size for array in weights.values())
    return Imported(run.path, cfg, len(net.parametric), count, tuple(notes))


def checkpoint_state(
    cfg: Config,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    origin: Mapping[str, object],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a checkpoint of imported weights has besides these: its state and its statistics.

    Args:
        cfg: with the preprocessing applied; shape: (H, W, C) of images before the crop.
        preprocessing, classes, origin: as of `write_run`.
    """
    channels = shape[-1]
    colour = np.zeros(channels), np.zeros((channels, channels))  # no colour noise is known
    stats = Statistics(np.asarray(preprocessing.mean, np.float32), *colour)
    state = {
        "step": 0,
        "epoch": 0,
        "classes": list(classes),
        "picture": list(shape),
        "config": cfg.to_dict(),
        "imported": dict(origin),
    }
    return state, statistics_arrays(stats)


def class_names(path: str, count: int) -> list[str]:
    """The names of the classes, a line each; without a file "class 0", "class 1", ...

    Raises: ExchangeError: another number of lines than classes. OSError: it cannot be read.
    """
    if not path:
        return [f"class {number}" for number in range(count)]
    names = [line.strip() for line in read_text(Path(path), LINES).splitlines()]
    if len(names) != count or len(set(names)) != count or not all(names):
        expected = f"{count} different names of classes, a line each"
        raise ExchangeError(f"{path}: expected {expected}, got {len(names)}")
    return names
