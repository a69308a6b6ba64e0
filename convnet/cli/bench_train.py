"""How fast a net trains, on images of noise: by batch size and threads, and layer by layer."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convnet import backend as backends
from convnet.common.text import aligned
from convnet.config import Config
from convnet.nn.memory import training_memory
from convnet.nn.net import Net
from convnet.nn.trace import Call
from convnet.optim.sgd import SGD
from convnet.training.datasets import Data
from convnet.training.nets import net_of

_WARM_UP = 2  # steps that are not counted: buffers are taken, primitives are prepared


@dataclass(frozen=True)
class StepRate:
    """One line of the table: steps of one batch size on a number of threads.

    Attributes:
        batch, threads: images per step, and threads of the CPU.
        steps: how many were measured.
        ms: the median duration of a step, in milliseconds.
        images_per_s: images that are trained on per second.
        gflops: the net's multiply-adds, forward and backward, in 1e9 operations per second.
        memory: bytes that training takes, by `convnet.nn.memory`.
    """

    HEADING: ClassVar[str] = (
        f"{'batch':>6}{'threads':>9}{'ms/step':>11}{'images/s':>11}{'GFLOP/s':>10}{'MiB':>9}"
    )

    batch: int
    threads: int
    steps: int
    ms: float
    images_per_s: float
    gflops: float
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.batch:6}{self.threads:9}{self.ms:11.2f}{self.images_per_s:11,.0f}"
            f"{self.gflops:10.0f}{self.memory / 2**20:9,.0f}"
        )


@dataclass(frozen=True)
class LayerTime:
    """The time that a step spends in one node.

    Attributes:
        node, kind: its name, and its layer in words.
        forward_ms, backward_ms: medians in milliseconds.
        gflops: as in `StepRate`; 0 where the node has no multiply-adds.
    """

    node: str
    kind: str
    forward_ms: float
    backward_ms: float
    gflops: float

    @property
    def ms(self) -> float:
        """Both passes."""
        return self.forward_ms + self.backward_ms


def bench_train(
    cfg: Config,
    device: str = "auto",
    data: Data = None,
    batches: Sequence[int] = (),
    threads: Sequence[int] = (),
    seconds: float = 5.0,
    show: Callable[[StepRate], None] = lambda rate: None,
) -> list[StepRate]:
    """Measures training steps; data are read only where their shape is not known otherwise.

    Args:
        cfg, device, data: as for training.
        batches: batch sizes to measure; none: `train.batch`.
        threads: numbers of threads of the CPU; none: those it has now.
        seconds: duration of each measurement, roughly; at least three steps.
        show: called with each line as it is ready.

    Raises:
        ConfigError, DataError, DeviceError; ValueError for a number of threads where the device is
        no CPU.
    """
    net = net_of(cfg, device, data)
    counts = list(threads) or [net.backend.module.thread_count()]
    if threads and net.backend.name != "cpu":
        raise ValueError(f"--threads: expected the device cpu, got {net.backend.device}")
    before = net.backend.module.thread_count()
    rates = []
    try:
        for count in counts:
            if threads:
                backends.set_threads(count)
            for batch in batches or [cfg.train.batch]:
                rates.append(_rate(net, cfg, batch, count, seconds))
                show(rates[-1])
    finally:
        if threads:
            backends.set_threads(before)
    return rates


def _rate(net: Net, cfg: Config, batch: int, threads: int, seconds: float) -> StepRate:
    times = _timed(_step(net, cfg, batch)[0], seconds)
    rate = batch / statistics.median(times)
    memory, gflops = training_memory(net, batch).total, _flops(net.macs) * rate / 1e9
    return StepRate(batch, threads, len(times), 1e3 * batch / rate, rate, gflops, memory)


def _flops(macs: int) -> int:
    """Of a step, per image: forward, and as much for each of the two gradients."""
    return 3 * 2 * macs


def _step(net: Net, cfg: Config, batch: int) -> tuple[Callable[[], None], SGD]:
    """A training step on noise, and its optimiser."""
    rng = np.random.default_rng(0)
    host = rng.standard_normal((batch, *net.in_shape), dtype=np.float32)
    classes = net.shapes[net.nodes[-1].name][0]
    x = net.backend.asarray(host)
    labels = net.backend.asarray(rng.integers(0, classes, batch).astype(np.int32))
    sgd = SGD(net.params, cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay)

    def step() -> None:
        net.train_step(x, labels, sgd)
        net.backend.synchronize()

    return step, sgd


def _timed(step: Callable[[], None], seconds: float) -> list[float]:
    for _ in range(_WARM_UP):
        step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        times.append(_duration(step))
    return times


def _duration(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def profile(
    cfg: Config, device: str = "auto", data: Data = None, batch: int | None = None, steps: int = 5
) -> list[LayerTime]:
    """The time that a training step spends in each node, in the update, and in the rest.

    What was fused counts for the first of its nodes. The device finishes each operation before the
    next begins, so on a GPU the sum is more than an undisturbed step takes.

    Args:
        cfg, device, data: as for training.
        batch: images per step; None: `train.batch`.
        steps: how many are measured; medians over them are returned.

    Returns: a line for each node in order, then "update", then "other".

    Raises: as `bench_train`.
    """
    net = net_of(cfg, device, data)
    batch = batch or cfg.train.batch
    step, sgd = _step(net, cfg, batch)
    for _ in range(_WARM_UP):
        step()
    wholes, runs = [], []
    for _ in range(steps):
        wholes.append(1e3 * _duration(step))
        runs.append(net.programs.timed(sgd))
    spent: Counter[tuple[str, str]] = Counter()
    for (call, _), way, times in zip(runs[0], _ways(runs[0]), zip(*runs, strict=True), strict=True):
        where = call.nodes[0] if call.nodes else "other"
        spent[where, way] += 1e3 * statistics.median(seconds for _, seconds in times)
    lines = []
    for node in net.nodes:
        forward, backward = spent[node.name, "forward"], spent[node.name, "backward"]
        rate = _flops(node.layer.macs) * batch / 1e6 / ((forward + backward) or 1.0)
        lines.append(LayerTime(node.name, node.layer.describe(), forward, backward, rate))
    lines.append(LayerTime("update", "SGD", 0.0, spent["update", "backward"], 0.0))
    other = max(0.0, statistics.median(wholes) - sum(line.ms for line in lines))
    lines.append(LayerTime("other", "losses, checks, Python", other, 0.0, 0.0))
    return lines


def _ways(calls: Sequence[tuple[Call, float]]) -> list[str]:
    """Of each call, "forward" or "backward"; the backward pass begins after the losses."""
    last = max(i for i, (call, _) in enumerate(calls) if call.op.name in ("softmax_xent", "loss"))
    return ["forward" if index <= last else "backward" for index in range(len(calls))]


def profile_table(lines: Sequence[LayerTime]) -> str:
    """The profile as aligned text, with the share that each node has of the step."""
    total = sum(line.ms for line in lines)
    rows: list[tuple[str, ...]] = [
        ("node", "type", "forward ms", "backward ms", "share", "GFLOP/s")
    ]
    for line in lines:
        times = (
            f"{line.forward_ms:.2f}",
            f"{line.backward_ms:.2f}",
            f"{100 * line.ms / total:.1f} %",
        )
        rows.append((line.node, line.kind, *times, f"{line.gflops:.0f}" if line.gflops else ""))
    forward, backward = sum(x.forward_ms for x in lines), sum(x.backward_ms for x in lines)
    rows.append(("total", "", f"{forward:.2f}", f"{backward:.2f}", "", ""))
    return aligned(rows, left=2)
