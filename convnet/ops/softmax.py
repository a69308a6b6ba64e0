"""Softmax, and softmax with cross-entropy."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.call import call, outputs


def softmax_fprop(logits: Array, *, out: Array | None = None) -> Array:
    """Softmax over the classes (paper, section 3.5).

    Args:
        logits: [N, classes].
        out: [N, classes], another array.

    Returns:
        Probabilities [N, classes].
    """
    return call("softmax_fprop", logits, out)


def softmax_xent(
    logits: Array,
    labels: Array,
    *,
    weights: Array | None = None,
    scale: float | None = None,
    dlogits: bool = True,
    out: tuple[Array, Array | None, Array] | None = None,
) -> tuple[Array, Array | None, Array]:
    """Softmax with cross-entropy: the multinomial logistic regression objective of the paper.

    Args:
        logits: [N, classes].
        labels: [N] int32, each in 0 .. classes - 1. On a GPU, where reading them would stall, a
            label out of range gives NaN and not an error.
        weights: [classes] float32; loss and gradient of a sample are multiplied by that of its
            label. None: by 1.
        scale: factor on dlogits; 1/N by default, the gradient of the mean loss.
        dlogits: whether the gradient is wanted.
        out: (loss, dlogits or None, rank).

    Returns:
        loss [N] in nats; dlogits [N, classes] or None; rank [N] int32, how many classes score above
        the right one (equals count when they come first): top-k is right where rank < k.
    """
    loss, gradient, rank = outputs("softmax_xent", out, None, dlogits or None, None)
    return call("softmax_xent", logits, labels, weights, loss, gradient, rank, scale)
