"""Layers that move memory as pieces of work: normalization, pools, and the two as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from work import Ready, Work, placed

from convnet import layers, ops
from convnet.backend import Backend


def lrn_works(
    backend: Backend, name: str, x_shape: tuple[int, ...], layer: layers.LRN
) -> list[Work]:
    options = {
        key: getattr(layer, key) for key in ("n", "k", "alpha", "beta", "groups", "alpha_mode")
    }

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            host = {key: rng.standard_normal(x_shape, dtype=np.float32) for key in ("x", "dy")}
            x, dy = (placed(backend, host[key]) for key in ("x", "dy"))
            out = backend.empty(x_shape)

            def queue() -> None:
                if step == "fprop":
                    ops.lrn_fprop(x, out=out, **options)
                else:
                    ops.lrn_bprop(x, dy, out=out, **options)

            return Ready(
                queue,
                backend.synchronize,
                lambda: _lrn_error(queue, backend, out, x, dy, step, options),
                host,
            )

        return make

    floats = float(np.prod(x_shape))
    return [
        Work(name, "lrn", step, "x".join(map(str, x_shape)), 0.0, size, prepare(step), {}, options)
        for step, size in (("fprop", 8 * floats), ("bprop", 12 * floats))
    ]


def _lrn_error(
    queue: Callable[[], object],
    backend: Backend,
    out: Any,
    x: Any,
    dy: Any,
    step: str,
    options: dict[str, Any],
) -> float:
    """The error of an LRN pass at the first pixels, against float64."""
    queue()
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


def maxpool_works(
    backend: Backend, name: str, x_shape: tuple[int, ...], layer: layers.MaxPool
) -> list[Work]:
    window = (layer.size, layer.stride, layer.pad, layer.rounding)

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            x_host = rng.standard_normal(x_shape, dtype=np.float32)
            x = placed(backend, x_host)
            y, argmax = ops.maxpool_fprop(x, *window)
            dy_host = rng.standard_normal(y.shape, dtype=np.float32)
            dy, dx = placed(backend, dy_host), backend.empty(x_shape)

            def queue() -> None:
                if step == "fprop":
                    ops.maxpool_fprop(x, *window, out=(y, argmax))
                else:
                    ops.maxpool_bprop(dy, argmax, x_shape, *window, out=dx)

            def check() -> float:
                queue()
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

            return Ready(queue, backend.synchronize, check, {"x": x_host, "dy": dy_host})

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


def lrn_maxpool_works(
    backend: Backend, name: str, x_shape: tuple[int, ...], norm: layers.LRN, layer: layers.MaxPool
) -> list[Work]:
    """LRN and the pool in one operation; backward with the mask of the ReLU below."""
    window = (layer.size, layer.stride, layer.pad, layer.rounding)
    terms = norm.terms

    def prepare(step: str) -> Callable[[], Ready]:
        def make() -> Ready:
            rng = np.random.default_rng(0)
            x_host = np.maximum(rng.standard_normal(x_shape, dtype=np.float32), 0)
            x = placed(backend, x_host)
            y, argmax = ops.lrn_maxpool_fprop(x, *window, **terms)
            dy_host = rng.standard_normal(y.shape, dtype=np.float32)
            dy, dx = placed(backend, dy_host), backend.empty(x_shape)

            def queue() -> None:
                if step == "fprop":
                    ops.lrn_maxpool_fprop(x, *window, **terms, out=(y, argmax))
                else:
                    ops.lrn_maxpool_bprop(x, dy, argmax, *window, **terms, relu_mask=True, out=dx)

            def check() -> float:
                """Against the operations one by one, which are checked in rows of their own."""
                queue()
                z, winners = ops.maxpool_fprop(ops.lrn_fprop(x, **terms), *window)
                got, expected = y, z
                if step == "bprop":
                    dz = ops.maxpool_bprop(dy, winners, x_shape, *window)
                    got, expected = dx, ops.relu_bprop(x, ops.lrn_bprop(x, dz, **terms))
                error = float(np.abs(backend.to_host(got) - backend.to_host(expected)).max())
                if error != 0.0:
                    raise SystemExit(f"lrn_maxpool_{step} differs by {error:.1e}; nothing timed")
                return error

            return Ready(queue, backend.synchronize, check, {"x": x_host, "dy": dy_host})

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
