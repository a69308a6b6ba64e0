"""Compares the gradients of a whole net with differences of its loss.

The loss is computed in float32, so a difference of losses is only good to a few times 2^-24 of the
loss; how good is measured, by steps too small to matter. Each sample moves several elements of a
parameter at once, each in the direction in which the loss should rise, by steps from large to
small: a large step leaves the straight part of the loss (or crosses the kink of a ReLU), a small
one drowns in rounding, and a right gradient agrees with one between. Parameters that are constant,
such as biases of zero, are moved off that value first, because there blank images would sit
exactly on the kinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from convnet import backend as backends
from convnet.common.checks import check_float, check_int
from convnet.common.progress import counted
from convnet.layers.layer import Array, Parameter
from convnet.nn.net import Net

_STEPS = tuple(0.3 * 2.5**-i for i in range(10))  # of the parameter's own scale
_TINY_STEP = 1e-6


@dataclass(frozen=True)
class Row:
    """What was found for one parameter.

    Attributes:
        parameter: its name; size: its number of elements.
        samples: differences taken; judged: those large enough to tell from rounding.
        expected, found: the change of the loss by the gradient and by itself, in the worst sample.
        error: |expected - found| / the larger of them, in the worst sample.
        ok: whether the error is within the tolerance.
    """

    parameter: str
    size: int
    samples: int
    judged: int
    expected: float
    found: float
    error: float
    ok: bool


def gradcheck(
    net: Net,
    x: Array,
    labels: Array,
    samples: int = 8,
    elements: int = 16,
    tolerance: float = 0.02,
    seed: int = 0,
) -> list[Row]:
    """Checks the gradient of every parameter at samples of its elements.

    The net is as before afterwards. Dropout stays in the check, with the masks of the net's step.

    Args:
        net: with a loss.
        x, labels: a batch, as for `Net.train_step`; a few samples are enough.
        samples: differences for each parameter.
        elements: how many elements of the parameter a sample moves.
        tolerance: largest relative error that counts as right.
        seed: of the choice of elements.

    Returns: a row for each of `net.params`, but for those that are frozen (`lr_mult` 0).
    Raises: ValueError for x or labels that do not fit, and for a loss that is not finite.
    """
    check_int("samples", samples)
    check_int("elements", elements)
    check_float("tolerance", tolerance, 1e-6, 1.0)
    rng = np.random.default_rng(seed)
    with _off_the_kinks(net, rng):
        loss = net.gradients(x, labels)
        if not np.isfinite(loss):
            raise ValueError(f"gradcheck: expected a finite loss, got {loss}")
        params = [param for param in net.params if param.lr_mult != 0.0]
        gradients = [np.array(_on_host(p.grad), np.float64).reshape(-1) for p in params]
        probes = [
            _Probe(net, x, labels, param, gradient)
            for param, gradient in zip(params, gradients, strict=True)
        ]
        noise = max([2.0 * 2.0**-24 * loss, *(_noise(probe, elements, rng) for probe in probes)])
        told = counted(probes, len(probes), "checking", "parameters")
        return [_check(probe, samples, elements, tolerance, noise, rng) for probe in told]


@dataclass
class _Probe:
    """One parameter of a net, and its gradient as a flat array."""

    net: Net
    x: Array
    labels: Array
    param: Parameter
    gradient: np.ndarray

    @property
    def scale(self) -> float:
        """The root mean square of the values."""
        values = _on_host(self.param.data)
        return max(float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))), 1e-6)

    def change(self, at: np.ndarray, step: np.ndarray) -> tuple[float, float]:
        """The change of the loss between values - step and values + step at some elements: by the
        gradient, and by itself."""
        device = backends.of(self.param.data)
        flat, place = self.param.data.reshape(-1), device.asarray(at)
        ends, losses = [], []
        with device.active():
            start = flat[place].copy()
            for sign in (1.0, -1.0):
                end = device.to_host(start) + (sign * step).astype(np.float32)
                flat[place] = device.asarray(end)
                ends.append(end.astype(np.float64))  # where rounding has really put them
                losses.append(self.net.training_loss(self.x, self.labels))
            flat[place] = start
        return float(self.gradient[at] @ (ends[0] - ends[1])), losses[0] - losses[1]


def _check(
    probe: _Probe,
    samples: int,
    elements: int,
    tolerance: float,
    noise: float,
    rng: np.random.Generator,
) -> Row:
    visible = noise / tolerance  # a smaller change of the loss cannot be told from rounding
    results = []
    for sample in range(samples):
        at = _elements(probe.gradient, elements, ("large", "any", "zero")[sample % 3], rng)
        results.append(_compare(probe, at, tolerance, visible, rng))
    judged = sum(result[3] for result in results)
    error, expected, found, _ = max(results)
    name, size, ok = probe.param.name, probe.param.size, error <= tolerance
    return Row(name, size, samples, judged, expected, found, error, ok)


def _noise(probe: _Probe, elements: int, rng: np.random.Generator) -> float:
    """How far rounding alone takes a difference of losses from what it should be."""
    at = _elements(probe.gradient, elements, "any", rng)
    expected, found = probe.change(at, np.full(len(at), _TINY_STEP * probe.scale))
    return abs(expected - found)


def _elements(gradient: np.ndarray, count: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Indices of some elements: mostly those with a large gradient, or any with one, or some whose
    gradient is zero (where there are such)."""
    size = np.abs(gradient)
    at = np.flatnonzero(size == 0.0 if kind == "zero" else size)
    if not at.size:
        at = np.arange(size.size)
    count = min(count, at.size)
    weights = size[at] / size[at].sum() if kind == "large" and size.any() else None
    return rng.choice(at, count, replace=False, p=weights)


def _compare(
    probe: _Probe, at: np.ndarray, tolerance: float, visible: float, rng: np.random.Generator
) -> tuple[float, float, float, bool]:
    """(error, expected, found, whether it could be judged) for the step that agrees best.

    The error is relative to the change of the loss; where that should be zero, to the change that
    the parameter's other elements would make.
    """
    gradient = probe.gradient[at]
    signs = np.where(gradient == 0.0, rng.choice([-1.0, 1.0], len(at)), np.sign(gradient))
    direction = signs * probe.scale
    typical = 2.0 * probe.scale * len(at) * float(np.sqrt(np.mean(np.square(probe.gradient))))
    best: tuple[float, float, float, bool] | None = None
    for step in _STEPS:
        expected, found = probe.change(at, step * direction)
        size = max(abs(expected), abs(found))
        if not gradient.any() and typical:
            size = step * typical
        judged = size >= visible
        if not judged and best is not None:
            break
        error = abs(expected - found) / max(size, visible)
        if best is None or error < best[0]:
            best = (error, expected, found, judged)
        if error < tolerance / 4 or not judged:
            break
    assert best is not None
    return best


@contextmanager
def _off_the_kinks(net: Net, rng: np.random.Generator) -> Iterator[None]:
    """Adds a little noise to parameters that are constant, for the time of a `with` block."""
    before: list[tuple[Parameter, Array]] = []
    for param in net.params:
        with backends.of(param.data).active():
            if bool((param.data == param.data.reshape(-1)[0]).all()):
                before.append((param, param.data.copy()))
    try:
        for param, old in before:
            noise = rng.normal(0.0, 0.05, param.shape).astype(np.float32)
            device = backends.of(param.data)
            with device.active():
                param.data[...] = old + device.asarray(noise)
        yield
    finally:
        for param, old in before:
            with backends.of(param.data).active():
                param.data[...] = old


def _on_host(array: Array) -> np.ndarray:
    return backends.of(array).to_host(array)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    width = max(len("parameter"), *(len(row.parameter) for row in rows))
    lines = [f"{'parameter':{width}}  {'elements':>10}  {'judged':>7}  {'error':>9}"]
    for row in rows:
        judged = f"{row.judged}/{row.samples}"
        verdict = "ok" if row.ok else f"WRONG: expected {row.expected:.4g}, found {row.found:.4g}"
        verdict = verdict if row.judged else "too small to judge"
        lines.append(
            f"{row.parameter:{width}}  {row.size:>10,}  {judged:>7}  {row.error:>9.2e}  {verdict}"
        )
    return "\n".join(lines)
