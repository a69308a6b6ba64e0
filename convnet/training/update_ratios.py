"""How large the updates of a net's layers are beside their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from convnet import backend as backends
from convnet.layers.layer import Array
from convnet.nn.net import Net

_CHUNK = 1 << 20  # numbers squared at a time: little memory beside that of a large layer


def update_ratios(net: Net) -> dict[str, float]:
    """The norm of the last update of each layer's weights, over the norm of the weights.

    The update is the velocity, as w <- w + v. About 1e-3 is usual; far more is a sign of a learning
    rate that is too large, far less of one that is too small. Layers that do not learn, or have
    not yet, are left out; so are those whose weights are all zero. The parts of a layer on two
    devices count as one.

    Returns: by the name of the layer, in the order of the net.
    """
    found = {}
    for node in net.nodes:
        if node.share is not None or not node.layer.params:
            continue
        parts = net.parts_of(node.layer.params[0])
        if all(part.has_velocity and part.lr_mult != 0.0 for part in parts):
            size = _norm([part.data for part in parts])
            if size > 0.0:
                found[node.name] = _norm([part.velocity for part in parts]) / size
    return found


def _norm(arrays: Sequence[Array]) -> float:
    """The Euclidean norm of all together, summed in float64 and in a fixed order."""
    total = 0.0
    for array in arrays:
        device, flat = backends.of(array), array.reshape(-1)
        with device.active():
            for start in range(0, flat.size, _CHUNK):
                square = device.xp.square(flat[start : start + _CHUNK])
                total += float(square.sum(dtype=np.float64))
    return math.sqrt(total)
