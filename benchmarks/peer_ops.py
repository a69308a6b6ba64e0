"""The same pieces of work in PyTorch, in its two memory layouts: a peer, never a dependency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peer_torch import set_precision
from torch.nn import functional
from work import Ready, Work

from convnet.backend import Backend

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def describe(backend: Backend) -> str:
    """What it is; also makes it use the same device and threads."""
    if backend.name == "cuda":
        torch.backends.cudnn.benchmark = True
        return f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    torch.set_num_threads(backend.module.thread_count())
    return f"PyTorch {torch.__version__}, oneDNN {torch.backends.mkldnn.is_available()}"


def contenders(work: Work, ready: Ready) -> dict[str, Callable[[], object]]:
    """The work in each layout, computing on the same numbers, in the work's precision, which holds
    until the next call of this. On a GPU they return before it is done: see `finish`."""
    set_precision(work.precision)
    makers = {"conv": _conv, "dense": _dense, "lrn": _lrn, "maxpool": _maxpool}
    make = (makers | {"lrn_maxpool": _lrn_maxpool})[work.kind]
    layouts = LAYOUTS if work.kind != "dense" else {"NCHW": LAYOUTS["NCHW"]}
    return {f"PyTorch {name}": make(work, ready, layout) for name, layout in layouts.items()}


def finish() -> None:
    """Returns when PyTorch's device has done all it was given."""
    if _device() == "cuda":
        torch.cuda.synchronize()


def replayed(call: Callable[[], object], times: int) -> Callable[[], object]:
    """A turn of `times` calls as one CUDA graph; it ends when the device has done them.

    Raises:
        RuntimeError: they cannot be captured.
    """
    side = torch.cuda.Stream()  # graphs are captured on another stream; once there before it
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for _ in range(times):
            call()

    def turn() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return turn


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def tensor(array: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    """An NHWC (or KRSC) array as a tensor of logical shape NCHW."""
    moved = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
    return moved.to(device=_device(), memory_format=layout)


def _conv(work: Work, ready: Ready, layout: torch.memory_format) -> Callable[[], object]:
    x, w, dy = (tensor(ready.inputs[name], layout) for name in ("x", "w", "dy"))
    b = torch.from_numpy(ready.inputs["b"]).to(_device())
    if work.precision == "bf16":  # which PyTorch also stores in 16 bits
        x, w, dy, b = (value.bfloat16() for value in (x, w, dy, b))
    stride, pad = (list(work.options[key]) for key in ("stride", "pad"))
    groups = work.options["groups"]
    # What `ceil` adds on the right and the bottom is there before the clock starts.
    bottom, right = (
        (y - 1) * step + size - length - 2 * margin
        for y, step, size, length, margin in zip(
            dy.shape[2:], stride, w.shape[2:], x.shape[2:], pad, strict=True
        )
    )
    if bottom > 0 or right > 0:
        x = functional.pad(x, (0, max(0, right), 0, max(0, bottom)))
        x = x.contiguous(memory_format=layout)
    if work.step == "fprop":
        return lambda: functional.conv2d(x, w, b, stride, pad, 1, groups)
    wanted = [work.step == "dgrad", work.step == "wgrad", work.step == "wgrad"]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(
        dy, x, w, [w.shape[0]], stride, pad, [1, 1], False, [0, 0], groups, wanted
    )


def _dense(work: Work, ready: Ready, layout: torch.memory_format) -> Callable[[], object]:
    x, w, b, dy = (torch.from_numpy(ready.inputs[n]).to(_device()) for n in ("x", "w", "b", "dy"))
    if work.precision == "bf16":
        x, w, b, dy = (value.bfloat16() for value in (x, w, b, dy))
    if work.step == "fprop":
        return lambda: functional.linear(x, w, b)
    if work.step == "dgrad":
        return lambda: dy @ w
    return lambda: (dy.T @ x, dy.sum(0))


def _lrn(work: Work, ready: Ready, layout: torch.memory_format) -> Callable[[], object]:
    options, groups = work.options, work.options["groups"]
    x, dy = ready.inputs["x"], ready.inputs["dy"]
    n, h, w, c = x.shape
    # PyTorch knows no groups. Either layout can show each group as an image of its own for free.
    if layout is torch.channels_last:
        views = [array.reshape(n, h, w * groups, c // groups) for array in (x, dy)]
    else:
        views = [
            array.reshape(n, h, w, groups, c // groups)
            .transpose(0, 3, 1, 2, 4)
            .reshape(n * groups, h, w, c // groups)
            for array in (x, dy)
        ]
    image, gradient = (tensor(view, layout) for view in views)
    # PyTorch divides alpha by n.
    alpha = options["alpha"] * (options["n"] if options["alpha_mode"] == "sum" else 1)
    args = (options["n"], alpha, options["beta"], options["k"])
    return _passes(
        work, image, gradient, lambda value: functional.local_response_norm(value, *args)
    )


def _maxpool(work: Work, ready: Ready, layout: torch.memory_format) -> Callable[[], object]:
    image, gradient = (tensor(ready.inputs[name], layout) for name in ("x", "dy"))
    o = work.options
    args = {"kernel_size": o["size"], "stride": o["stride"], "padding": o["pad"]}
    return _passes(
        work,
        image,
        gradient,
        lambda value: functional.max_pool2d(value, **args, ceil_mode=o["ceil"]),
    )


def _lrn_maxpool(work: Work, ready: Ready, layout: torch.memory_format) -> Callable[[], object]:
    """ReLU, LRN without groups (a little less work) and pool, as the layers of a net."""
    image, gradient = (tensor(ready.inputs[name], layout) for name in ("x", "dy"))
    o = work.options
    alpha = o["alpha"] * (o["n"] if o["alpha_mode"] == "sum" else 1)
    norm = (o["n"], alpha, o["beta"], o["k"])
    pool = {"kernel_size": o["size"], "stride": o["stride"], "padding": o["pad"]}

    def layers(value: torch.Tensor) -> torch.Tensor:
        if work.step == "bprop":
            value = functional.relu(value)
        value = functional.local_response_norm(value, *norm)
        return functional.max_pool2d(value, **pool, ceil_mode=o["ceil"])

    return _passes(work, image, gradient, layers)


def _passes(
    work: Work,
    x: torch.Tensor,
    dy: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[], Any]:
    """Forward as in training (what backward needs is kept), or backward alone."""
    leaf = x.requires_grad_()
    if work.step == "fprop":
        return lambda: function(leaf)
    y = function(leaf)
    return lambda: torch.autograd.grad(y, leaf, dy, retain_graph=True)
