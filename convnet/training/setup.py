"""Makes the objects of a run from its configuration: data, net, optimiser, schedule."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convnet import backend as backends
from convnet import models, ops
from convnet.backend import Array, Backend
from convnet.common.typecheck import did_you_mean
from convnet.config import Config, ConfigError
from convnet.data import Batch, DataError, Dataset, Loader, Statistics, open_data, statistics
from convnet.data.augment import crop_size
from convnet.data.dataset import expanded
from convnet.data.sources import PACKAGED
from convnet.data.workers.pool import auto_workers, usable_cpus
from convnet.layers import LAYER_TYPES, Loss
from convnet.nn.memory import Fit, checked
from convnet.nn.net import Net, Node
from convnet.nn.weights import misfits
from convnet.optim import lr_schedule
from convnet.optim.param_groups import Groups
from convnet.optim.sgd import SGD
from convnet.parallel.ranks import Ranks, threads
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.data_parallel import Parallel
from convnet.training.finetune import Taken, take_weights
from convnet.training.staging import UPLOADS, Uploads

Shape = tuple[int, int, int]
_STATISTICS = ("mean", "eigenvalues", "eigenvectors")  # arrays of a checkpoint
_HELD_BATCHES = 6  # of images on the host: four ready, one being read, one in use
Data = str | os.PathLike[str] | Sequence[Dataset] | None


class Preparer:
    """Turns batches of bytes into the net's input: crop, mirror, noise, minus the mean, scaled.

    What goes to a GPU are the bytes, while it computes what it was given before (see
    `convnet.training.staging`). The arrays it makes are the same in each call with a batch of one
    size.

    Attributes:
        labels: of the last batch, int32 [N], on the backend.
    """

    def __init__(self, backend: Backend, stats: Statistics, cfg: Config, shape: Shape) -> None:
        self.backend = backend
        self.crop = crop_size(shape, cfg.augment)
        self.scale = cfg.data.scale
        self._mean = backend.asarray(stats.mean)
        self._uploads = Uploads(backend)
        self.labels = backend.empty((0,), np.int32)
        self._largest: tuple[Array, Array] | None = None
        self._parts: dict[int, tuple[Array, Array]] = {}  # of the largest, by the size of the batch

    def __call__(self, batch: Batch) -> Array:
        """float32 [N, crop height, crop width, C], on the backend."""
        x, self.labels = self._arrays(*batch.images.shape[::3])
        sent = (batch.images, batch.offsets, batch.mirror, batch.noise, batch.labels)
        with backends.use(self.backend), self._uploads.put(sent) as there:
            images, offsets, mirror, noise, labels = there
            self.labels[...] = labels
            return ops.augment(
                images,
                offsets,
                mirror,
                self._mean,
                crop=self.crop,
                noise=noise,
                scale=self.scale,
                out=x,
            )

    def _arrays(self, count: int, channels: int) -> tuple[Array, Array]:
        """For the input and the labels of so many samples."""
        if self._largest is None or count > len(self._largest[0]):
            x = self.backend.empty((count, *self.crop, channels))
            self._largest, self._parts = (x, self.backend.empty((count,), np.int32)), {}
        if count not in self._parts:
            x, labels = self._largest
            self._parts[count] = x[:count], labels[:count]
        return self._parts[count]


def build_net(
    cfg: Config, image: Shape, classes: int | None, device: str, sizes_only: bool = False
) -> Net:
    """The net of a configuration, with fresh weights.

    Args:
        cfg: its `net` (but for `net.init`), `augment`, `seed`, `train.precision` and
            `step.fuse_update` are used.
        image: (H, W, C) of the data, before the crop.
        classes: of the data; the net must have as many outputs. None: as many as it has by itself.
        device: as for `convnet.backend.get_all`.
        sizes_only: make a net that can be described and takes no memory.

    Raises:
        ConfigError: layers that do not fit one another or the data, or `net.lr_mult` of none.
        DataError: a crop that does not fit the images.
        DeviceError: the device is not there.
    """
    in_shape = (*crop_size(image, cfg.augment), image[2])
    backends.get_all(device)  # so that what is wrong with it is not taken for the net's
    common: dict[str, Any] = {
        "device": device,
        "seed": cfg.seed,
        "precision": cfg.train.precision,
        "sizes_only": sizes_only,
    }
    try:
        if cfg.net.layers:
            nodes = [
                Node(
                    layer.name, LAYER_TYPES[layer.type](**layer.options), layer.inputs, layer.share
                )
                for layer in cfg.net.layers
            ]
            net = Net(nodes, in_shape, **common)
        else:
            model = models.MODELS[cfg.net.model]
            given = {} if classes is None else {"classes": classes}
            net = model(in_shape=in_shape, **common, **given, **cfg.net.options)
    except ValueError as error:
        raise ConfigError(f"{cfg.origin}: net: {error}") from None
    losses = [(node.name, node.layer) for node in net.nodes if isinstance(node.layer, Loss)]
    if not losses:
        raise ConfigError(f"{cfg.origin}: net: expected a softmax layer at the end, got none")
    for name, layer in losses:
        if layer.classifies and classes is not None and net.shapes[name] != (classes,):
            raise ConfigError(
                f"{cfg.origin}: net: node {name!r}: expected {classes} outputs, one for each class "
                f"of the data, got {net.shapes[name][0]}"
            )
    net.keep_gradients = not cfg.step.fuse_update
    net.programs.graph = cfg.step.graph
    _multiply_rates(cfg, net)
    param_groups(cfg, net)  # so that what is wrong with them is said before training
    return net


def param_groups(cfg: Config, net: Net) -> Groups:
    """The groups of parameters that a configuration makes exceptions of.

    Raises: ConfigError for groups that do not fit the net.
    """
    params = [p for node in net.nodes if node.share is None for p in node.layer.params]
    return Groups(cfg.sgd.groups, cfg.sgd.lr, params, f"{cfg.origin}: sgd.groups")


def _multiply_rates(cfg: Config, net: Net) -> None:
    """Applies `net.lr_mult` to the parameters."""
    nodes = {node.name: node for node in net.nodes}
    own = [node.name for node in net.nodes if node.layer.params and node.share is None]
    for name, factor in cfg.net.lr_mult.items():
        key = f"{cfg.origin}: net.lr_mult.{name}"
        if name not in nodes:
            raise ConfigError(f"{key}: no such layer{did_you_mean(name, own)}")
        if nodes[name].share is not None:
            raise ConfigError(f"{key}: it uses the parameters of {nodes[name].share}; name that")
        if name not in own:
            raise ConfigError(f"{key}: expected a layer with parameters, got {name}, without any")
        for param in nodes[name].layer.params:
            param.lr_mult *= factor


# (H, W, C) and the number of classes of the published sets, for looking at nets without data.
_PUBLISHED: dict[str, tuple[Shape, int]] = {
    "fashion-mnist": ((28, 28, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
}


def net_of(cfg: Config, device: str, data: Data = None, sizes_only: bool = False) -> Net:
    """The net of a configuration; data are only read where that is needed to know its shape.

    For a folder of images that is not named, the classes are those the model has by default.

    Raises:
        ConfigError, DataError, DeviceError.
    """
    if cfg.data.source in _PUBLISHED:
        return build_net(cfg, *_PUBLISHED[cfg.data.source], device, sizes_only)
    named = data or cfg.data.path or os.environ.get("CONVNET_DATA")
    if not named and all(cfg.data.size):
        return build_net(cfg, (*cfg.data.size, 3), None, device, sizes_only)
    train, _ = open_sets(cfg, data)
    return build_net(cfg, train.shape, len(train.classes), device, sizes_only)


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
    schedule: lr_schedule.Schedule
    groups: Groups
    loader: Loader
    validation_loader: Loader
    prepare: Preparer
    parallel: Parallel
    memory: Fit
    taken: Taken | None  # what `net.init` gave

    def close(self) -> None:
        """Ends the processes that decode images."""
        self.loader.close()
        self.validation_loader.close()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says about data and net; a resumed run must find the same."""
        return {
            "classes": list(self.train.classes),
            "picture": list(self.train.shape),
            "training": _fact(self.train),
            "validation": _fact(self.validation),
        }

    def machine(self) -> dict[str, Any]:
        """What a checkpoint says about where the run was, on which the rounding of sums depends."""
        devices = [device.describe() for device in self.net.backends]
        return {"device": ", ".join(devices), "processes": self.parallel.among.size}

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
        return f"{value['pictures']} images (labels {value['labels']})"
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
    init: Checkpoint | None = None,
) -> Parts:
    """Opens the data and makes net, optimiser, schedule and loaders.

    Args:
        cfg: the configuration.
        device: as for `convnet.backend.get_all`.
        data: as for `open_sets`.
        stats: of the training data, where they are known.
        ranks: the processes that train together; by default this one alone.
        init: gives the net its first weights where they fit.

    Raises:
        ConfigError, DataError, DeviceError; MemoryNeedError: training takes more than there is.
        CheckpointError: nothing in `init` fits the net.
    """
    ranks = ranks or Ranks()
    device_backend = backends.get_all(device)[0]
    if device_backend.name == "cpu":
        backends.set_threads(threads(cfg.train.threads, ranks))
    train, validation = open_sets(cfg, data)
    _check_batch(cfg, len(train), ranks)
    memory = _checked_memory(cfg, device, train, ranks)
    net = build_net(cfg, train.shape, len(train.classes), device)
    taken = None if init is None else take_weights(net, init)
    stats = stats or statistics(train, cfg.data.mean, colour=cfg.augment.colour_noise > 0)
    settings = cfg.schedule
    feed = partial(
        Loader,
        batch=cfg.train.batch,
        seed=cfg.seed,
        augment=cfg.augment,
        stats=stats,
        share=None if ranks.size == 1 else ranks.share,
        workers=workers_for(cfg, device_backend, ranks.local[1]),
        fallback=cfg.data.workers == "auto",
    )
    return Parts(
        cfg=cfg,
        backend=device_backend,
        train=train,
        validation=validation,
        stats=stats,
        net=net,
        sgd=SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay),
        schedule=lr_schedule.build(
            settings.kind, cfg.sgd.lr, settings.warmup_steps, **settings.options
        ),
        groups=param_groups(cfg, net),
        loader=feed(train, train=True),
        validation_loader=feed(validation, train=False),
        parallel=Parallel(net, ranks),
        prepare=Preparer(device_backend, stats, cfg, train.shape),
        memory=memory,
        taken=taken,
    )


def _check_batch(cfg: Config, count: int, ranks: Ranks) -> None:
    if cfg.train.batch < ranks.size:
        raise ConfigError(
            f"{cfg.origin}: train.batch: expected at least {ranks.size}, an image for each "
            f"process, got {cfg.train.batch}"
        )
    if cfg.train.batch > count:
        raise ConfigError(
            f"{cfg.origin}: train.batch: expected at most {count}, the number of training "
            f"images, got {cfg.train.batch}"
        )


def workers_for(cfg: Config, backend: Backend, processes: int = 1) -> int | Literal["auto"]:
    """`data.workers`; "auto" on the CPU is a quarter of the CPUs, which train at the same time.
    Where several processes of a job are on this machine, it is their part of the workers."""
    if cfg.data.workers != "auto" or (backend.name == "cuda" and processes == 1):
        return cfg.data.workers
    workers = auto_workers() if backend.name == "cuda" else usable_cpus() // 4
    return max(1, workers // processes)


def _checked_memory(cfg: Config, device: str, train: Dataset, ranks: Ranks) -> Fit:
    """What training takes in this process, if there is as much."""
    net = build_net(cfg, train.shape, len(train.classes), device, sizes_only=True)
    net.keep_gradients = not cfg.step.fuse_update or ranks.size > 1
    param_groups(cfg, net).begin_step(0, 1)  # which parameters have rates of their own
    batches = UPLOADS if net.backend.name == "cuda" else _HELD_BATCHES
    batch = -(-cfg.train.batch // ranks.size)
    what = f"{cfg.origin}: training at batch {cfg.train.batch}"
    image_bytes, summed = batches * int(np.prod(train.shape)), ranks.size > 1
    fit = checked(net, batch, image_bytes, what, ranks.local[1], summed)
    ranks.any(False)  # none takes memory before all have seen what is free
    return fit


# ---- nets of runs -------------------------------------------------------------------------------


def statistics_arrays(stats: Statistics) -> dict[str, np.ndarray]:
    """The statistics as arrays of a checkpoint."""
    return {f"statistics:{name}": np.asarray(getattr(stats, name)) for name in _STATISTICS}


def statistics_of(checkpoint: Checkpoint) -> Statistics:
    """The statistics that a checkpoint holds.

    Raises:
        CheckpointError: they are not there, or do not fit its images.
    """
    image = tuple(checkpoint.state["picture"])
    channels = image[2:]
    shapes = {
        "mean": (image, (1, 1, *channels)),
        "eigenvalues": (channels,),
        "eigenvectors": (channels * 2,),
    }
    found = {name: checkpoint.arrays.get(f"statistics:{name}") for name in _STATISTICS}
    for name, array in found.items():
        if array is None or array.shape not in shapes[name]:
            raise CheckpointError(
                f"{checkpoint.path}: expected the statistics of its images, got no {name}, or"
                " of others"
            )
    return Statistics(**found)  # type: ignore[arg-type]


def check_weights(net: Net, checkpoint: Checkpoint) -> None:
    """Compares the parameters of a net with those of a checkpoint; it may be one of sizes only.

    Raises:
        CheckpointError: it is of another net; names the parameter and both shapes.
    """
    whole = [p for node in net.nodes if node.share is None for p in node.layer.params]
    try:
        misfits(whole, _parameters(checkpoint), strict=True)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: checkpoint of another net: {error}") from None


def _parameters(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    arrays = checkpoint.arrays.items()
    return {name: array for name, array in arrays if not name.startswith("statistics:")}


def load_weights(net: Net, checkpoint: Checkpoint) -> None:
    """Puts parameters, velocities and the step of a checkpoint into a net.

    Raises:
        CheckpointError: it is of another net; names the parameter and both shapes.
    """
    check_weights(net, checkpoint)
    net.load_state(_parameters(checkpoint))
    net.step = checkpoint.state["step"]
