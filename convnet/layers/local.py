"""Locally connected layer: a convolution whose filters are not shared between positions."""

from __future__ import annotations

from convnet import ops
from convnet.layers.conv import Conv
from convnet.layers.layer import Array, Shape


class Local(Conv):
    """As `Conv`, with filters and biases of its own at every output position.

    w is [P, Q, K, R, S, C / groups] and b is [P, Q, K]. It multiplies in float32 only, whatever
    the precision of the net is.

    Args:
        filters, size, stride, pad, groups, rounding, bias, relu: as in `Conv`.
        init, std, bias_init, w_lr, w_decay, b_lr, b_decay: as in `Conv`.
        precision: "fp32" or "ffma", or None.

    Source: paper, footnote 3; cuda-convnet's `local` layer.
    """

    channel_axis = 2
    what = "a locally connected layer"
    precisions = ("fp32", "ffma")

    @property
    def effective_precision(self) -> str:
        return "fp32"

    def _shapes(self, filters: Shape, out_shape: Shape) -> tuple[Shape, Shape]:
        return (*out_shape[:2], *filters), out_shape

    def _fprop(self, x: Array) -> Array:
        return ops.local_fprop(x, self.w.data, self.b_data, **self._window, relu=self.relu)

    def _dgrad(self, dy: Array, x: Array) -> Array:
        return ops.local_dgrad(dy, self.w.data, x.shape, **self._window)

    def _wgrad(self, x: Array, dy: Array) -> tuple[Array, Array | None]:
        return ops.local_wgrad(x, dy, self.w.shape, **self._window, bias=self.bias)

    @property
    def macs(self) -> int:
        return self.w.size
