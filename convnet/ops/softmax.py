"""Softmax, and softmax with cross-entropy."""

from __future__ import annotations

import numpy as np

from convnet.backend import Array
from convnet.ops.arguments import backend_of, dims_of, outputs, real_of


def softmax_fprop(logits: Array, *, out: Array | None = None) -> Array:
    """Softmax over the classes of logits [N, classes] (paper, section 3.5)."""
    op = "softmax_fprop"
    be = backend_of(op, logits=logits, out=out)
    if out is None:
        out = be.empty(dims_of(op, "logits", logits))
    be.module.softmax_fprop(logits, out, be.stream())
    return out


def softmax_xent(
    logits: Array,
    labels: Array,
    *,
    scale: float | None = None,
    dlogits: bool = True,
    out: tuple[Array, Array | None, Array] | None = None,
) -> tuple[Array, Array | None, Array]:
    """Softmax with cross-entropy: the multinomial logistic regression objective of the paper.

    Args:
        logits: [N, classes].
        labels: [N] int32, each in 0 .. classes - 1. On a GPU, where reading them would stall, a
            label out of range gives NaN and not an error.
        scale: factor on dlogits; 1/N by default, the gradient of the mean loss.
        dlogits: whether the gradient is wanted.
        out: (loss, dlogits or None, rank).

    Returns:
        loss [N] in nats; dlogits [N, classes] or None; rank [N] int32, how many classes score above
        the right one (equals count when they come first): top-k is right where rank < k.
    """
    op = "softmax_xent"
    loss, gradient, rank = outputs(op, out, 3)
    be = backend_of(op, logits=logits, labels=labels, loss=loss, dlogits=gradient, rank=rank)
    shape = dims_of(op, "logits", logits, 2)
    if scale is None:
        scale = 1.0 / max(shape[0], 1)
    scale = real_of(op, "scale", scale)
    if out is None:
        loss, rank = be.empty(shape[:1]), be.empty(shape[:1], np.int32)
        gradient = be.empty(shape) if dlogits else None
    be.module.softmax_xent(logits, labels, loss, gradient, rank, scale, be.stream())
    return loss, gradient, rank
