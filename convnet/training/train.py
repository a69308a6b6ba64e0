"""Training a net from a configuration: `convnet.train`, and `convnet train` as a command."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convnet import backend as backends
from convnet.common.own_code import allowed, is_lasting, is_own
from convnet.config import Config, ConfigError, load_config
from convnet.config.schema import NetConfig
from convnet.data.dataset import expanded
from convnet.nn.net import Net
from convnet.optim.sgd import DivergedError
from convnet.parallel import ranks as jobs
from convnet.parallel.p2p import LinkError, LinkWarning
from convnet.parallel.ranks import Ranks
from convnet.training import tensorboard
from convnet.training.callbacks import Record
from convnet.training.checkpoint import Checkpoint
from convnet.training.datasets import Data, sets_of, with_path
from convnet.training.display import Display, StuckHint
from convnet.training.messages import divergence, show_end, show_parts, way_back
from convnet.training.nets import layers_of
from convnet.training.notebook import page
from convnet.training.progress import Reporter
from convnet.training.resume import Resumption, resumption
from convnet.training.run_folder import NoFolder, RunFolder, open_checkpoint
from convnet.training.setup import Parts, build
from convnet.training.signals import Signals
from convnet.training.trainer import Trainer


@dataclass(repr=False)
class TrainResult:
    """What `convnet.train` returns.

    Attributes:
        net: the net with the weights of the last step (those of the best epoch:
            `convnet.load(run_dir)`).
        history: the records of metrics.jsonl, see `train`.
        best, final: the records of the best and of the last epoch; None before the first.
        run_dir: the folder of the run.
        checkpoint: its newest checkpoint; None where there is none yet.
        status: "done"; "stopped" by a callback; "interrupted" by a signal, and saved; "diverged".
        device: where it ran, for example "cuda:0".
        images_per_s: training images per second, without the time that validation took.
        reason: why it diverged; empty otherwise.
        signal: the number of the signal that interrupted it, or 0.
    """

    net: Net
    history: list[Record]
    best: Record | None
    final: Record | None
    run_dir: Path
    checkpoint: Path | None
    status: str
    device: str
    images_per_s: float
    reason: str = ""
    signal: int = 0

    def __repr__(self) -> str:
        return f"TrainResult({self._title()})"

    def _repr_html_(self) -> str:
        """For notebooks: the curves, and a row for each epoch."""
        return page(self._title(), self.history)

    def _title(self) -> str:
        words = [self.status]
        if self.best is not None and "val_top1" in self.best:
            words.append(f"best top-1 {self.best['val_top1']:.2f} % in epoch {self.best['epoch']}")
        return ", ".join(
            [*words, f"{self.images_per_s:.0f} images/s", self.device, str(self.run_dir)]
        )


def train(
    cfg: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    device: str | None = None,
    epochs: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    init: str | os.PathLike[str] | None = None,
    data: Data = None,
    callbacks: Sequence[Callable[[Record], Any]] = (),
    overrides: Iterable[str] = (),
    quiet: bool = False,
    net: Net | str | None = None,
    code: bool = False,
) -> TrainResult:
    """Trains a net and keeps configuration, metrics, log and checkpoints in the folder of the run.

    metrics.jsonl in that folder gets a line for every `train.log_steps` steps and one for every
    epoch: kind ("step" or "epoch"), epoch (from 1), step, loss and top1 (accuracy in per cent;
    means since the line of that kind before), lr, images_per_s, wait (per cent of the time spent
    waiting for data); epoch lines add val_loss, val_top1, val_top5 and update_ratio (of each layer
    that learns: the norm of its last update over the norm of its weights).

    Args:
        cfg: a TOML file, a preset's name, a dict or a Config; may be left out when resuming.
        device: "auto" (the default), "cpu", "cuda", "cuda:N" or "vgpu"; or two of a kind that
            share the net: "cuda:0,cuda:1", "cpu:0,cpu:1".
        epochs: replaces `train.epochs`.
        run_dir: the folder of the run; by default runs/<date>-<time>-<name>.
        resume: the folder of a run to continue from its newest undamaged checkpoint.
        init: replaces `net.init`: a run or checkpoint whose weights are taken where they fit.
        data: a path that replaces `data.path`, or (training set, validation set), each a data set
            of `convnet.data`, a pair of arrays (images, labels), or one of PyTorch's or Hugging
            Face's (see `convnet.data.from_indexable`); or a dictionary of such splits.
        callbacks: each is called with every line of metrics.jsonl as a dict, and ends the run by
            returning True; see also `convnet.training.callbacks.Callback`.
        overrides: texts like "sgd.lr=0.1", as for `--set`.
        quiet: print warnings only.
        net: a net to train in the place of the configuration's, on its own device; or the name of
            a function that makes one, "package.module:function".
        code: whether code of one's own that the configuration names, "module:Class", may run.

    Returns:
        The result; also of a run that diverged or was interrupted by SIGINT, SIGTERM or SIGHUP.

    Raises:
        ConfigError, DataError, CheckpointError, RunError: something given cannot be used (all are
            ValueErrors).
        DeviceError: the device is not there.
        LinkError: a transfer between two devices failed; no update was made with what arrived.
        OSError: something cannot be written, for example on a full disk. The last checkpoint
            stays whole.
    """
    if epochs is not None:
        overrides = [*overrides, f"train.epochs={epochs}"]
    if data is not None and not isinstance(data, (str, os.PathLike)):
        data = sets_of(data)  # once: it may read every label
    given = net if isinstance(net, Net) else None
    if given is not None:
        device = _device_of(given, device)
    with allowed(code or net is not None), jobs.ranks().guard() as ranks:
        reporter = Reporter(quiet or not ranks.first)
        on = jobs.local_device(device or "auto", ranks)
        job = _Job(on, data, callbacks, reporter, ranks, given)
        with contextlib.closing(reporter):
            if resume is None:
                return job.begin(run_dir, lambda: _config(cfg, overrides, data, init, net))
            if net is not None:
                raise ConfigError("net: cannot be given with resume: the run says what its net is")
            if run_dir is not None:
                raise ConfigError("run_dir: cannot be given with resume, which names the folder")
            if init is not None:
                raise ConfigError("init: cannot be given with resume: the run has its weights")
            return job.resume(
                resume, lambda path, checkpoint: resumption(path, checkpoint, cfg, overrides, data)
            )


def _device_of(net: Net, device: str | None) -> str:
    """The device of a net. Raises: ConfigError: another one is asked for."""
    if device not in (None, "auto", net.device):
        raise ConfigError(f"device: expected that of the net, {net.device}, got {device}")
    return net.device


def _config(
    cfg: Any, overrides: Iterable[str], data: Data, init: Any, net: Net | str | None
) -> Config:
    """The configuration of a new run; the paths in it are absolute."""
    if cfg is None:
        raise ConfigError("train: expected a configuration file, a preset or a run to resume")
    if isinstance(net, str):
        overrides = [f"net.model={json.dumps(net)}", *overrides]
    if net is not None and isinstance(cfg, Mapping) and "net" not in cfg:
        cfg = {**cfg, "net": {"model": "small"}}
    read = with_path(load_config(cfg, overrides), data)
    if isinstance(net, Net):
        layers = layers_of(net)
        read = replace(read, net=replace(NetConfig(layers=layers), lr_mult=read.net.lr_mult))
    path = os.fspath(init) if init is not None else read.net.init
    return replace(
        read, net=replace(read.net, init=str(expanded(path).absolute()) if path else path)
    )


@dataclass
class _Job:
    """The arguments of one call of `train`, and the parts of its work."""

    device: str
    data: Data
    callbacks: Sequence[Callable[[Record], Any]]
    reporter: Reporter
    ranks: Ranks
    net: Net | None = None

    def begin(
        self, run_dir: str | os.PathLike[str] | None, config: Callable[[], Config]
    ) -> TrainResult:
        """A new run."""
        cfg = self.ranks.from_first(config)
        if run_dir is not None and self.ranks.first:
            RunFolder.check_free(Path(run_dir))
        parts = self._build(cfg, None)
        for layer in cfg.net.layers:
            if is_own(layer.type) and not is_lasting(layer.type):
                self.reporter.warn(
                    f"{layer.name}: {layer.type} is found in this process alone; eval, predict and "
                    "resume of the run need its class in a module"
                )
        with self._folder(lambda: RunFolder.create(run_dir, cfg)) as folder:
            return self._run(self._trainer(parts, folder))

    def resume(
        self, path: str | os.PathLike[str], config: Callable[[Path, Checkpoint | None], Resumption]
    ) -> TrainResult:
        """A run that is there already, from its newest checkpoint or else from the start."""
        with self._folder(lambda: RunFolder.resume(path)) as folder:
            checkpoint = self.ranks.from_first(lambda: folder.newest(self.reporter.warn))
            resumed = self.ranks.from_first(lambda: config(folder.path, checkpoint))
            parts = self._build(resumed.cfg, checkpoint)
            trainer = self._trainer(parts, folder)
            if checkpoint is None:
                folder.rewind(0, epoch_done=False)
                place = "no checkpoint yet: from the start"
            else:
                trainer.restore(checkpoint)
                done = f"{trainer.epoch} epochs and {trainer.step_in_epoch} steps done"
                place = f"from {checkpoint.path.name}: {done}"
            self.reporter.block("resume", place)
            if self.ranks.first:
                resumed.show(self.reporter, parts.machine(), trainer.finished)
            if not trainer.finished:
                folder.use_config(resumed.cfg)
            return self._run(trainer)

    @contextlib.contextmanager
    def _folder(self, make: Callable[[], RunFolder]) -> Iterator[Any]:
        """The folder of the run, which rank 0 alone opens, within the block."""
        folder = make() if self.ranks.first else None
        path = self.ranks.from_first(lambda: folder.path if folder else Path())
        with contextlib.closing(folder or NoFolder(path)) as opened:
            yield opened

    def _build(self, cfg: Config, checkpoint: Checkpoint | None) -> Parts:
        """Makes the parts of the run and prints what they are."""
        reporter, ranks = self.reporter, self.ranks
        first, *others = (device.describe() for device in backends.get_all(self.device))
        reporter.block("device", f"{first}{self._why_no_gpu()}", *others)
        if ranks.size > 1:
            reporter.block("ranks", f"{ranks.size} processes, each with its part of every batch")
        if cfg.train.tensorboard and ranks.first:
            tensorboard.require()
        stats = None if checkpoint is None else checkpoint.statistics()
        init = None if checkpoint else ranks.from_first(lambda: self._first_weights(cfg))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinkWarning)  # shown below
            parts = build(cfg, self.device, self.data, stats, ranks, init, self.net)
        parts.loader.warn = parts.validation_loader.warn = reporter.warn
        parts.net.programs.warn = reporter.warn
        show_parts(parts, reporter)
        return parts

    def _first_weights(self, cfg: Config) -> Checkpoint | None:
        """The checkpoint that `net.init` names; warns where its images were prepared otherwise."""
        if not cfg.net.init:
            return None
        source = open_checkpoint(cfg.net.init, self.reporter.warn)
        # Its net may be of code, which is not needed for the data.
        described = {**source.state["config"], "net": {"model": "small"}}
        before = load_config(described, saved=True).data
        for key in ("mean", "scale"):
            then, now = getattr(before, key), getattr(cfg.data, key)
            if then != now:
                text = f"net.init: data.{key} was {then} in {source.path}, and is {now} here"
                self.reporter.warn(text)
        return source

    def _why_no_gpu(self) -> str:
        """Why "auto" chose the CPU although there is an NVIDIA GPU; empty where there is none."""
        if self.device != "auto" or not any(Path("/proc/driver/nvidia/gpus").glob("*")):
            return ""
        problem = backends.cuda_problem()
        return f" (there is a GPU, but {problem})" if problem else ""

    def _trainer(self, parts: Parts, folder: RunFolder | NoFolder) -> Trainer:
        callbacks: list[Callable[[Record], Any]] = []
        if self.ranks.first:
            hint = StuckHint(parts.net.classes or 1, self.reporter.line)
            callbacks = [Display(self.reporter), hint, *self.callbacks]
            callbacks += [tensorboard.Board()] if parts.cfg.train.tensorboard else []
        return Trainer(parts, folder, self.reporter, callbacks)

    def _run(self, trainer: Trainer) -> TrainResult:
        reporter, folder, reason = self.reporter, trainer.folder, ""
        back = functools.partial(way_back, trainer, self.device, self.data)
        reporter.log_to(folder.log)
        reporter.block("run", str(folder.path))
        with Signals() as signals:
            reporter.on_hang_up = signals.hang_up
            try:
                status = trainer.run(signals)
            except DivergedError as error:
                status, reason = "diverged", divergence(trainer, error)
            except KeyboardInterrupt:
                reporter.stop_bar()
                reporter.line(f"stopped at once; {back()}", always=True)
                raise
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                reason = f"{reason}; {back()}"
                raise OSError(error.errno, reason, error.filename) from error
            except (LinkError, jobs.RanksError) as error:
                raise type(error)(f"{error}; {back()}") from error
            finally:
                trainer.parts.close()
                reporter.stop_bar()
        if self.ranks.first:
            show_end(trainer, status, reason or back())
        epochs = [record for record in trainer.history if record["kind"] == "epoch"]
        return TrainResult(
            net=trainer.net,
            history=trainer.history,
            best=trainer.best,
            final=epochs[-1] if epochs else None,
            run_dir=folder.path,
            checkpoint=trainer.checkpoint,
            status=status,
            device=trainer.net.device,
            images_per_s=trainer.run_clock.rates()["images_per_s"],
            reason=reason,
            signal=max(self.ranks.each(signals.received)) if status == "interrupted" else 0,
        )
