"""Passes of layers as pieces of work: how much there is to do, how to do it, how to check it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from work import Work
from work_memory import lrn_maxpool_works, lrn_works, maxpool_works
from work_products import product_works

from convnet import layers
from convnet.backend import Backend
from convnet.layers.graph import INPUT, input_names
from convnet.nn.net import Net


def of_net(
    backend: Backend,
    net: Net,
    batch: int,
    kinds: Iterable[str],
    precisions: Sequence[str] = ("fp32",),
) -> list[Work]:
    """The work of a net's layers of these kinds, in order; products in each of these modes."""
    works: list[Work] = []
    norms: dict[str, layers.LRN] = {}
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
            works += product_works(
                backend, node.name, x_shape, layer.w.shape, options, first, precisions
            )
        elif isinstance(layer, layers.Dense) and "dense" in kinds:
            units, inputs = layer.w.shape
            shapes = (batch, inputs), (units, inputs)
            works += product_works(backend, node.name, *shapes, {}, first, precisions)
        elif isinstance(layer, layers.LRN):
            norms[node.name] = layer
            if "lrn" in kinds:
                works += lrn_works(backend, node.name, x_shape, layer)
        elif isinstance(layer, layers.MaxPool):
            if "maxpool" in kinds:
                works += maxpool_works(backend, node.name, x_shape, layer)
            if "lrn_maxpool" in kinds and above in norms:
                works += lrn_maxpool_works(backend, node.name, x_shape, norms[above], layer)
    return works


def of_shape(
    backend: Backend,
    sizes: tuple[int, ...],
    stride: int,
    pad: int,
    groups: int,
    precisions: Sequence[str] = ("fp32",),
) -> list[Work]:
    """The passes of one convolution; sizes N, H, W, C, K, R, S."""
    n, h, w, c, k, r, s = sizes
    options = {"stride": (stride,) * 2, "pad": (pad,) * 2, "groups": groups, "rounding": "floor"}
    return product_works(
        backend, "conv", (n, h, w, c), (k, r, s, c // groups), options, False, precisions
    )
