"""A bias on its own, for layers whose weights are shared or whose biases are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from convnet.common.checks import check_bool, check_float
from convnet.layers import initializers
from convnet.layers.layer import Array, Gradients, Layer, Parameter, Shape


class Bias(Layer):
    """y = x + b, where b is [C], or [H, W, C] where it is not tied.

    Args:
        tied: one bias for each channel; else one for each output of the layer below, as with
            cuda-convnet's `sharedBiases=0`.
        bias_init: initial value of b.
        b_lr, b_decay: multipliers of learning rate and weight decay, as in `Conv`.
    """

    split_by = "channel"

    def __init__(
        self, tied: bool = True, bias_init: float = 0.0, b_lr: float = 1.0, b_decay: float = 0.0
    ) -> None:
        super().__init__()
        self.tied = check_bool("tied", tied)
        self.bias_init = check_float("bias_init", bias_init)
        self.b_lr = check_float("b_lr", b_lr, 0.0)
        self.b_decay = check_float("b_decay", b_decay, 0.0)

    @property
    def channel_axis(self) -> int:  # type: ignore[override]
        return 0 if self.tied else len(self.in_shape) - 1

    def setup(self, in_shape: Shape, rng: np.random.Generator) -> Shape:
        shape = tuple(in_shape[-1:] if self.tied else in_shape)
        b: Any = np.broadcast_to(np.float32(0), shape)
        if not self.sizes_only:
            b = initializers.constant(rng, shape, 1, 1, self.bias_init)
        self.params = [Parameter("b", b, self.b_lr, self.b_decay)]
        return super().setup(in_shape, rng)

    def fprop(self, x: Array, train: bool) -> tuple[Array, None]:
        return x + self.params[0].data, None

    def bprop(self, saved: None, dy: Array) -> tuple[Array, Gradients]:
        rows = dy.reshape(-1, *self.params[0].shape)
        return dy, [rows.sum(axis=0, dtype=np.float64).astype(np.float32)]

    def describe(self) -> str:
        return "bias" if self.tied else "bias, untied"
