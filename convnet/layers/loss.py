"""Losses, and the softmax as a layer within a net.

Losses besides the softmax have no kernels of their own; what the contract's operations do not do is
done by the array library (NumPy, CuPy).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convnet import backend, ops
from convnet.backend import Backend
from convnet.common.checks import check_bool, check_float
from convnet.layers.layer import Array, Gradients, Layer, Shape, scores_shape

UNRANKED = 2**31 - 1  # the rank of a label that no loss compared with anything: never right


class Loss(Layer):
    """Base of the losses.

    In training a net calls `loss` instead of `fprop`, and never `bprop`. It may have several; it
    minimises the sum of coeff times the mean of each.

    Args:
        coeff: weight of this loss in that sum.

    Attributes:
        classifies: its input has one score for each class, which it compares with labels.
        text: what `describe` calls it.
    """

    classifies = True
    text = ""

    def __init__(self, coeff: float = 1.0) -> None:
        super().__init__()
        self.coeff = check_float("coeff", coeff)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = scores_shape(in_shape, self.text) if self.classifies else in_shape
        return self._sized(shape, shape)

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return x, None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        """The loss of each sample, without `coeff`, and its gradient.

        Args:
            x: [N, classes].
            labels: int32 [N].
            scale: multiplies the gradient, `coeff` included: coeff / N for the mean of a batch.
            gradient: whether dx is wanted.

        Returns: loss float32 [N]; rank int32 [N] of the label, 0 if it scores highest, or None
        where the loss does not classify; dx [N, classes], or None.
        """
        raise NotImplementedError

    def in_test_mode(self) -> Loss:
        """The loss that evaluation measures, which may know of fewer things than training."""
        return self

    def describe(self) -> str:
        return self.text + (f" x {self.coeff:g}" if self.coeff != 1.0 else "")


class SoftmaxCrossEntropy(Loss):
    """Softmax, and the cross-entropy (natural logarithm) between it and the labels.

        loss = -weight_l log(e^x_l / sum_k e^x_k),    l the label

    fprop gives the probabilities, in float32.

    Args:
        coeff: weight of this loss among those of the net.
        class_weights: of the samples of each class in training, 0 or more; evaluation measures the
            loss without them. None: 1 for all.

    Raises: ValueError: weights that are no numbers from 0 on, or not one for each class.

    Source: paper, sections 3.5 and 5.
    """

    traced = True
    text = "softmax, cross-entropy"

    def __init__(self, coeff: float = 1.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(coeff)
        self._class_weights: tuple[float, ...] | None = None
        self._on_devices: dict[tuple[str, int], Array] = {}
        self.class_weights = class_weights

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weights; a net that is there may be given others."""
        return self._class_weights

    @class_weights.setter
    def class_weights(self, weights: Sequence[float] | None) -> None:
        self._class_weights = None
        if weights is not None:
            self._class_weights = tuple(check_float("class_weights", w, 0.0) for w in weights)
        self._on_devices.clear()
        self._check_count(self.in_shape)

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = super().setup(in_shape, rng)
        self._check_count(shape)
        return shape

    def _check_count(self, shape: Shape) -> None:
        count = None if self.class_weights is None else len(self.class_weights)
        if count is not None and shape and (count,) != shape:
            raise ValueError(
                f"class_weights: expected one for each of {shape[0]} classes, got {count}"
            )

    def in_test_mode(self) -> Loss:
        return self if self.class_weights is None else SoftmaxCrossEntropy(self.coeff)

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return ops.softmax_fprop(ops.convert(x, "float32")), None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        weights = self._weights_on(backend.of(x).real)
        each, dx, rank = ops.softmax_xent(x, labels, weights=weights, scale=scale, dlogits=gradient)
        return each, rank, dx

    def _weights_on(self, device: Backend) -> Array | None:
        """The weights in the memory of a device, where they lie once."""
        if self.class_weights is None:
            return None
        key = device.name, device.index
        if key not in self._on_devices:
            self._on_devices[key] = device.asarray(np.array(self.class_weights, np.float32))
        return self._on_devices[key]


class SumSquares(Loss):
    """The sum of the squares of a sample's numbers; labels do not matter.

    For auto-encoders it comes after a `sum` with coeffs = [1, -1].

    Args:
        coeff: weight of this loss among those of the net.

    Source: cuda-convnet's `cost.sum2`.
    """

    classifies = False
    text = "sum of squares"

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        squares = (x * x).reshape(x.shape[0], -1)
        each = squares.sum(axis=1, dtype=np.float64).astype(np.float32)
        dx = ops.activation_fprop("affine", x, 2.0 * scale, 0.0) if gradient else None
        return each, None, dx


class BinaryCrossEntropy(Loss):
    """One yes or no for each class: the sum of the cross-entropies between q and the label.

        loss = -pos_weight log q_l - sum_{k != l} log(1 - q_k),    q_k = 1 / (1 + e^-x_k)

    fprop gives q.

    Args:
        coeff: weight of this loss among those of the net.
        pos_weight: multiplies the term of the right class l; 0 or more.
        scores: x are scores, of which the sigmoid is taken here; false: they are q already, and are
            kept 1e-7 away from 0 and 1.

    Source: cuda-convnet's `cost.bce` and `cost.dce`.
    """

    text = "binary cross-entropy"

    def __init__(self, coeff: float = 1.0, pos_weight: float = 1.0, scores: bool = True) -> None:
        super().__init__(coeff)
        self.pos_weight = check_float("pos_weight", pos_weight, 0.0)
        self.scores = check_bool("scores", scores)

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return ops.sigmoid_fprop(x) if self.scores else x, None

    def loss(
        self, x: Array, labels: Array, scale: float, gradient: bool
    ) -> tuple[Array, Array | None, Array | None]:
        xp, count = backend.of(x).xp, x.shape[0]
        _, _, rank = ops.softmax_xent(x, labels, dlogits=False)
        right = (xp.arange(count), labels)
        if self.scores:
            terms = x.copy()
            terms[right] = -x[right]
            terms = ops.softplus_fprop(terms)  # -log q of the right class, -log(1 - q) of others
            dx = ops.sigmoid_fprop(x)
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


class Softmax(Layer):
    """y_k = e^x_k / sum_j e^x_j, which other layers may read."""

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        return super().setup(scores_shape(in_shape, "a softmax"), rng)

    def fprop(self, x: Array, train: bool) -> tuple[Array, Array]:
        y = ops.softmax_fprop(x)
        return y, y

    def bprop(self, saved: Array, dy: Array) -> tuple[Array, Gradients]:
        total = (dy * saved).sum(axis=1, keepdims=True)
        return (dy - total) * saved, []
