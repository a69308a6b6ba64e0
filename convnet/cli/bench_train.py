"""How fast a net trains, on images of noise: against batch and threads, and by layer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convnet import backend as backends
from convnet.common.text import aligned
from convnet.config import Config
from convnet.nn.memory import training_memory
from convnet.nn.net import Net
from convnet.nn.trace import Call
from convnet.optim.sgd import SGD
from convnet.training.setup import Data, net_of

_WARM_UP = 2  # steps that are not counted: buffers are taken, primitives are prepared


@dataclass(frozen=True)
class StepRate:
    """One line of the table: steps of one batch size on so many threads.

    Attributes:
        ms: the median of a step.
        gflops: what the multiply-adds of the net come to, forward and backward, in 1e9 operations
            a second.
        memory: bytes that training takes, by `convnet.nn.memory`.
    """

    batch: int
    threads: int
    steps: int
    ms: float
    images_per_s: float
    gflops: float
    memory: int


@dataclass(frozen=True)
class LayerTime:
    """What a step spends in one node, medians in ms; `gflops` as in `StepRate`, 0 without any."""

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
    """Measures training steps; no data is read but to learn its shape.

    Args:
        cfg, device, data: as for training.
        batches: sizes to measure; none: `train.batch`.
        threads: numbers of threads of the CPU; none: those it has now.
        seconds: that each measurement takes, about; at least three steps.
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
    median = statistics.median(times)
    return StepRate(
        batch=batch,
        threads=threads,
        steps=len(times),
        ms=median * 1e3,
        images_per_s=batch / median,
        gflops=_flops(net.macs) * batch / median / 1e9,
        memory=training_memory(net, batch).total,
    )


def _flops(macs: int) -> int:
    """Of a step, per image: forward, and as much for each of the two gradients."""
    return 3 * 2 * macs


def _step(net: Net, cfg: Config, batch: int) -> tuple[Callable[[], None], SGD]:
    """A training step on noise, and what updates the parameters in it."""
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
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def profile(
    cfg: Config, device: str = "auto", data: Data = None, batch: int | None = None, steps: int = 5
) -> list[LayerTime]:
    """What a training step spends where: its nodes in order, then "update", then "other".

    What was fused counts for the first of its nodes. The device finishes each operation before the
    next begins, so on a GPU the sum is more than an undisturbed step takes.

    Args:
        cfg, device, data: as for training.
        batch: samples a step; None: `train.batch`.
        steps: over which medians are taken.

    Raises: as `bench_train`.
    """
    net = net_of(cfg, device, data)
    batch = batch or cfg.train.batch
    step, sgd = _step(net, cfg, batch)
    for _ in range(_WARM_UP):
        step()
    wholes, runs = [], []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        wholes.append((time.perf_counter() - start) * 1e3)
        runs.append(net.programs.timed(sgd))
    spent: dict[tuple[str, str], float] = {}
    ways = _ways(runs[0])
    for index, (call, _) in enumerate(runs[0]):
        ms = 1e3 * statistics.median(run[index][1] for run in runs)
        key = (call.nodes[0] if call.nodes else "other"), ways[index]
        spent[key] = spent.get(key, 0.0) + ms
    lines = []
    for node in net.nodes:
        forward, backward = (spent.get((node.name, way), 0.0) for way in ("forward", "backward"))
        flops = _flops(node.layer.macs) * batch
        rate = flops / ((forward + backward) * 1e6) if flops and forward + backward else 0.0
        lines.append(LayerTime(node.name, node.layer.describe(), forward, backward, rate))
    lines.append(LayerTime("update", "SGD", 0.0, spent.get(("update", "backward"), 0.0), 0.0))
    other = max(0.0, statistics.median(wholes) - sum(line.ms for line in lines))
    lines.append(LayerTime("other", "losses, checks, Python", other, 0.0, 0.0))
    return lines


def _ways(calls: Sequence[tuple[Call, float]]) -> list[str]:
    """Of each call, "forward" or "backward"; the backward pass begins after the losses."""
    last = max(i for i, (call, _) in enumerate(calls) if call.op.name in ("softmax_xent", "loss"))
    return ["forward" if index <= last else "backward" for index in range(len(calls))]


def profile_table(lines: Sequence[LayerTime]) -> str:
    """The profile as aligned text, with each node's share of the step."""
    total = sum(line.ms for line in lines)
    rows: list[tuple[str, ...]] = [
        ("node", "type", "forward ms", "backward ms", "share", "GFLOP/s")
    ]
    for line in lines:
        rows.append(
            (
                line.node,
                line.kind,
                f"{line.forward_ms:.2f}",
                f"{line.backward_ms:.2f}",
                f"{100 * line.ms / total:.1f} %",
                f"{line.gflops:.0f}" if line.gflops else "",
            )
        )
    forward, backward = sum(x.forward_ms for x in lines), sum(x.backward_ms for x in lines)
    rows.append(("total", "", f"{forward:.2f}", f"{backward:.2f}", "", ""))
    return aligned(rows, left=2)
