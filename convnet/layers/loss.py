"""What training minimises: the base, and the softmax."""

from __future__ import annotations

import numpy as np

from convnet import ops
from convnet.common.checks import check_float
from convnet.layers.layer import Array, Layer, Shape

UNRANKED = 2**31 - 1  # the rank of a label that no loss compared with anything: never right


class Loss(Layer):
    """Base of the losses.

    In training a net calls `loss` instead of `fprop`, and never `bprop`. It may have several; it
    minimises the sum of coeff times the mean of each.

    Args:
        coeff: weight of this loss in that sum.
    """

    classifies = True  # its input has one number for each class, and it compares it with labels

    def __init__(self, coeff: float = 1.0) -> None:
        super().__init__()
        self.coeff = check_float("coeff", coeff)

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        """The loss of each sample, not weighted, and its gradient.

        Args:
            x: [N, classes].
            labels: int32 [N].
            scale: multiplies the gradient, `coeff` included: coeff / N for the mean of a batch.
            gradient: whether dx is wanted.

        Returns: loss float32 [N]; rank int32 [N] of the label, 0 if it scores highest, or None
        where the loss does not classify; dx [N, classes], or None.
        """
        raise NotImplementedError


class SoftmaxCrossEntropy(Loss):
    """Softmax, and the cross-entropy (natural logarithm) between it and the labels.

    fprop gives the probabilities. Source: paper, sections 3.5 and 5.
    """

    traced = True

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if len(in_shape) != 1:
            raise ValueError(
                f"a softmax expects one score for each class, shape (classes,), got {in_shape}; "
                "put a dense or flatten layer before it"
            )
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return ops.softmax_fprop(x), None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        each, dx, rank = ops.softmax_xent(x, labels, scale=scale, dlogits=gradient)
        return each, rank, dx

    def describe(self) -> str:
        weight = f" x {self.coeff:g}" if self.coeff != 1.0 else ""
        return f"softmax, cross-entropy{weight}"
