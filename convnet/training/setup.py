"""Makes the objects of a run from its configuration: data, net, optimiser, schedule, loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convnet import backend as backends
from convnet.backend import Backend
from convnet.common.typecheck import shown
from convnet.config import Config, ConfigError
from convnet.data import Dataset, Loader, Statistics, statistics
from convnet.data.augment import crop_size
from convnet.data.workers.pool import auto_workers, usable_cpus
from convnet.nn.memory import Fit, checked
from convnet.nn.net import Net
from convnet.optim import lr_schedule
from convnet.optim.param_groups import Groups
from convnet.optim.sgd import SGD
from convnet.parallel.ranks import Ranks, threads
from convnet.training.checkpoint import Checkpoint, CheckpointError
from convnet.training.class_weights import ClassWeights, class_weights
from convnet.training.data_parallel import Parallel
from convnet.training.datasets import Data, open_sets
from convnet.training.finetune import Taken, take_weights
from convnet.training.inputs import Preparer
from convnet.training.nets import build_net, check_net, param_groups
from convnet.training.resume import differences
from convnet.training.staging import UPLOADS

_HELD_BATCHES = 6  # of images on the host: four ready, one being read, one in use


@dataclass
class Parts:
    """The objects of a run; see `build`.

    Attributes:
        train, validation: the data sets; stats: statistics of the first.
        groups: parameters that the configuration makes exceptions of.
        loader, validation_loader: the batches of both sets.
        prepare: makes the net's input of a batch.
        parallel: training steps of all processes together.
        memory: what training takes, and what was free.
        class_weights: of the losses in training.
        taken: what `net.init` gave to the net; None where the key is not set.
    """

    cfg: Config
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
    taken: Taken | None
    class_weights: ClassWeights

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
        """What a checkpoint says about where the run was: the rounding of sums depends on it."""
        devices = [device.describe() for device in self.net.backends]
        return {"device": ", ".join(devices), "processes": self.parallel.among.size}

    def check_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Compares the data with those of a checkpoint.

        Raises:
            CheckpointError: the run was begun with other data.
        """
        facts = self.facts()
        for key, then, now in differences("", {key: state[key] for key in facts}, facts):
            raise CheckpointError(
                f"{path}: the run was begun with other data: {key}: expected {shown(then)}, "
                f"got {shown(now)}"
            )


def _fact(data: Dataset) -> dict[str, Any]:
    labels = np.ascontiguousarray(data.labels, np.int32)
    return {"pictures": len(data), "labels": hashlib.sha256(labels.tobytes()).hexdigest()[:16]}


def build(
    cfg: Config,
    device: str,
    data: Data = None,
    stats: Statistics | None = None,
    ranks: Ranks | None = None,
    init: Checkpoint | None = None,
    given: Net | None = None,
) -> Parts:
    """Opens the data and makes net, optimiser, schedule and loaders.

    Args:
        cfg: the configuration.
        device: as for `convnet.backend.get_all`.
        data: as for `open_sets`.
        stats: of the training data, where they are known.
        ranks: the processes that train together; by default this one alone.
        init: gives the net its first weights where they fit.
        given: the net to train, which the configuration describes; None: one is made of it.

    Raises:
        ConfigError, DataError, DeviceError; MemoryNeedError: training takes more than there is.
        CheckpointError: nothing in `init` fits the net.
    """
    ranks = ranks or Ranks()
    backend = backends.get_all(device)[0]
    if backend.name == "cpu":
        backends.set_threads(threads(cfg.train.threads, ranks))
    train, validation = open_sets(cfg, data)
    _check_batch(cfg, len(train), ranks)
    memory = _checked_memory(cfg, device, train, ranks)
    if given is None:
        net = build_net(cfg, train.shape, len(train.classes), device)
    else:
        net = check_net(cfg, given, len(train.classes))
        _check_input(cfg, net, train)
    weights = class_weights(cfg, train)
    weights.put_into(net, cfg)
    taken = None if init is None else take_weights(net, init)
    stats = stats or statistics(train, cfg.data.mean, colour=cfg.augment.colour_noise > 0)
    schedule = cfg.schedule
    feed = partial(
        Loader,
        batch=cfg.train.batch,
        seed=cfg.seed,
        augment=cfg.augment,
        stats=stats,
        share=None if ranks.size == 1 else ranks.share,
        workers=workers_for(cfg, backend, ranks.local[1]),
        fallback=cfg.data.workers == "auto",
    )
    return Parts(
        cfg=cfg,
        train=train,
        validation=validation,
        stats=stats,
        net=net,
        sgd=SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay),
        schedule=lr_schedule.build(
            schedule.kind, cfg.sgd.lr, schedule.warmup_steps, **schedule.options
        ),
        groups=param_groups(cfg, net),
        loader=feed(train, train=True, balanced=cfg.train.sampling == "balanced"),
        validation_loader=feed(validation, train=False),
        parallel=Parallel(net, ranks),
        prepare=Preparer(backend, stats, cfg, train.shape, net.stored),
        memory=memory,
        taken=taken,
        class_weights=weights,
    )


def _check_input(cfg: Config, net: Net, train: Dataset) -> None:
    shape = (*crop_size(train.shape, cfg.augment), train.shape[2])
    if net.in_shape != shape:
        raise ConfigError(
            f"{cfg.origin}: net: expected a net of inputs {shape}, as the data and the crop give, "
            f"got one of {net.in_shape}"
        )


def _check_batch(cfg: Config, images: int, ranks: Ranks) -> None:
    batch, expected = cfg.train.batch, ""
    if batch < ranks.size:
        expected = f"at least {ranks.size}, an image for each process"
    elif batch > images:
        expected = f"at most {images}, the number of training images"
    if expected:
        raise ConfigError(f"{cfg.origin}: train.batch: expected {expected}, got {batch}")


def workers_for(cfg: Config, backend: Backend, processes: int = 1) -> int | Literal["auto"]:
    """`data.workers`; "auto" on the CPU is a quarter of the CPUs, which train at the same time.
    Processes of a job that are on one machine share its workers."""
    if cfg.data.workers != "auto" or (backend.name == "cuda" and processes == 1):
        return cfg.data.workers
    workers = auto_workers() if backend.name == "cuda" else usable_cpus() // 4
    return max(1, workers // processes)


def _checked_memory(cfg: Config, device: str, train: Dataset, ranks: Ranks) -> Fit:
    """What training takes in this process. Raises: MemoryNeedError: there is not as much."""
    net = build_net(cfg, train.shape, len(train.classes), device, sizes_only=True)
    net.keep_gradients = cfg.step.keep_gradients or ranks.size > 1
    batches = UPLOADS if net.backend.name == "cuda" else _HELD_BATCHES
    batch = -(-cfg.train.batch // ranks.size)
    what = f"{cfg.origin}: training at batch {cfg.train.batch}"
    image_bytes = batches * int(np.prod(train.shape))
    fit = checked(net, batch, image_bytes, what, ranks.local[1], summed=ranks.size > 1)
    ranks.any(False)  # none takes memory before all have seen what is free
    return fit
