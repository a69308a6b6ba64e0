"""The same net in PyTorch, for comparisons. PyTorch is a peer here, never a dependency."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from convnet import layers
from convnet.nn.net import Net


def set_precision(precision: str) -> None:
    """Lets PyTorch multiply float32 in the precision that convnet does: in TF32 only where that is
    asked for (cuDNN's default is yes, cuBLAS' no). bf16 is a matter of types, not of this.

    By the older names of these switches alone: PyTorch refuses a mixture with `fp32_precision`.
    """
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


class CeilPad(nn.Module):
    """The right and bottom padding that stands for `ceil` rounding of a convolution."""

    def __init__(self, right: int, bottom: int) -> None:
        super().__init__()
        self.padding = (0, right, 0, bottom)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, self.padding)


class PaperDropout(nn.Dropout):
    """Dropout as in the paper: a 0/1 mask in training, times 1 - p at test time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1.0 - self.p)


class GroupedNorm(nn.LocalResponseNorm):
    """Response normalization within groups of channels, which PyTorch does not know: each group is
    shown to it as an image of its own (NCHW) or beside the others (NHWC), without a copy."""

    def __init__(self, groups: int, *options: float) -> None:
        super().__init__(*options)
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        g = self.groups
        if x.is_contiguous():
            return super().forward(x.reshape(n * g, c // g, h, w)).reshape(x.shape)
        wide = x.permute(0, 2, 3, 1).reshape(n, h, w * g, c // g).permute(0, 3, 1, 2)
        y = super().forward(wide).permute(0, 2, 3, 1)
        return y.reshape(n, h, w, c).permute(0, 3, 1, 2)


def torch_net(net: Net) -> nn.Sequential:
    """`net` in PyTorch (logits, without the softmax), with the same weights.

    Raises:
        ValueError: a layer or a graph that has no counterpart here.
    """
    modules: list[nn.Module] = []
    shape = net.in_shape
    for node in net.nodes:
        layer = node.layer
        if isinstance(layer, layers.SoftmaxCrossEntropy):
            continue
        modules += _modules(layer, shape)
        shape = net.shapes[node.name]
    return nn.Sequential(*modules)


def _modules(layer: layers.ParametricLayer | object, shape: tuple[int, ...]) -> list[nn.Module]:
    if type(layer) is layers.Conv:  # what derives from it shares no filters
        return _conv(layer, shape)
    if isinstance(layer, layers.Dense):
        return _dense(layer, shape)
    if isinstance(layer, layers.MaxPool):
        return [
            nn.MaxPool2d(layer.size, layer.stride, layer.pad, ceil_mode=layer.rounding == "ceil")
        ]
    if isinstance(layer, layers.AvgPool):
        return [
            nn.AvgPool2d(
                layer.size,
                layer.stride,
                layer.pad,
                ceil_mode=layer.rounding == "ceil",
                count_include_pad=False,
            )
        ]
    if isinstance(layer, layers.LRN):
        # PyTorch divides alpha by n.
        alpha = layer.alpha * (layer.n if layer.alpha_mode == "sum" else 1)
        options = (layer.n, alpha, layer.beta, layer.k)
        return [
            GroupedNorm(layer.groups, *options)
            if layer.groups > 1
            else nn.LocalResponseNorm(*options)
        ]
    if isinstance(layer, layers.ReLU):
        return [nn.ReLU(inplace=True)]
    if isinstance(layer, layers.Tanh) and layer.a == layer.b == 1.0:
        return [nn.Tanh()]
    if isinstance(layer, layers.Dropout):
        return [(PaperDropout if layer.mode == "paper" else nn.Dropout)(layer.drop)]
    if isinstance(layer, layers.Flatten):
        return []
    raise ValueError(f"peer_torch: no counterpart of {type(layer).__name__}")


def _host(array: Any) -> np.ndarray:
    """An array of convnet's, wherever it is, as one of NumPy's."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def _conv(layer: layers.Conv, shape: tuple[int, ...]) -> list[nn.Module]:
    height, width, channels = shape
    p, q, _ = layer.out_shape
    bottom = (p - 1) * layer.stride[0] + layer.size[0] - height - 2 * layer.pad[0]
    right = (q - 1) * layer.stride[1] + layer.size[1] - width - 2 * layer.pad[1]
    conv = nn.Conv2d(
        channels,
        layer.filters,
        layer.size,
        layer.stride,
        layer.pad,
        groups=layer.groups,
        bias=layer.bias,
    )
    conv.weight.data = torch.from_numpy(_host(layer.w.data).transpose(0, 3, 1, 2).copy())
    if layer.bias:
        conv.bias.data = torch.from_numpy(_host(layer.b_data).copy())
    pads = [CeilPad(right, bottom)] if right > 0 or bottom > 0 else []
    return [*pads, conv, *([nn.ReLU(inplace=True)] if layer.relu else [])]


def _dense(layer: layers.Dense, shape: tuple[int, ...]) -> list[nn.Module]:
    weight = _host(layer.w.data)
    units = weight.shape[0]
    if len(shape) == 3:  # our images are flattened as (H, W, C), PyTorch's as (C, H, W)
        weight = weight.reshape(units, *shape).transpose(0, 3, 1, 2).reshape(units, -1)
    dense = nn.Linear(weight.shape[1], units, bias=layer.bias)
    dense.weight.data = torch.from_numpy(weight.copy())
    if layer.bias:
        dense.bias.data = torch.from_numpy(_host(layer.b_data).copy())
    relu = [nn.ReLU(inplace=True)] if layer.relu else []
    return [*([nn.Flatten()] if len(shape) == 3 else []), dense, *relu]
