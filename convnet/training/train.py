"""Training a net from a configuration: `convnet.train`, and `convnet train` as a command."""

from __future__ import annotations

import contextlib
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convnet import backend as backends
from convnet.config import Config, ConfigError, load_config
from convnet.data.dataset import expanded
from convnet.nn.net import Net
from convnet.optim.sgd import DivergedError
from convnet.parallel import ranks as jobs
from convnet.parallel.p2p import LinkError, LinkWarning
from convnet.parallel.ranks import Ranks
from convnet.training import tensorboard
from convnet.training.checkpoint import Checkpoint
from convnet.training.progress import Reporter
from convnet.training.resume import Resumption, resumption
from convnet.training.run_folder import NoFolder, RunFolder, open_checkpoint
from convnet.training.setup import Data, Parts, build, statistics_of, with_path
from convnet.training.signals import Signals
from convnet.training.trainer import Record, Trainer


@dataclass
class TrainResult:
    """What a run came to.

    Attributes:
        net: with the weights of the last step (those of the best epoch: `convnet.load(run_dir)`).
        history: the records of metrics.jsonl.
        best, final: the records of the best and the last epoch; None before the first.
        run_dir, checkpoint: the run's folder and its newest checkpoint.
        status: "done"; "stopped" by a callback; "interrupted" by a signal, and saved; "diverged".
        device: where it ran.
        images_per_s: training images a second, validation left out.
        reason: why it diverged.
        signal: the signal that interrupted it, or 0.
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
) -> TrainResult:
    """Trains a net.

    metrics.jsonl in the run folder gets a line for every `train.log_steps` steps and one for every
    epoch: kind ("step" or "epoch"), epoch (from 1), step, loss and top1 (accuracy in per cent;
    means since the line of that kind before), lr, images_per_s, wait (per cent of the time spent
    waiting for data); epoch lines add val_loss, val_top1, val_top5 and update_ratio (of each layer
    that learns: the norm of its last update over the norm of its weights).

    Args:
        cfg: a TOML file, a preset's name, a dict or a Config; may be left out when resuming.
        device: "auto" (the default), "cpu", "cuda", "cuda:N" or "emulator"; or two of a kind that
            share the net: "cuda:0,cuda:1", "cpu:0,cpu:1".
        epochs: replaces `train.epochs`.
        run_dir: the folder of the run; by default runs/<date>-<time>-<name>.
        resume: the folder of a run to continue where its newest whole checkpoint was taken.
        init: replaces `net.init`: a run or checkpoint whose weights are taken where they fit.
        data: a path that replaces `data.path`, or (training set, validation set).
        callbacks: called with each line of metrics.jsonl as a dict; the result True ends the run.
        overrides: texts like "sgd.lr=0.1", as for `--set`.
        quiet: print warnings only.

    Returns:
        The result; also of a run that diverged or was interrupted by SIGINT, SIGTERM or SIGHUP.

    Raises:
        ConfigError, DataError, CheckpointError, RunError: something given cannot be used (all are
            ValueErrors).
        DeviceError: the device is not there.
        LinkError: a transfer between two devices failed; nothing was made of it.
        OSError: something cannot be written, for example on a full disk. The last checkpoint
            stays whole.
    """
    if epochs is not None:
        overrides = [*overrides, f"train.epochs={epochs}"]
    with jobs.ranks().guard() as ranks:
        reporter = Reporter(quiet or not ranks.first)
        device = jobs.local_device(device or "auto", ranks)
        heard = tuple(callbacks) if ranks.first else ()
        job = _Job(device, data, heard, reporter, ranks)
        try:
            if resume is None:
                return job.begin(run_dir, lambda: _config(cfg, overrides, data, init))
            if run_dir is not None:
                raise ConfigError("run_dir: cannot be given with resume, which names the folder")
            if init is not None:
                raise ConfigError("init: cannot be given with resume: the run has its weights")
            return job.resume(
                resume,
                lambda path, checkpoint: resumption(path, checkpoint, cfg, overrides, data),
            )
        finally:
            reporter.close()
            reporter.log_to(None)


def _config(cfg: Any, overrides: Iterable[str], data: Data, init: Any) -> Config:
    """The configuration of a new run."""
    if cfg is None:
        raise ConfigError("cfg: expected a configuration or resume")
    return _with_init(with_path(load_config(cfg, overrides), data), init)


@dataclass
class _Job:
    """The arguments of one call of `train`, and the steps it consists of."""

    device: str
    data: Data
    callbacks: tuple[Callable[[Record], Any], ...]
    reporter: Reporter
    ranks: Ranks
    cfg: Config = field(init=False)

    def begin(
        self, run_dir: str | os.PathLike[str] | None, config: Callable[[], Config]
    ) -> TrainResult:
        """A new run."""
        self.cfg = self.ranks.from_first(config)
        if run_dir is not None and self.ranks.first:
            RunFolder.check_free(Path(run_dir))
        parts = self._build(None)
        with self._folder(lambda: RunFolder.create(run_dir, self.cfg)) as folder:
            return self._run(Trainer(self.cfg, parts, folder, self.reporter, self.callbacks))

    def resume(
        self,
        path: str | os.PathLike[str],
        config: Callable[[Path, Checkpoint | None], Resumption],
    ) -> TrainResult:
        """A run that is there already, from its newest checkpoint or else from the start."""
        with self._folder(lambda: RunFolder.resume(path)) as folder:
            checkpoint = self.ranks.from_first(lambda: folder.newest(self.reporter.warn))
            resumed = self.ranks.from_first(lambda: config(folder.path, checkpoint))
            self.cfg = resumed.cfg
            parts = self._build(checkpoint)
            trainer = Trainer(self.cfg, parts, folder, self.reporter, self.callbacks)
            if checkpoint is None:
                folder.rewind(0, epoch_done=False)
                place = "no checkpoint yet: from the start"
            else:
                trainer.restore(checkpoint)
                place = (
                    f"from {checkpoint.path.name}: {trainer.epoch} epochs and "
                    f"{trainer.step_in_epoch} steps done"
                )
            self.reporter.line(f"resume    {place}")
            if self.ranks.first:
                resumed.show(self.reporter, parts.machine(), trainer.finished)
            if not trainer.finished:
                folder.use_config(self.cfg)
            return self._run(trainer)

    def _folder(self, make: Callable[[], RunFolder]) -> contextlib.closing[Any]:
        """The folder of the run, which one process opens; to be closed by `with`."""
        if self.ranks.size == 1:
            return contextlib.closing(make())
        folder = make() if self.ranks.first else None
        path = self.ranks.from_first(lambda: folder.path if folder else Path())
        return contextlib.closing(folder or NoFolder(path))

    def _build(self, checkpoint: Checkpoint | None) -> Parts:
        """Makes the parts of the run and prints what they are."""
        cfg, line = self.cfg, self.reporter.line
        devices = backends.get_all(self.device)
        line(f"device    {devices[0].describe()}{self._why_no_gpu()}")
        for other in devices[1:]:
            line(f"          {other.describe()}")
        if self.ranks.size > 1:
            line(f"ranks     {self.ranks.size} processes, each with its part of every batch")
        if cfg.train.tensorboard and self.ranks.first:
            tensorboard.require()
        stats = None if checkpoint is None else statistics_of(checkpoint)
        source = None if checkpoint else self.ranks.from_first(self._first_weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinkWarning)  # shown below
            parts = build(cfg, self.device, self.data, stats, self.ranks, source)
        parts.loader.warn = parts.validation_loader.warn = self.reporter.warn
        parts.net.programs.warn = self.reporter.warn
        self._show(parts)
        return parts

    def _show(self, parts: Parts) -> None:
        """Prints what the run works with."""
        cfg, line, net = self.cfg, self.reporter.line, parts.net
        height, width, channels = parts.train.shape
        line(f"data      {parts.train.description}")
        line(
            f"          {len(parts.train)} training and {len(parts.validation)} validation "
            f"images, {height} x {width} x {channels}, {len(parts.train.classes)} classes"
        )
        if net.partition is not None:
            line(f"links     {net.partition.links.describe()}")
            for note in net.partition.links.notes:
                self.reporter.warn(note)
        line(
            f"net       {cfg.net.model or cfg.name}: {len(net.nodes)} nodes, "
            f"{net.parameter_count:,} parameters, {net.macs / 1e6:.1f} M multiply-adds an image"
        )
        for number, text in enumerate(parts.memory.lines(cfg.train.batch, self.ranks.size)):
            line(f"{'memory' if number == 0 else '':10}{text}")
        line(f"step      {net.programs.describe()}")
        if cfg.net.lr_mult:
            rates = (
                f"{name} x {rate:g}" if rate else f"{name} frozen"
                for name, rate in cfg.net.lr_mult.items()
            )
            line(f"rates     {', '.join(rates)}")
        for number, text in enumerate(parts.taken.lines() if parts.taken else []):
            line(f"{'init' if number == 0 else '':10}{text}")
        options = [f"warm-up {cfg.schedule.warmup_steps} steps"] * bool(cfg.schedule.warmup_steps)
        options += [f"{key} {value}" for key, value in cfg.schedule.options.items()]
        line(
            f"schedule  {cfg.train.epochs} epochs of {parts.loader.steps_per_epoch} steps of "
            f"{cfg.train.batch}; lr {cfg.sgd.lr:g} {', '.join([cfg.schedule.kind, *options])}; "
            f"momentum {cfg.sgd.momentum:g}, weight decay {cfg.sgd.weight_decay:g}"
        )

    def _first_weights(self) -> Checkpoint | None:
        """The checkpoint that `net.init` names; warns where its images were prepared
        otherwise."""
        if not self.cfg.net.init:
            return None
        source = open_checkpoint(self.cfg.net.init, self.reporter.warn)
        before, now = load_config(source.state["config"], saved=True).data, self.cfg.data
        pairs = {"mean": (before.mean, now.mean), "scale": (before.scale, now.scale)}
        for key, (then, here) in pairs.items():
            if then != here:
                self.reporter.warn(
                    f"net.init: data.{key} was {then} in {source.path}, and is {here} here"
                )
        return source

    def _why_no_gpu(self) -> str:
        """Why "auto" chose the CPU although there is an NVIDIA GPU; nothing where there is none."""
        if self.device != "auto" or not any(Path("/proc/driver/nvidia/gpus").glob("*")):
            return ""
        problem = backends.cuda_problem()
        return f" (there is a GPU, but {problem})" if problem else ""

    def _run(self, trainer: Trainer) -> TrainResult:
        reporter, folder = self.reporter, trainer.folder
        reporter.log_to(folder.log.append)
        reporter.line(f"run       {folder.path}")
        board = None
        if self.cfg.train.tensorboard and self.ranks.first:
            board = tensorboard.Board(
                folder.path / "tensorboard", trainer.history, trainer.net.step
            )
            trainer.callbacks = (*trainer.callbacks, board)
        reporter.start_bar()
        reason = ""
        with Signals() as signals:
            reporter.on_hang_up = signals.hang_up
            try:
                status = trainer.run(signals)
            except DivergedError as error:
                status, reason = "diverged", self._divergence(trainer, error)
            except KeyboardInterrupt:
                reporter.close()
                reporter.line(f"stopped at once; {self._way_back(trainer)}", always=True)
                raise
            except OSError as error:
                raise self._unwritable(trainer, error) from error
            except (LinkError, jobs.RanksError) as error:
                raise type(error)(f"{error}; {self._way_back(trainer)}") from error
            finally:
                trainer.parts.close()
                reporter.close()
                if board is not None:
                    board.close()
        self._report(trainer, status, reason)
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

    # ---- messages -------------------------------------------------------------------------------

    def _report(self, trainer: Trainer, status: str, reason: str) -> None:
        if not self.ranks.first:
            return
        if status == "diverged":
            self.reporter.error(reason)
            return
        if status != "done":
            self.reporter.line(
                f"{status} at step {trainer.net.step}; {self._way_back(trainer)}", always=True
            )
            return
        if trainer.best is not None:
            self.reporter.line(
                f"done: best validation top-1 {trainer.best['val_top1']:.2f} % in epoch "
                f"{trainer.best['epoch']}; try: "
                f"{shlex.join(['convnet', 'predict', str(trainer.folder.path)])} PICTURE"
            )

    def _divergence(self, trainer: Trainer, error: DivergedError) -> str:
        return (
            f"diverged at step {trainer.net.step}: {error}; {self._kept(trainer)}; try a smaller "
            f"sgd.lr (it was {trainer.lr:g}) or schedule.warmup_steps"
        )

    def _unwritable(self, trainer: Trainer, error: OSError) -> OSError:
        text = f"{os.strerror(error.errno) if error.errno else error}; {self._way_back(trainer)}"
        return OSError(error.errno, text, error.filename)

    def _kept(self, trainer: Trainer) -> str:
        if trainer.checkpoint is None:
            return "there is no checkpoint yet"
        return f"the last checkpoint is {trainer.checkpoint}"

    def _way_back(self, trainer: Trainer) -> str:
        """The last checkpoint, and the command that goes on from it."""
        folder = str(trainer.folder.path)
        if self.data is not None and not isinstance(self.data, (str, os.PathLike)):
            command = f"convnet.train(resume={folder!r}, data=...)"
        else:
            words = ["convnet", "train", "--resume", folder]
            words += ["--device", self.device] if self.device != "auto" else []
            command = shlex.join(words)
        return f"{self._kept(trainer)}; resume with: {command}"


def _with_init(cfg: Config, init: str | os.PathLike[str] | None) -> Config:
    """The configuration with `net.init` replaced, if it is given, and absolute."""
    path = os.fspath(init) if init is not None else cfg.net.init
    if path:
        path = str(expanded(path).absolute())
    return replace(cfg, net=replace(cfg.net, init=path))
