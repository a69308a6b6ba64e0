"""The update of dense weights where their gradient is computed.

In the paper's net 58.6 of 61 million parameters are weights of dense layers. Their gradients are as
large as they are, and are read once, by the update. `ops.dense_wgrad_sgd` leaves them in registers
(on the CPU, in the cache) and updates w there; the bits are the same. A training step does so where
nothing else can want the gradient; see `updatable`. Biases are updated with the rest, by `SGD`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convnet.layer import Parameter
from convnet.layers.dense import Dense
from convnet.sgd import SGD

if TYPE_CHECKING:
    from convnet.passes import Passes


def updatable(net: Passes) -> list[Dense]:
    """The dense layers whose weights a training step may update in its backward pass.

    None where `Net.fuse_update` is off or the net runs every layer by itself (`fuse=False`), where
    gradients are summed over processes, and in a net over two devices, whose update must wait until
    all that travels has been found whole. Not layers that share their weights or are frozen, nor
    weights with a learning rate or a momentum of their own, nor subclasses, which may do anything.
    """
    if not net.fuse_update or net.partition is not None or net.gradient_ready is not None:
        return []
    layers = [node.layer for node in net.running()]
    users = Counter(id(param) for layer in layers for param in layer.params)
    return [
        layer
        for layer in layers
        if type(layer) is Dense and users[id(layer.w)] == 1 and _plain(layer.w)
    ]


def _plain(w: Parameter) -> bool:
    return w.lr_mult != 0.0 and w.rates.lr is None and w.rates.momentum is None


def is_usual(sgd: SGD) -> bool:
    """Whether an optimiser updates as `SGD` does, and not by a rule of its own."""
    return type(sgd).update is SGD.update


@contextmanager
def during(net: Passes, sgd: SGD) -> Iterator[list[Parameter]]:
    """Within the block, the backward pass of a net updates what it may of what `sgd` updates.

    Yields: the weights that it updates, which are not to be updated again.
    """
    numbers = {id(param): place + 1 for place, param in enumerate(sgd.params)}
    usual = is_usual(sgd)  # another rule wants the gradients
    layers = [layer for layer in updatable(net) if usual and id(layer.w) in numbers]
    for layer in layers:
        layer._update = *sgd.rates, numbers[id(layer.w)]
    try:
        yield [layer.w for layer in layers]
    finally:
        for layer in layers:
            layer._update = None
