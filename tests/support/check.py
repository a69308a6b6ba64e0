"""How tests compare: every tolerance of the suite is here, and what holds for every operation.

Tolerances follow from the arithmetic, not from what happened to pass. Rounding to float32 is wrong
by at most U = 2^-24 of a value; a sum of `length` rounded products, in whatever order, is wrong by
about sqrt(length) * U of the sum of their absolute values (`magnitude`, which the tests compute
with the reference on absolute values). A wrong index or a dropped term is wrong by whole products.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import reference

from convnet.ops.step_state import StepState

U = 2.0**-24
U16 = 2.0**-8  # as U, of bfloat16
TINY = float(np.finfo(np.float32).tiny)  # below it, results may be flushed to zero

# oneDNN may divide these sums by the number of threads: they repeat their bits for one count only.
VARIES_WITH_THREADS = {"conv_fprop", "conv_fprop_prepared", "conv_dgrad", "conv_wgrad"}


# ---- comparisons ----------------------------------------------------------------------------


def equal(actual: np.ndarray, expected: np.ndarray) -> None:
    """The same shape and the same values; for inputs whose results float32 represents exactly."""
    assert actual.shape == np.shape(expected)
    np.testing.assert_array_equal(actual, expected)


def same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the last bit: NaNs and the signs of zeros too."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    different = np.count_nonzero(_bits(actual) != _bits(expected))
    assert different == 0, f"{different} of {actual.size} elements differ in their bits"


def close(
    actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray | float, length: int = 1
) -> None:
    """|actual - expected| <= (4 + 2 sqrt(length)) U magnitude, for `length` terms of that total; in
    bfloat16 and U16 |expected| besides, as the result is rounded once more."""
    assert actual.shape == np.shape(expected)
    assert actual.dtype == np.float32 or is_bfloat16(actual.dtype)
    error = np.abs(actual.astype(np.float64) - expected)
    allowed = (4 + 2 * np.sqrt(length)) * U * np.abs(magnitude) + TINY
    if is_bfloat16(actual.dtype):
        allowed = (1 + U16) * allowed + U16 * np.abs(expected)
    ratio = np.where(np.isfinite(error), error / allowed, np.inf)
    worst = np.unravel_index(np.argmax(ratio), ratio.shape)
    assert ratio[worst] <= 1, (
        f"element {tuple(int(i) for i in worst)}: expected {np.asarray(expected)[worst]!r}, got "
        f"{actual[worst]!r}; the error is {ratio[worst]:.3g} times what rounding explains "
        f"({np.count_nonzero(ratio > 1)} of {ratio.size} elements are wrong)"
    )


def follows(actual: np.ndarray, expected: np.ndarray, name: str = "") -> None:
    """After a few steps of training: every element within 128 U of the largest.

    A step's gradient is wrong by some U of its largest element (sums of up to thousands of terms,
    by `close`), and the few steps of the tests add up; 128 leaves room for about ten times what
    they show, and is a hundredth of what one wrong element would do.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    error, largest = np.abs(actual - expected).max(), np.abs(expected).max()
    assert error <= 128 * U * largest, (
        f"{name}: differs by {error:.3g} of {largest:.3g}, {error / (U * largest):.0f} roundings"
    )


def inner(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(reference.float64(a) * reference.float64(b)))


def adjoint(dy: np.ndarray, forward: np.ndarray, backward: np.ndarray, v: np.ndarray) -> None:
    """<dy, J v> = <J^T dy, v>, exactly: for whole numbers, forward = J v, backward = J^T dy."""
    assert inner(dy, forward) == inner(backward, v)


def gradient(
    function: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    directions: int = 8,
    step: float = 1e-5,
) -> None:
    """dx against central differences of <dy, function(x)>; `function` is float64 (the reference).

    Along random directions v: <dx, v> = <dy, (function(x + h v) - function(x - h v)) / 2h>. The
    difference is wrong by about h^2 and 1e-16 / h, far below the float32 rounding of dx.
    """
    rng = np.random.default_rng(0)
    x, dy = reference.float64(x), reference.float64(dy)
    for _ in range(directions):
        v = rng.uniform(-1, 1, x.shape)
        difference = inner(dy, (function(x + step * v) - function(x - step * v)) / (2 * step))
        allowed = 16 * U * float(np.sum(np.abs(dx * v))) + 1e-9 * float(np.sum(np.abs(dy)))
        error = abs(inner(dx, v) - difference)
        assert error <= allowed, f"<dx, v> is {inner(dx, v)}, the difference {difference}"


def activation_magnitude(kind: str, x: np.ndarray, a: float, b: float) -> np.ndarray:
    """What the rounding of an activation scales with: its terms, and x times its slope."""
    y, slope = (f(kind, x, a, b) for f in (reference.activation_fprop, reference.activation_slope))
    constant = {"affine": abs(b), "log": np.abs(a * slope)}.get(kind, 0.0)
    return np.abs(y) + np.abs(reference.float64(x) * slope) + constant + _cancelling(kind, x)


def slope_magnitude(kind: str, x: np.ndarray, a: float, b: float) -> np.ndarray:
    """The same for the gradient, which may be computed from the rounded y."""
    slope = np.abs(reference.activation_slope(kind, x, a, b))
    if kind == "tanh":  # a b (1 - (y / a)^2)
        return np.full_like(slope, abs(a * b))
    if kind == "sigmoid":  # y (1 - y)
        return np.abs(reference.activation_fprop(kind, x, a, b))
    if kind == "log":  # 1 / (a + x)
        return slope * (1 + (abs(a) + np.abs(x)) * slope)
    if kind == "drelu":  # tanh(x / a)^2: the square doubles the error of tanh
        return 3 * slope
    return slope


def _cancelling(kind: str, x: np.ndarray) -> np.ndarray | float:
    return 2 * np.abs(reference.float64(x)) if kind == "drelu" else 0.0  # x - a tanh(x / a)


def is_bfloat16(dtype: Any) -> bool:
    """Without ml_dtypes, which few tests need."""
    return str(dtype) == "bfloat16"


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


# ---- calls ----------------------------------------------------------------------------------


# What surrounds arrays. A NaN shows in whatever it is added to; a number beyond all others shows
# where numbers are only compared, and a NaN would lose.
FILLERS = ("nan", "high", "low")


class Guarded:
    """An array in the middle of a larger buffer, whose margins are checked.

    Both are full of one value, which is another one for each array: a kernel that reads past one
    array and writes that past another leaves a trace, and so does one that does not write at all.
    """

    MARGIN = 64  # elements on each side; 256 bytes of float32, so that the array stays aligned
    VALUES = 32  # fillers of a kind
    serial = itertools.count()

    def __init__(
        self,
        backend: Any,
        shape: tuple[int, ...],
        dtype: np.dtype,
        filler: str = "nan",
        shift: int = 0,
    ) -> None:
        """shift: elements past an aligned address at which the array begins."""
        count, self.start = int(np.prod(shape)), self.MARGIN + shift
        value = self.value(np.dtype(dtype), filler, next(self.serial) % self.VALUES)
        self.backend, self.margin = backend, np.tile(value, self.MARGIN)
        self.buffer = backend.empty((count + 2 * self.MARGIN + shift,), dtype)
        self.buffer[...] = backend.asarray(np.tile(value, self.buffer.size))
        self.array = self.buffer[self.start : self.start + count].reshape(shape)

    @classmethod
    def of(cls, backend: Any, host: np.ndarray, filler: str = "nan", shift: int = 0) -> Guarded:
        guard = cls(backend, host.shape, host.dtype, filler, shift)
        guard.array[...] = backend.asarray(host)
        return guard

    @staticmethod
    def value(dtype: np.dtype, filler: str, number: int) -> np.ndarray:
        """One element with the filler's bits."""
        if dtype == np.float32:
            large = np.float32(2.0**100 * (1 + number / 64))
            bits = np.uint32(0x7FC0BE00 + number)  # no operation makes such a NaN by chance
            return {"nan": bits.view(np.float32), "high": large, "low": -large}[filler]
        if is_bfloat16(dtype):
            large, bits = dtype.type(2.0 ** (60 + number)), np.uint16(0x7FC1 + number)
            return {"nan": bits.view(dtype), "high": large, "low": -large}[filler]
        limits = np.iinfo(dtype)
        return np.array(
            {"nan": 165, "high": limits.max - 32, "low": limits.min}[filler] + number, dtype
        )

    def check(self) -> np.ndarray:
        """The array on the host, once the margins are found untouched."""
        values = np.array(self.backend.to_host(self.buffer))
        same_bits(values[self.start - self.MARGIN : self.start], self.margin)
        same_bits(values[-self.MARGIN :], self.margin)
        return np.array(self.backend.to_host(self.array))


def call(backend: Any, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call one of convnet.ops on host arrays; return host arrays.

    Checks what holds for every operation: `out=` is filled completely and nothing around it is
    touched; what lies around the inputs and in the workspace does not matter; the inputs are left
    alone; and the same call gives the same bits, with other thread counts or schedules too.
    """
    plain = _plain_call(backend, function, args, kwargs)
    fillers = itertools.cycle(FILLERS)
    for _ in itertools.chain([None], reruns(backend, function)):
        around = Surroundings(backend, next(fillers))
        for result, expected in zip(around.call(function, args, kwargs, plain), plain, strict=True):
            if expected is not None:
                same_bits(result, expected)
    return plain if len(plain) > 1 else plain[0]


def calls_on_unaligned(
    backend: Any, function: Callable, *args: Any, **kwargs: Any
) -> Iterator[Any]:
    """What `call` returns, for each of its arrays: that one begins past an aligned address.

    By one element. The arrays are the inputs, then the outputs, checked as in `call`.
    """
    plain = _plain_call(backend, function, args, kwargs)
    inputs = sum(isinstance(value, np.ndarray) for value in (*args, *kwargs.values()))
    for place in range(inputs + len(plain)):
        around = Surroundings(backend, "nan", unaligned=place)
        results = around.call(function, args, kwargs, plain)
        yield results if len(results) > 1 else results[0]


def _plain_call(backend: Any, function: Callable, args: tuple, kwargs: dict) -> tuple:
    """The results on the host, for arrays with nothing in particular around them."""

    def move(value: Any) -> Any:
        return backend.asarray(value.copy()) if isinstance(value, np.ndarray) else value

    results = function(*map(move, args), **{key: move(value) for key, value in kwargs.items()})
    results = results if isinstance(results, tuple) else (results,)
    return tuple(None if r is None else np.array(backend.to_host(r)) for r in results)


class Surroundings:
    """The arrays of one call and its workspace, each among fillers of its own.

    Args: unaligned: the number of an array that begins one element past an aligned address.
    """

    def __init__(self, backend: Any, filler: str, unaligned: int | None = None) -> None:
        self.backend, self.filler, self.unaligned = backend, filler, unaligned
        self.arrays = 0
        self.inputs: list[tuple[np.ndarray, Guarded]] = []

    def call(self, function: Callable, args: tuple, kwargs: dict, plain: tuple) -> tuple:
        """Its results on the host, which are of the kinds of `plain`."""
        args, kwargs = tuple(map(self._input, args)), {k: self._input(v) for k, v in kwargs.items()}
        outputs = [r if r is None else self._place(r.shape, r.dtype) for r in plain]
        outs = tuple(guard if guard is None else guard.array for guard in outputs)
        with guarded_workspace(self.backend, self.filler):
            function(*args, **kwargs, out=outs if len(outs) > 1 else outs[0])
        for before, guard in self.inputs:
            same_bits(guard.check(), before)
        return tuple(guard if guard is None else guard.check() for guard in outputs)

    def _input(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.size == 0:
            return value
        guard = self._place(value.shape, value.dtype)
        guard.array[...] = self.backend.asarray(value)
        self.inputs.append((value, guard))
        return guard.array

    def _place(self, shape: tuple[int, ...], dtype: np.dtype) -> Guarded:
        self.arrays += 1
        return Guarded(self.backend, shape, dtype, self.filler, self.arrays - 1 == self.unaligned)


@contextmanager
def guarded_workspace(backend: Any, filler: str) -> Iterator[None]:
    """Within the block, workspaces are of the size asked for, full of fillers and among them."""
    guards = []

    def workspace(size: int) -> Any:
        if size == 0:
            return None
        floats = np.dtype(np.float32)
        guards.append(Guarded(backend, (-(-size // floats.itemsize),), floats, filler))
        return guards[-1].array.view(np.uint8)[:size]

    backend.workspace = workspace
    try:
        yield
    finally:
        del backend.workspace
    for guard in guards:
        guard.check()


def reruns(backend: Any, function: Callable) -> Iterator[None]:
    """Ways to run again that must not change a bit: as before, on fewer or more threads, ..."""
    yield
    if backend.name == "cpu" and function.__name__ not in VARIES_WITH_THREADS:
        for count in (1, 3):
            with threads(backend, count):
                yield
    for order in ORDERS.get(backend.name, ()):
        with kernel_order(order):
            yield


@contextmanager
def threads(backend: Any, count: int) -> Iterator[None]:
    before = backend.module.thread_count()
    backend.module.set_thread_count(count)
    try:
        yield
    finally:
        backend.module.set_thread_count(before)


ORDERS = {"vgpu": ("shuffle:1",)}


@contextmanager
def kernel_order(order: str) -> Iterator[None]:
    """The order in which blocks and warps run on the virtual GPU."""
    before = os.environ.get("VGPU_ORDER")
    os.environ["VGPU_ORDER"] = order
    try:
        yield
    finally:
        del os.environ["VGPU_ORDER"]
        if before is not None:
            os.environ["VGPU_ORDER"] = before


def unaligned(backend: Any, array: np.ndarray) -> Any:
    """The array on the backend, starting one element past an aligned address."""
    buffer = backend.asarray(np.concatenate([array.ravel()[:1], array.ravel()]))
    return buffer[1:].reshape(array.shape)


def state_of(backend: Any, aborted: int = 0, seed: int = 0, step: int = 0, **rates: float) -> Any:
    """The state of a step as the operations read it; rates: lr, momentum, weight_decay."""
    state = StepState([backend])
    given = tuple(rates.get(name, 0.0) for name in ("lr", "momentum", "weight_decay"))
    state.write(seed, step, given)
    backend.put(state.aborted_on(backend), np.array([aborted], np.uint32))
    return state.on(backend)


# The relative error of a result, and the least: a device that claims TF32 must not do something
# else. GPU literature and the virtual GPU agree on 2.9e-4 and 2.3e-3 for normally distributed
# numbers.
REDUCED_ERRORS = {"tf32": (2.6e-4, 3.4e-4), "bf16": (2.0e-3, 2.8e-3)}


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Of a whole result: its distance in the L2 norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def same_bits_on_any_threads(backend, function, *args, **kwargs):
    """`call`, and once more on one and on three threads."""
    result = call(backend, function, *args, **kwargs)
    for count in (1, 3):
        with threads(backend, count):
            again = function(*args, **kwargs)
        pairs = zip(result, again, strict=True) if isinstance(result, tuple) else [(result, again)]
        for first, second in pairs:
            if first is not None:
                same_bits(second, first)
    return result
