"""What the convolutions of a net cost, counted: `convnet bench conv --counters`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from convnet import backend as backends
from convnet import layers, ops
from convnet.backend import Backend
from convnet.config import Config
from convnet.counters.counts import counted
from convnet.counters.report import Report
from convnet.layers.graph import INPUT, input_names
from convnet.training.nets import build_net

PASSES = ("fprop", "dgrad", "wgrad")


def count_convs(
    cfg: Config,
    image: tuple[int, int, int],
    batch: int,
    precision: str,
    passes: Sequence[str],
    report: Report,
) -> None:
    """Counts each pass of each convolution of a net, once, on arrays of zeros.

    Args:
        image: height, width and channels of the net's input.
        batch: images.
        precision: as for `convnet.ops.conv_fprop`.
        passes: some of `PASSES`; the first layer has no dgrad, as in training.
        report: takes the counters of each.

    Raises:
        DeviceError: this installation has no virtual GPU.
    """
    backend = backends.get("vgpu")
    with backends.use(backend):
        for name, sizes, options, first in _convs(cfg, image, batch):
            for step in passes:
                if first and step == "dgrad":
                    continue
                call = _prepared(backend, step, sizes, options | {"precision": precision})
                with counted(backend.module) as kernels:
                    call()
                report.add(f"{name} {step}", kernels, precision=precision, shapes=sizes)


def _convs(
    cfg: Config, image: tuple[int, int, int], batch: int
) -> Iterator[tuple[str, dict[str, tuple[int, ...]], dict[str, Any], bool]]:
    """Of each convolution: its name, shapes of x, w and y, its options, whether it is the first."""
    net = build_net(cfg, image, 1000, "cpu")
    for node in net.nodes:
        layer, above = node.layer, input_names(node)[0]
        if not isinstance(layer, layers.Conv):
            continue
        x = (batch, *(net.in_shape if above == INPUT else net.shapes[above]))
        options = {name: getattr(layer, name) for name in ("stride", "pad", "groups", "rounding")}
        y = ops.conv_output_shape(x, layer.w.shape, **options)
        yield node.name, {"x": x, "w": layer.w.shape, "y": y}, options, above == INPUT


def _prepared(
    backend: Backend, step: str, sizes: dict[str, tuple[int, ...]], options: dict[str, Any]
) -> Any:
    """The call of a pass, with its arrays in place. They begin at cache lines, as on a GPU: the
    sectors that are touched depend on it."""
    x, w, y = (backend.zeros(sizes[name]) for name in ("x", "w", "y"))
    b = backend.zeros(sizes["w"][:1])
    if step == "fprop":
        return lambda: ops.conv_fprop(x, w, b, out=y, **options)
    if step == "dgrad":
        return lambda: ops.conv_dgrad(y, w, sizes["x"], out=x, **options)
    return lambda: ops.conv_wgrad(x, y, sizes["w"], out=(w, b), **options)
