"""Normalization by a neighbourhood in the same channel: response and contrast.

The window of pixel (h, w) is n x n, from (h - n/2, w - n/2) on, clipped to the image. Sums over it
are average pools of stride 1 times the number of pixels in the window; the rest is element by
element. The pools are kernels of the contract, what is between them is done by the array library
(NumPy, CuPy): right, and deterministic, but slower than a kernel of its own would be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.common.checks import check_choice, check_float, check_int
from convnet.layers.layer import Array, Gradients, Layer, Shape, image_shape
from convnet.layers.pool import window_pixels


class MapNorm(Layer):
    """y_i = x_i (k + alpha sum_j x_j^2)^-beta over the n x n pixels j around i, in one channel.

    Args:
        n: height and width of the window; even ones reach one further up and to the left.
        alpha, k, beta: as in the equation; k > 0, the others 0 or more.
        alpha_mode: "sum" as in the equation; "mean" divides alpha by n^2, as cuda-convnet does.

    Source: cuda-convnet's `rnorm` layer.
    """

    split_by = "channel"
    word = "rnorm"

    def __init__(
        self, n: int, alpha: float, k: float = 1.0, beta: float = 0.75, alpha_mode: str = "sum"
    ) -> None:
        super().__init__()
        self.n = check_int("n", n)
        self.alpha = check_float("alpha", alpha, 0.0)
        self.k = check_float("k", k, above=0.0)
        self.beta = check_float("beta", beta, 0.0)
        self.alpha_mode = check_choice("alpha_mode", alpha_mode, ("sum", "mean"))

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = image_shape(in_shape, self.word)
        if self.n > min(shape[:2]):
            raise ValueError(
                f"n: expected at most {min(shape[:2])}, as large as the image, got {self.n}"
            )
        return super().setup(shape, rng)

    # ---- sums over windows ----------------------------------------------------------------------

    @property
    def _pool(self) -> tuple[Any, ...]:
        half = self.n // 2
        return (self.n, self.n), (1, 1), (half, half), "floor"

    @property
    def _scale(self) -> float:
        return self.alpha / self.n**2 if self.alpha_mode == "mean" else self.alpha

    def _count(self, x: Array) -> Array:
        """How many pixels each window has, float32 [H, W, 1], on the device of x."""
        places = self.in_shape[:2], self.out_shape[:2]
        return window_pixels(backend.of(x), *places, *self._pool[:3])

    def _mean(self, x: Array) -> Array:
        """The mean over each window."""
        y = ops.avgpool_fprop(x, *self._pool)
        if self.n % 2:
            return y
        height, width, _ = self.in_shape  # an even window has a place too many
        return backend.of(x).xp.ascontiguousarray(y[:, :height, :width])

    def _mean_adjoint(self, dy: Array) -> Array:
        """Its adjoint: what each pixel gets of the windows it is in."""
        if self.n % 2 == 0:
            height, width, channels = self.in_shape
            wide = backend.of(dy).zeros((dy.shape[0], height + 1, width + 1, channels))
            wide[:, :height, :width] = dy
            dy = wide
        return ops.avgpool_bprop(dy, (dy.shape[0], *self.in_shape), *self._pool)

    # ---- the layer ------------------------------------------------------------------------------

    def _differences(self, x: Array) -> Array:
        """What is squared and summed: here x itself."""
        return x

    def fprop(self, x: Array, train: bool) -> tuple[Array, Any]:
        diff = self._differences(x)
        s = self._mean(diff * diff)
        s *= self._count(x) * np.float32(self._scale)
        s += np.float32(self.k)
        return s ** np.float32(-self.beta) * x, (x, s, diff)

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        direct, through = self._gradients(saved, dy)
        return direct + through, []

    def _gradients(self, saved: Any, dy: Array) -> tuple[Array, Array]:
        """The gradients of the factor x, and of what was squared."""
        x, s, diff = saved
        ds = s ** np.float32(-self.beta - 1.0)
        ds *= dy
        ds *= x
        ds *= self._count(x) * np.float32(-2.0 * self.beta * self._scale)
        return s ** np.float32(-self.beta) * dy, self._mean_adjoint(ds) * diff

    def describe(self) -> str:
        return f"{self.word} {self.n}x{self.n}"


class ContrastNorm(MapNorm):
    """y_i = x_i (k + alpha sum_j (x_j - m_j)^2)^-beta over the n x n pixels j around i, where m_j
    is the mean of x over the window of j.

    The gradient is that of the equation, through the means too; cuda-convnet took the means for
    constants.

    Args:
        n, alpha, k, beta, alpha_mode: as in `MapNorm`.

    Source: cuda-convnet's `cnorm` layer.
    """

    word = "cnorm"

    def _differences(self, x: Array) -> Array:
        return x - self._mean(x)

    def bprop(self, saved: Any, dy: Array) -> tuple[Array, Gradients]:
        direct, through = self._gradients(saved, dy)
        return direct + through - self._mean_adjoint(through), []
