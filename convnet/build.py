"""Makes the objects of a run from its configuration: data, net, optimiser, schedule."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet import models, ops, schedule
from convnet.backend import Backend
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.config import Config, ConfigError
from convnet.data import Batch, DataError, Dataset, Loader, Statistics, open_data, statistics
from convnet.data.augment import crop_size
from convnet.data.dataset import expanded
from convnet.data.sources import PACKAGED
from convnet.distributed import Parallel, Ranks, threads
from convnet.layers import LAYER_TYPES, Loss
from convnet.net import Net, Node
from convnet.sgd import SGD

Shape = tuple[int, int, int]
Data = str | os.PathLike[str] | Sequence[Dataset] | None


class Preparer:
    """Turns batches of bytes into the net's input: crop, mirror, noise, minus the mean, scaled.

    The array it returns is the same one in each call, for as long as batches have one size.
    """

    def __init__(self, backend: Backend, stats: Statistics, cfg: Config, shape: Shape) -> None:
        self.backend = backend
        self.crop = crop_size(shape, cfg.augment)
        self.scale = cfg.data.scale
        self._mean = backend.asarray(stats.mean)
        self._out: Any = None

    def __call__(self, batch: Batch) -> Any:
        """float32 [N, crop height, crop width, C], on the backend."""
        device = self.backend
        count, channels = len(batch.images), batch.images.shape[3]
        if self._out is None or self._out.shape[0] != count:
            self._out = device.empty((count, *self.crop, channels))
        with backends.use(device):
            return ops.augment(
                device.asarray(batch.images),
                device.asarray(batch.offsets),
                device.asarray(batch.mirror),
                self._mean,
                crop=self.crop,
                noise=None if batch.noise is None else device.asarray(batch.noise),
                scale=self.scale,
                out=self._out,
            )


def build_net(cfg: Config, picture: Shape, classes: int | None, device: str) -> Net:
    """The net of a configuration, with fresh weights.

    Args:
        cfg: its `net`, `augment` and `seed` are used.
        picture: (H, W, C) of the data, before the crop.
        classes: of the data; the net must have as many outputs. None: as many as it has by itself.
        device: as for `convnet.backend.get_all`.

    Raises:
        ConfigError: layers that do not fit one another or the data.
        DataError: a crop that does not fit the pictures.
        DeviceError: the device is not there.
    """
    in_shape = (*crop_size(picture, cfg.augment), picture[2])
    backends.get_all(device)  # so that what is wrong with it is not taken for the net's
    try:
        if cfg.net.layers:
            nodes = [
                Node(
                    layer.name, LAYER_TYPES[layer.type](**layer.options), layer.inputs, layer.share
                )
                for layer in cfg.net.layers
            ]
            net = Net(nodes, in_shape, device=device, seed=cfg.seed)
        else:
            model = models.MODELS[cfg.net.model]
            given = {} if classes is None else {"classes": classes}
            net = model(in_shape=in_shape, device=device, seed=cfg.seed, **given, **cfg.net.options)
    except ValueError as error:
        raise ConfigError(f"{cfg.origin}: net: {error}") from None
    losses = [node.name for node in net.nodes if isinstance(node.layer, Loss)]
    if not losses:
        raise ConfigError(f"{cfg.origin}: net: expected a softmax layer at the end, got none")
    for name in losses:
        if classes is not None and net.shapes[name] != (classes,):
            raise ConfigError(
                f"{cfg.origin}: net: node {name!r}: expected {classes} outputs, one for each class "
                f"of the data, got {net.shapes[name][0]}"
            )
    return net


# (H, W, C) and the number of classes of the published sets, for looking at nets without data.
_PUBLISHED: dict[str, tuple[Shape, int]] = {
    "fashion-mnist": ((28, 28, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
}


def net_of(cfg: Config, device: str, data: Data = None) -> Net:
    """The net of a configuration; data are only read where that is needed to know its shape.

    For a folder of pictures that is not named, the classes are those the model has by default.

    Raises:
        ConfigError, DataError, DeviceError.
    """
    if cfg.data.source in _PUBLISHED:
        return build_net(cfg, *_PUBLISHED[cfg.data.source], device)
    named = data or cfg.data.path or os.environ.get("CONVNET_DATA")
    if not named and all(cfg.data.size):
        return build_net(cfg, (*cfg.data.size, 3), None, device)
    train, _ = open_sets(cfg, data)
    return build_net(cfg, train.shape, len(train.classes), device)


@dataclass
class Parts:
    """Everything a run works with."""

    cfg: Config
    backend: Backend
    train: Dataset
    validation: Dataset
    stats: Statistics
    net: Net
    sgd: SGD
    schedule: schedule.Schedule
    loader: Loader
    validation_loader: Loader
    prepare: Preparer
    parallel: Parallel

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says about data and net; a resumed run must find the same."""
        return {
            "classes": list(self.train.classes),
            "picture": list(self.train.shape),
            "training": _fact(self.train),
            "validation": _fact(self.validation),
        }

    def check_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Compares the data with those of a checkpoint.

        Raises:
            CheckpointError: the run was begun with other data.
        """
        for key, now in self.facts().items():
            then = state[key]
            if then != now:
                raise CheckpointError(
                    f"{path}: the run was begun with other data: {key}: expected {_brief(then)}, "
                    f"got {_brief(now)}"
                )


def _fact(data: Dataset) -> dict[str, Any]:
    labels = np.ascontiguousarray(data.labels, np.int32)
    return {"pictures": len(data), "labels": hashlib.sha256(labels.tobytes()).hexdigest()[:16]}


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['pictures']} pictures (labels {value['labels']})"
    text = str(value)
    return text if len(text) < 100 else text[:97] + "..."


def with_path(cfg: Config, data: Data) -> Config:
    """The configuration with `data.path` replaced by `data`, if that is a path, and absolute, so
    that a run can be resumed from another folder."""
    path = os.fspath(data) if isinstance(data, (str, os.PathLike)) else cfg.data.path
    if path and not (path == PACKAGED and cfg.data.source == "fashion-mnist"):
        path = str(expanded(path).absolute())
    return replace(cfg, data=replace(cfg.data, path=path))


def open_sets(cfg: Config, data: Data = None) -> tuple[Dataset, Dataset]:
    """The training and validation sets.

    Args:
        cfg: its `data` table.
        data: a path that replaces `data.path`, or (training set, validation set) themselves.

    Raises:
        DataError: missing, damaged or unsuitable data.
    """
    if data is None or isinstance(data, (str, os.PathLike)):
        return open_data(with_path(cfg, data).data)
    train, validation = data
    if train.shape != validation.shape or train.classes != validation.classes:
        raise DataError(
            f"validation data: expected {train.shape} and {len(train.classes)} classes as in the "
            f"training data, got {validation.shape} and {len(validation.classes)}"
        )
    return train, validation


def build(
    cfg: Config,
    device: str,
    data: Data = None,
    stats: Statistics | None = None,
    ranks: Ranks | None = None,
) -> Parts:
    """Opens the data and makes net, optimiser, schedule and loaders.

    Args:
        cfg: the configuration.
        device: as for `convnet.backend.get_all`.
        data: as for `open_sets`.
        stats: of the training data, where they are known; otherwise they are computed.
        ranks: the processes that train together; by default this one alone.

    Raises:
        ConfigError, DataError, DeviceError.
    """
    ranks = ranks or Ranks()
    device_backend = backends.get_all(device)[0]
    if device_backend.name == "cpu":
        backends.set_threads(threads(cfg.train.threads, ranks))
    if cfg.train.batch < ranks.size:
        raise ConfigError(
            f"{cfg.origin}: train.batch: expected at least {ranks.size}, a picture for each "
            f"process, got {cfg.train.batch}"
        )
    train, validation = open_sets(cfg, data)
    if cfg.train.batch > len(train):
        raise ConfigError(
            f"{cfg.origin}: train.batch: expected at most {len(train)}, the number of training "
            f"pictures, got {cfg.train.batch}"
        )
    net = build_net(cfg, train.shape, len(train.classes), device)
    stats = stats or statistics(train, cfg.data.mean, colour=cfg.augment.colour_noise > 0)
    settings = cfg.schedule
    return Parts(
        cfg=cfg,
        backend=device_backend,
        train=train,
        validation=validation,
        stats=stats,
        net=net,
        sgd=SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay),
        schedule=schedule.build(
            settings.kind, cfg.sgd.lr, settings.warmup_steps, **settings.options
        ),
        loader=Loader(
            train, cfg.train.batch, cfg.seed, cfg.augment, stats, train=True, share=ranks.share
        ),
        validation_loader=Loader(
            validation,
            cfg.train.batch,
            cfg.seed,
            cfg.augment,
            stats,
            train=False,
            share=ranks.share,
        ),
        parallel=Parallel(net, ranks),
        prepare=Preparer(device_backend, stats, cfg, train.shape),
    )


# ---- nets of runs -------------------------------------------------------------------------------


def statistics_arrays(stats: Statistics) -> dict[str, np.ndarray]:
    """The statistics as arrays of a checkpoint."""
    names = ("mean", "eigenvalues", "eigenvectors")
    return {f"statistics:{name}": np.asarray(getattr(stats, name)) for name in names}


def statistics_of(checkpoint: Checkpoint) -> Statistics:
    """The statistics that a checkpoint holds."""
    names = ("mean", "eigenvalues", "eigenvectors")
    return Statistics(**{name: checkpoint.arrays[f"statistics:{name}"] for name in names})


def load_weights(net: Net, checkpoint: Checkpoint) -> None:
    """Puts parameters, velocities and the step of a checkpoint into a net.

    Raises:
        CheckpointError: it is of another net; names the parameter and both shapes.
    """
    arrays = {
        name: array
        for name, array in checkpoint.arrays.items()
        if not name.startswith("statistics:")
    }
    try:
        net.load_state(arrays)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: checkpoint of another net: {error}") from None
    net.step = checkpoint.state["step"]
