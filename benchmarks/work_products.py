"""Convolutions and dense layers as pieces of work, checked against sums in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from work import Ready, Work, placed

from convnet import ops
from convnet.backend import Backend
from convnet.common.dtypes import stored_type

SAMPLES = 64  # results compared with float64
# How far a result may be off, as a share of the sum of its absolute terms. Operands are rounded to
# 11 bits with TF32 and 8 with bfloat16.
ALLOWED = {"fp32": 1e-5, "ffma": 1e-5, "tf32": 1e-3, "bf16": 1e-2}
RESULT = {"fprop": "y", "dgrad": "x", "wgrad": "w"}  # the shape of a pass's result

Shapes = dict[str, tuple[int, ...]]


def product_works(
    backend: Backend,
    name: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    first: bool,
    precisions: Sequence[str],
) -> list[Work]:
    """The passes of a convolution, or without options of a dense layer, in each of these modes.

    Args:
        first: whether it is the net's first layer, which needs no dgrad.
    """
    kind = "conv" if options else "dense"
    if options:
        y_shape = ops.conv_output_shape(x_shape, w_shape, **options)
    else:
        y_shape = (x_shape[0], w_shape[0])
    macs = np.prod(y_shape, dtype=np.float64) * np.prod(w_shape[1:])
    activations = sum(np.prod(shape, dtype=np.float64) for shape in (x_shape, y_shape))
    weights = 4 * np.prod(w_shape, dtype=np.float64)
    shapes = {"x": x_shape, "w": w_shape, "y": y_shape}
    text = f"{'x'.join(map(str, x_shape))} * {'x'.join(map(str, w_shape))}"
    if options:
        text += f" /{options['stride'][0]}" * (options["stride"][0] > 1)
        text += f" g{options['groups']}" * (options["groups"] > 1)

    def prepare(step: str, precision: str) -> Callable[[], Ready]:
        return lambda: _ready(backend, kind, step, shapes, options, precision)

    def work(step: str, precision: str) -> Work:
        dtype = stored(precision)
        size = weights + activations * stored_type(dtype).itemsize
        ready = prepare(step, precision)
        return Work(
            name, kind, step, text, 2 * macs, size, ready, shapes, options, precision, dtype
        )

    return [
        work(step, precision)
        for step in ("fprop", "dgrad", "wgrad")
        if not (first and step == "dgrad")
        for precision in precisions
    ]


def stored(precision: str) -> str:
    """The type of activations, as in a net of this precision."""
    return "bfloat16" if precision == "bf16" else "float32"


@functools.lru_cache(maxsize=1)  # the passes and modes of a layer come one after the other
def _numbers(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes}


def _ready(
    backend: Backend, kind: str, step: str, shapes: Shapes, options: dict[str, Any], precision: str
) -> Ready:
    host = _numbers((*shapes.items(), ("b", shapes["w"][:1])))
    dtype = stored_type(stored(precision))
    x, dy = (placed(backend, host[name].astype(dtype, copy=False)) for name in ("x", "y"))
    w, b = (placed(backend, host[name]) for name in ("w", "b"))
    call = getattr(ops, f"{kind}_{step}")
    of_w = RESULT[step] == "w"
    result: Any = backend.empty(shapes[RESULT[step]], np.float32 if of_w else dtype)
    out: Any = result
    if step == "fprop":
        args: tuple[Any, ...] = (x, w, b)
    elif step == "dgrad":
        args = (dy, w, shapes["x"]) if kind == "conv" else (dy, w)
    else:
        args = (x, dy, shapes["w"]) if kind == "conv" else (x, dy)
        out = (result, backend.empty(shapes["w"][:1]))

    def queue() -> None:
        call(*args, out=out, precision=precision, **options)

    sample = functools.cache(lambda: _sample(step, host, options))

    def check() -> float:
        queue()
        places, expected, sizes = sample()
        found = backend.to_host(result.reshape(-1)[backend.asarray(places)])
        worst = float((np.abs(found.astype(np.float64) - expected) / sizes).max())
        if not worst < ALLOWED[precision]:
            raise SystemExit(f"{step} ({precision}) is wrong by {worst:.1e}; nothing was timed")
        return worst

    return Ready(queue, backend.synchronize, check, {**host, "dy": host["y"]})


def _sample(
    step: str, host: dict[str, np.ndarray], options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some results: where they lie, what they are in float64, and the sum of the absolute values
    of exactly the terms that belong to each."""
    # A dense layer is a convolution of one pixel.
    arrays = {
        name: array.reshape(len(array), 1, 1, -1) if array.ndim == 2 else array
        for name, array in host.items()
    }
    options = options or {"stride": (1, 1), "pad": (0, 0), "groups": 1}
    shape = arrays[RESULT[step]].shape
    rng = np.random.default_rng(1)
    places, expected, sizes = [], [], []
    for _ in range(SAMPLES):
        place = tuple(int(rng.integers(size)) for size in shape)
        left, right = _terms(step, place, arrays, options)
        products = left.astype(np.float64).ravel() * right.astype(np.float64).ravel()
        bias = float(host["b"][place[3]]) if step == "fprop" else 0.0
        places.append(np.ravel_multi_index(place, shape))
        expected.append(products.sum() + bias)
        sizes.append(max(np.abs(products).sum() + abs(bias), 1e-30))
    return np.array(places), np.array(expected), np.array(sizes)


def _terms(
    step: str, place: tuple[int, ...], host: dict[str, np.ndarray], options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """The two factors of every term of one result, straight from the definition."""
    x, w, dy = host["x"], host["w"], host["y"]
    (stride_h, stride_w), (pad_h, pad_w) = options["stride"], options["pad"]
    height, width = x.shape[1:3]
    filters, size_h, size_w, depth = w.shape
    per_group = filters // options["groups"]
    if step == "fprop":
        n, p, q, k = place
        top, left = p * stride_h - pad_h, q * stride_w - pad_w
        rows = slice(max(0, -top), max(0, -top, min(size_h, height - top)))
        cols = slice(max(0, -left), max(0, -left, min(size_w, width - left)))
        first = k // per_group * depth
        window = x[n, rows.start + top : rows.stop + top, cols.start + left : cols.stop + left]
        return window[:, :, first : first + depth], w[k, rows, cols]
    if step == "wgrad":
        k, r, s, c = place
        channel = k // per_group * depth + c
        p, h = _inside(dy.shape[1], stride_h, r - pad_h, height)
        q, v = _inside(dy.shape[2], stride_w, s - pad_w, width)
        return x[:, h, v, channel], dy[:, p, q, k]
    n, h, v, channel = place
    group, c = divmod(channel, depth)
    lefts, rights = [], []
    of_group = slice(group * per_group, (group + 1) * per_group)
    for r in range(size_h):
        for s in range(size_w):
            p, over_p = divmod(h + pad_h - r, stride_h)
            q, over_q = divmod(v + pad_w - s, stride_w)
            if over_p or over_q or not (0 <= p < dy.shape[1] and 0 <= q < dy.shape[2]):
                continue
            lefts.append(dy[n, p, q, of_group])
            rights.append(w[of_group, r, s, c])
    empty = np.zeros(1)
    return (np.concatenate(lefts), np.concatenate(rights)) if lefts else (empty, empty)


def _inside(outputs: int, stride: int, first: int, size: int) -> tuple[slice, slice]:
    """The outputs i for which first + i stride lies on a line of `size` pixels, and those pixels;
    neither where there are none."""
    low = max(0, -(first // stride))
    high = min(outputs, (size - 1 - first) // stride + 1)
    high = max(low, high)
    begin = first + low * stride
    return slice(low, high), slice(begin, begin + (high - low) * stride, stride)
