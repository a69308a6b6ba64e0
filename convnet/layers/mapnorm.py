"""Normalization by a neighbourhood in the same channel: response and contrast.

The window of pixel (h, w) is n x n, from (h - n/2, w - n/2) on, clipped to the image. Sums over it
are average pools of stride 1 times the number of pixels in the window; the rest is element by
element. The pools are kernels of the contract, what is between them is done by the array library
(NumPy, CuPy): right, and deterministic, but slower than a kernel of its own would be.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convnet import backend, ops
from convnet.layer import Array, Layer, Shape, choice, image_shape, number, whole


class MapNorm(Layer):
    """y_i = x_i (k + alpha sum_j x_j^2)^-beta over the n x n pixels j around i, in one channel.

    Args:
        n: height and width of the window; even ones reach one further up and to the left.
        alpha, k, beta: as in the equation.
        alpha_mode: "sum" as in the equation; "mean" divides alpha by n^2, as cuda-convnet does.

    Source: cuda-convnet's `rnorm` layer.
    """

    works_on_arrays = True

    reach = "own"
    word = "rnorm"

    def __init__(
        self, n: int, alpha: float, k: float = 1.0, beta: float = 0.75, alpha_mode: str = "sum"
    ) -> None:
        super().__init__()
        self.n = whole("n", n)
        self.alpha = number("alpha", alpha, 0.0)
        self.k = number("k", k)
        if self.k <= 0.0:
            raise ValueError(f"k: expected a positive number, got {k!r}")
        self.beta = number("beta", beta, 0.0)
        self.alpha_mode = choice("alpha_mode", alpha_mode, ("sum", "mean"))
        self._counts: dict[Any, Array] = {}

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        self.in_shape = self.out_shape = image_shape(in_shape, self.word)
        if self.n > min(self.in_shape[:2]):
            raise ValueError(
                f"n: expected at most {min(self.in_shape[:2])}, as large as the image, got {self.n}"
            )
        self._counts = {}
        return self.out_shape

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
        device = backend.of(x)
        if device not in self._counts:
            sides = []
            for size in self.in_shape[:2]:
                first = np.arange(size) - self.n // 2
                sides.append(np.minimum(first + self.n, size) - np.maximum(first, 0))
            counts = np.multiply.outer(*sides)[:, :, None].astype(np.float32)
            self._counts[device] = device.asarray(counts)
        return self._counts[device]

    def _mean(self, x: Array, out: Array) -> Array:
        """The mean over each window."""
        if self.n % 2:
            return ops.avgpool_fprop(x, *self._pool, out=out)
        height, width, channels = self.in_shape  # an even window has a place too many
        wide = self.buffer("wide", (x.shape[0], height + 1, width + 1, channels), x)
        out[...] = ops.avgpool_fprop(x, *self._pool, out=wide)[:, :height, :width]
        return out

    def _mean_adjoint(self, dy: Array, out: Array) -> Array:
        """Its adjoint: what each pixel gets of the windows it is in."""
        if self.n % 2 == 0:
            height, width, channels = self.in_shape
            wide = self.buffer("wide", (dy.shape[0], height + 1, width + 1, channels), dy)
            wide.fill(0)
            wide[:, :height, :width] = dy
            dy = wide
        return ops.avgpool_bprop(dy, out.shape, *self._pool, out=out)

    # ---- the layer ------------------------------------------------------------------------------

    def _differences(self, x: Array, scratch: Array) -> Array:
        """What is squared and summed: here x itself."""
        return x

    def fprop(self, x: Array, train: bool) -> Array:
        xp = backend.of(x).xp
        y, s = self.buffer("y", x.shape, x), self.buffer("s", x.shape, x)
        diff = self._differences(x, y)
        self._mean(xp.multiply(diff, diff, out=y), s)
        s *= self._count(x) * np.float32(self._scale)
        s += np.float32(self.k)
        xp.power(s, np.float32(-self.beta), out=y)
        y *= x
        self.saved = (x, s, diff) if train else None
        return y

    def bprop(self, dy: Array) -> Array:
        x, s, diff = self.recall()
        xp = backend.of(x).xp
        dx, z = self.buffer("dx", x.shape, x), self.buffer("z", x.shape, x)
        xp.power(s, np.float32(-self.beta - 1.0), out=dx)
        dx *= dy
        dx *= x
        dx *= self._count(x) * np.float32(-2.0 * self.beta * self._scale)
        self._mean_adjoint(dx, z)
        z *= diff  # the gradient of what was squared
        xp.power(s, np.float32(-self.beta), out=dx)
        dx *= dy
        dx += z
        return dx

    def output_bytes(self, batch: int) -> int:
        height, width, channels = self.in_shape
        wide = 0 if self.n % 2 else (height + 1) * (width + 1) * channels
        return 4 * batch * (2 * math.prod(self.in_shape) + wide)

    def gradient_bytes(self, batch: int) -> int:
        return 8 * batch * math.prod(self.in_shape) if self.need_dx else 0

    def describe(self) -> str:
        return f"{self.word} {self.n}x{self.n}"


class ContrastNorm(MapNorm):
    """y_i = x_i (k + alpha sum_j (x_j - m_j)^2)^-beta over the n x n pixels j around i, where m_j
    is the mean of x over the window of j.

    The gradient is that of the equation, through the means too; cuda-convnet took the means for
    constants. Arguments are those of `MapNorm`.

    Source: cuda-convnet's `cnorm` layer.
    """

    word = "cnorm"

    def _differences(self, x: Array, scratch: Array) -> Array:
        diff = self.buffer("diff", x.shape, x)
        return backend.of(x).xp.subtract(x, self._mean(x, scratch), out=diff)

    def bprop(self, dy: Array) -> Array:
        dx = super().bprop(dy)
        z = self.buffer("z", dx.shape, dx)
        dx -= self._mean_adjoint(z, self.buffer("back", dx.shape, dx))
        return dx

    def output_bytes(self, batch: int) -> int:
        return super().output_bytes(batch) + 4 * batch * math.prod(self.in_shape)

    def gradient_bytes(self, batch: int) -> int:
        return super().gradient_bytes(batch) * 3 // 2
