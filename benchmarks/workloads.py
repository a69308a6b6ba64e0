"""Passes of layers as pieces of work: how much there is to do, how to do it, how to check it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convnet import layers, ops
from convnet.backend import Backend
from convnet.graph import INPUT, input_names
from convnet.net import Net

SAMPLES = 64  # results compared with float64


@dataclass
class Ready:
    """Work whose arrays are in place.

    Attributes:
        run: does it once, and returns when it is done.
        check: the largest error of a sample of its results, as a share of the sum of the absolute
            values of their terms (the measure of the tests; one rounding is 6e-8).
        inputs: NumPy arrays by name, for peers.
    """

    run: Callable[[], object]
    check: Callable[[], float]
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Work:
    """One pass of one layer: `prepare` makes it ready; flops and bytes are the least it takes."""

    name: str
    kind: str  # conv, dense, lrn, maxpool, lrn_maxpool
    step: str  # fprop, dgrad, wgrad, bprop
    text: str
    flops: float
    bytes: float
    prepare: Callable[[], Ready]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    math: str = "fp32"


# How far a result may be off, as a share of the sum of its absolute terms. Operands are rounded to
# 11 bits with TF32 and 8 with bfloat16.
ALLOWED = {"fp32": 1e-5, "ffma": 1e-5, "tf32": 1e-3, "bf16": 1e-2}


def of_net(
    backend: Backend, net: Net, batch: int, kinds: Iterable[str], maths: Sequence[str] = ("fp32",)
) -> list[Work]:
    """The work of a net's layers of these kinds, in order; products in each of these modes."""
    works: list[Work] = []
    for node in net.nodes:
        layer, above = node.layer, input_names(node)[0]
        x_shape = (batch, *(net.in_shape if above == INPUT else net.shapes[above]))
        first = above == INPUT
        if isinstance(layer, layers.Conv) and "conv" in kinds:
            options = {
                "stride": layer.stride,
                "pad": layer.pad,
                "groups": layer.groups,
                "rounding": layer.rounding,
            }
            works += _conv(backend, node.name, x_shape, layer.w.shape, options, first, maths)
        elif isinstance(layer, layers.Dense) and "dense" in kinds:
            units, inputs = layer.w.shape
            shapes = (batch, inputs), (units, inputs)
            works += _conv(backend, node.name, *shapes, {}, first, maths)
        elif isinstance(layer, layers.LRN) and "lrn" in kinds:
            works += _lrn(backend, node.name, x_shape, layer)
        elif isinstance(layer, layers.MaxPool):
            if "maxpool" in kinds:
                works += _maxpool(backend, node.name, x_shape, layer)
            if "lrn_maxpool" in kinds and layer.norm is not None:
                works += _lrn_maxpool(backend, node.name, x_shape, layer)
    return works


def of_shape(
    backend: Backend,
    sizes: tuple[int, ...],
    stride: int,
    pad: int,
    groups: int,
    maths: Sequence[str] = ("fp32",),
) -> list[Work]:
    """The passes of one convolution; sizes N, H, W, C, K, R, S."""
    n, h, w, c, k, r, s = sizes
    options = {"stride": (stride,) * 2, "pad": (pad,) * 2, "groups": groups, "rounding": "floor"}
    return _conv(backend, "conv", (n, h, w, c), (k, r, s, c // groups), options, False, maths)


def _conv(
    backend: Backend,
    name: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    first: bool,
    maths: Sequence[str],
) -> list[Work]:
    """A convolution, or without options a dense layer."""
    kind = "conv" if options else "dense"
    if options:
        y_shape = ops.conv_output_shape(x_shape, w_shape, **options)
    else:
        y_shape = (x_shape[0], w_shape[0])
    macs = np.prod(y_shape, dtype=np.float64) * np.prod(w_shape[1:])
    floats = sum(np.prod(shape, dtype=np.float64) for shape in (x_shape, w_shape, y_shape))
    shapes = {"x": x_shape, "w": w_shape, "y": y_shape}
    text = f"{'x'.join(map(str, x_shape))} * {'x'.join(map(str, w_shape))}"
    if options:
        text += f" /{options['stride'][0]}" * (options["stride"][0] > 1)
        text += f" g{options['groups']}" * (options["groups"] > 1)

    def prepare(step: str, math: str) -> Callable[[], Ready]:
        return lambda: _ready_conv(backend, kind, step, shapes, options, math)

    sizes = text, 2 * macs, 4 * floats
    return [
        Work(name, kind, step, *sizes, prepare(step, math), shapes, options, math)
        for step in ("fprop", "dgrad", "wgrad")
        if not (first and step == "dgrad")
        for math in maths
    ]


def _ready_conv(
    backend: Backend,
    kind: str,
    step: str,
    shapes: dict[str, tuple[int, ...]],
    options: dict[str, Any],
    math: str,
) -> Ready:
    rng = np.random.default_rng(0)
    host = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in (*shapes.items(), ("b", shapes["w"][:1]))
    }
    x, w, b, dy = (backend.asarray(host[name]) for name in ("x", "w", "b", "y"))
    call = getattr(ops, f"{kind}_{step}")
    out: Any = backend.empty(shapes[{"fprop": "y", "dgrad": "x", "wgrad": "w"}[step]])
    if step == "fprop":
        args: tuple[Any, ...] = (x, w, b)
    elif step == "dgrad":
        args = (dy, w, shapes["x"]) if kind == "conv" else (dy, w)
    else:
        args = (x, dy, shapes["w"]) if kind == "conv" else (x, dy)
        out = (out, backend.empty(shapes["w"][:1]))

    def run() -> None:
        call(*args, out=out, math=math, **options)
        backend.synchronize()

    def check() -> float:
        run()
        result = backend.to_host(out[0] if step == "wgrad" else out)
        # A dense layer is a convolution of one pixel.
        one_pixel = {n: (s[0], 1, 1, s[1]) if len(s) == 2 else s for n, s in shapes.items()}
        views = {n: host[n].reshape(one_pixel[n]) for n in ("x", "w", "y")}
        window = options or {"stride": (1, 1), "pad": (0, 0), "groups": 1}
        shape = one_pixel[{"fprop": "y", "dgrad": "x", "wgrad": "w"}[step]]
        return _sampled_error(step, result.reshape(shape), views, host["b"], window, math)

    return Ready(run, check, {**host, "dy": host["y"]})


def _sampled_error(
    step: str,
    result: np.ndarray,
    host: dict[str, np.ndarray],
    bias: np.ndarray,
    options: dict[str, Any],
    math: str,
) -> float:
    """Compares some results with sums in float64 over exactly the terms that belong to them."""
    rng = np.random.default_rng(1)
    worst = 0.0
    for _ in range(SAMPLES):
        place = tuple(int(rng.integers(size)) for size in result.shape)
        left, right = _terms(step, place, host, options)
        products = left.astype(np.float64).ravel() * right.astype(np.float64).ravel()
        expected, size = products.sum(), np.abs(products).sum()
        if step == "fprop":
            expected, size = expected + bias[place[3]], size + abs(bias[place[3]])
        worst = max(worst, abs(float(result[place]) - expected) / max(size, 1e-30))
    if not worst < ALLOWED[math]:
        raise SystemExit(f"{step} ({math}) is wrong by {worst:.1e}; nothing was timed")
    return worst


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
        rows = np.arange(max(0, -top), min(size_h, height - top))
        cols = np.arange(max(0, -left), min(size_w, width - left))
        first = k // per_group * depth
        window = x[n][np.ix_(rows + top, cols + left)][:, :, first : first + depth]
        return window, w[k][np.ix_(rows, cols)]
    if step == "wgrad":
        k, r, s, c = place
        channel = k // per_group * depth + c
        rows = np.arange(dy.shape[1]) * stride_h - pad_h + r
        cols = np.arange(dy.shape[2]) * stride_w - pad_w + s
        inside_h, inside_w = (rows >= 0) & (rows < height), (cols >= 0) & (cols < width)
        values = x[:, rows[inside_h]][:, :, cols[inside_w], channel]
        return values, dy[:, inside_h][:, :, inside_w, k]
    n, h, v, channel = place
    group, c = divmod(channel, depth)
    lefts, rights = [], []
    of_group = slice(group * per_group, (group + 1) * per_group)
    for r in range(size_h):
        for s in range(size_w):
            (p, over_p), (q, over_q) = (
                divmod(h + pad_h - r, stride_h),
                divmod(v + pad_w - s, stride_w),
            )
            if over_p or over_q or not (0 <= p < dy.shape[1] and 0 <= q < dy.shape[2]):
                continue
            lefts.append(dy[n, p, q, of_group])
            rights.append(w[of_group, r, s, c])
    empty = np.zeros(1)
    return (np.concatenate(lefts), np.concatenate(rights)) if lefts else (empty, empty)


def _lrn(backend: Backend, name: str, x_shape: tuple[int, ...], layer: layers.LRN) -> list[Work]:
    options = {
        key: getattr(layer, key) for key in ("n", "k", "alpha", "beta", "groups", "alpha_mode")
    }

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            host = {key: rng.standard_normal(x_shape, dtype=np.float32) for key in ("x", "dy")}
            x, dy = (backend.asarray(host[key]) for key in ("x", "dy"))
            out = backend.empty(x_shape)

            def run() -> None:
                if step == "fprop":
                    ops.lrn_fprop(x, out=out, **options)
                else:
                    ops.lrn_bprop(x, dy, out=out, **options)
                backend.synchronize()

            return Ready(run, lambda: _lrn_error(run, backend, out, x, dy, step, options), host)

        return make

    floats = float(np.prod(x_shape))
    return [
        Work(name, "lrn", step, "x".join(map(str, x_shape)), 0.0, size, prepare(step), {}, options)
        for step, size in (("fprop", 8 * floats), ("bprop", 12 * floats))
    ]


def _lrn_error(
    run: Callable[[], object],
    backend: Backend,
    out: Any,
    x: Any,
    dy: Any,
    step: str,
    options: dict[str, Any],
) -> float:
    """The error of an LRN pass at the first pixels, against float64."""
    run()
    pixels, channels = 50, x.shape[3]
    flat_x, flat_dy, result = (
        backend.to_host(array.reshape(-1, channels)[:pixels]).astype(np.float64)
        for array in (x, dy, out)
    )
    depth, n = channels // options["groups"], options["n"]
    alpha = options["alpha"] / (n if options["alpha_mode"] == "mean" else 1)
    near = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(max(0, i - n // 2), min(channels, i - n // 2 + n)):
            near[i, j] = i // depth == j // depth
    scale = options["k"] + alpha * flat_x**2 @ near.T
    if step == "fprop":
        expected = flat_x * scale ** -options["beta"]
    else:
        inner = flat_dy * flat_x * scale ** (-options["beta"] - 1)
        expected = flat_dy * scale ** -options["beta"]
        expected -= 2 * alpha * options["beta"] * flat_x * (inner @ near)
    error = float(np.abs(result - expected).max() / np.abs(expected).max())
    if not error < 1e-5:
        raise SystemExit(f"lrn_{step} is wrong by {error:.1e}; nothing was timed")
    return error


def _maxpool(
    backend: Backend, name: str, x_shape: tuple[int, ...], layer: layers.MaxPool
) -> list[Work]:
    window = (layer.size, layer.stride, layer.pad, layer.rounding)

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            x_host = rng.standard_normal(x_shape, dtype=np.float32)
            x = backend.asarray(x_host)
            y, argmax = ops.maxpool_fprop(x, *window)
            dy_host = rng.standard_normal(y.shape, dtype=np.float32)
            dy, dx = backend.asarray(dy_host), backend.empty(x_shape)

            def run() -> None:
                if step == "fprop":
                    ops.maxpool_fprop(x, *window, out=(y, argmax))
                else:
                    ops.maxpool_bprop(dy, argmax, x_shape, *window, out=dx)
                backend.synchronize()

            def check() -> float:
                run()
                if step == "bprop":  # every dy goes to exactly one place
                    total = float(backend.to_host(dx).sum(dtype=np.float64))
                    error = abs(total - dy_host.sum(dtype=np.float64)) / np.abs(dy_host).sum()
                else:
                    size, stride = layer.size[0], layer.stride[0]
                    top = x_host[0, :size, :size].max((0, 1))
                    below = x_host[0, stride : stride + size, :size].max((0, 1))
                    got = backend.to_host(y)[0, :2, 0]
                    error = float(np.abs(got - np.stack([top, below])).max())
                if not error < 1e-5:
                    raise SystemExit(f"maxpool_{step} is wrong by {error:.1e}; nothing was timed")
                return float(error)

            return Ready(run, check, {"x": x_host, "dy": dy_host})

        return make

    shapes = {"x": x_shape, "y": (x_shape[0], *layer.out_shape)}
    options = {"size": layer.size, "stride": layer.stride, "pad": layer.pad}
    options["ceil"] = layer.rounding == "ceil"
    moved = 4.0 * np.prod(shapes["x"]) + 5.0 * np.prod(shapes["y"])
    text = f"{'x'.join(map(str, x_shape))} {layer.size[0]}/{layer.stride[0]}"
    return [
        Work(name, "maxpool", step, text, 0.0, moved, prepare(step), shapes, options)
        for step in ("fprop", "bprop")
    ]


def _lrn_maxpool(
    backend: Backend, name: str, x_shape: tuple[int, ...], layer: layers.MaxPool
) -> list[Work]:
    """LRN and the pool in one operation; backward with the mask of the ReLU below."""
    assert layer.norm is not None
    window = (layer.size, layer.stride, layer.pad, layer.rounding)
    terms = layer.norm.terms

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            x_host = np.maximum(rng.standard_normal(x_shape, dtype=np.float32), 0)
            x = backend.asarray(x_host)
            y, argmax = ops.lrn_maxpool_fprop(x, *window, **terms)
            dy_host = rng.standard_normal(y.shape, dtype=np.float32)
            dy, dx = backend.asarray(dy_host), backend.empty(x_shape)

            def run() -> None:
                if step == "fprop":
                    ops.lrn_maxpool_fprop(x, *window, **terms, out=(y, argmax))
                else:
                    ops.lrn_maxpool_bprop(x, dy, argmax, *window, **terms, relu_mask=True, out=dx)
                backend.synchronize()

            def check() -> float:
                """Against the operations one by one, which are checked in rows of their own."""
                run()
                z, winners = ops.maxpool_fprop(ops.lrn_fprop(x, **terms), *window)
                got, expected = y, z
                if step == "bprop":
                    dz = ops.maxpool_bprop(dy, winners, x_shape, *window)
                    got, expected = dx, ops.relu_bprop(x, ops.lrn_bprop(x, dz, **terms))
                error = float(np.abs(backend.to_host(got) - backend.to_host(expected)).max())
                if error != 0.0:
                    raise SystemExit(f"lrn_maxpool_{step} differs by {error:.1e}; nothing timed")
                return error

            return Ready(run, check, {"x": x_host, "dy": dy_host})

        return make

    shapes = {"x": x_shape, "y": (x_shape[0], *layer.out_shape)}
    options = {"size": layer.size, "stride": layer.stride, "pad": layer.pad, **terms}
    options["ceil"] = layer.rounding == "ceil"
    large, small = 4.0 * np.prod(x_shape), 5.0 * np.prod(shapes["y"])
    text = f"{'x'.join(map(str, x_shape))} lrn {layer.size[0]}/{layer.stride[0]}"
    return [
        Work(name, "lrn_maxpool", step, text, 0.0, moved, prepare(step), shapes, options)
        for step, moved in (("fprop", large + small), ("bprop", 2 * large + small))
    ]
