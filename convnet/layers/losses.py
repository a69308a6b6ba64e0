"""Losses besides the softmax: sums of squares, and a logistic unit for each class.

They have no kernels of their own; what the contract's operations do not do is done by the array
library (NumPy, CuPy).
"""

from __future__ import annotations

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_bool, check_float
from convnet.layers.layer import Array, Shape
from convnet.layers.loss import Loss


class SumSquares(Loss):
    """The sum of the squares of a sample's numbers; labels do not matter.

    For auto-encoders it comes after a `sum` with coeffs = [1, -1]. Source: cuda-convnet's
    `cost.sum2`.
    """

    classifies = False

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return x, None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        squares = (x * x).reshape(x.shape[0], -1)
        each = squares.sum(axis=1, dtype=np.float64).astype(np.float32)
        dx = ops.activation_fprop("linear", x, 2.0 * scale, 0.0) if gradient else None
        return each, None, dx

    def describe(self) -> str:
        return "sum of squares" + (f" x {self.coeff:g}" if self.coeff != 1.0 else "")


class BinaryCrossEntropy(Loss):
    """One yes or no for each class: the sum of the cross-entropies between q and the label.

        loss = -pos_weight log q_l - sum_{k != l} log(1 - q_k),    q_k = 1 / (1 + e^-x_k)

    fprop gives q.

    Args:
        coeff: weight of this loss among those of the net.
        pos_weight: multiplies the term of the right class l.
        scores: x are scores, of which the logistic function is taken here; false: they are q
            already, and are kept 1e-7 away from 0 and 1.

    Source: cuda-convnet's `cost.bce` and `cost.dce`.
    """

    def __init__(self, coeff: float = 1.0, pos_weight: float = 1.0, scores: bool = True) -> None:
        super().__init__(coeff)
        self.pos_weight = check_float("pos_weight", pos_weight, 0.0)
        self.scores = check_bool("scores", scores)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        if len(in_shape) != 1:
            raise ValueError(
                f"expected one number for each class, shape (classes,), got {in_shape}"
            )
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return ops.logistic_fprop(x) if self.scores else x, None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        xp, count = backend.of(x).xp, x.shape[0]
        _, _, rank = ops.softmax_xent(x, labels, dlogits=False)
        right = (xp.arange(count), labels)
        if self.scores:
            terms = x.copy()
            terms[right] = -x[right]
            terms = ops.softrelu_fprop(terms)  # -log q of the right class, -log(1 - q) of others
            dx = ops.logistic_fprop(x)
            dx[right] = np.float32(self.pos_weight) * (dx[right] - np.float32(1.0))
        else:
            terms = np.float32(1.0) - x
            terms[right] = x[right]
            terms = xp.clip(terms, np.float32(1e-7), np.float32(1.0))
            dx = np.float32(1.0) / terms
            dx[right] *= np.float32(-self.pos_weight)
            terms = -xp.log(terms)
        terms[right] *= np.float32(self.pos_weight)
        each = terms.sum(axis=1, dtype=np.float64).astype(np.float32)
        return each, rank, dx * np.float32(scale) if gradient else None

    def describe(self) -> str:
        return "binary cross-entropy" + (f" x {self.coeff:g}" if self.coeff != 1.0 else "")
