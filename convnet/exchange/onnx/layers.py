"""What each layer is in ONNX.

Images are [N, C, H, W] there. A size that is rounded up here is one of explicit pads at the end
there, rounded down. Rows keep the order that they have here, except in a dense layer right over
an image, whose columns are permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convnet import layers as kinds
from convnet.exchange.errors import ExchangeError
from convnet.exchange.layouts import to_foreign
from convnet.exchange.onnx.model import Model
from convnet.layers.blur import gaussian_filter
from convnet.layers.graph import INPUT
from convnet.nn.net import Net, Node

Shape = tuple[int, ...]
Translate = Callable[["Exporter", Node, list[str]], str]


class Exporter:
    """The nodes of a net, added to a model one by one.

    Args:
        net: the net; model: to which they are added.
        weights: the values of parameters, by their names.

    Attributes:
        values: name of a node here -> name of its output there.
    """

    def __init__(self, net: Net, model: Model, weights: dict[str, np.ndarray]) -> None:
        self.net, self.model, self.weights = net, model, weights
        self.values = {INPUT: model.input("image", _there(net.in_shape))}

    def add(self, node: Node) -> None:
        """Adds a node. Raises: ExchangeError: a layer that there is no operator for."""
        translate = TRANSLATIONS.get(type(node.layer))
        if translate is None:
            kind = type(node.layer).__name__
            raise ExchangeError(f"{node.name}: there is no operator of ONNX for the layer {kind}")
        inputs = [self.values[str(name)] for name in node.inputs or ()]
        self.values[node.name] = translate(self, node, inputs)

    # ---- what translations use ------------------------------------------------------------------

    def op(self, kind: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """Adds an operator; its output is called after the node."""
        return self.model.node(kind, inputs, node.name, **attributes)

    def number(self, value: float) -> str:
        """A constant of one number."""
        return self.model.constant(np.float32(value), f"number:{value!r}")

    def integers(self, *values: int) -> str:
        """A constant row of whole numbers."""
        name = "integers:" + ",".join(map(str, values))
        return self.model.constant(np.array(values), name, "int64")

    def param(self, node: Node, name: str) -> tuple[np.ndarray, str]:
        """The values of a layer's parameter, as they are here, and its full name."""
        full = next(p.name for p in node.layer.params if p.name.rpartition(".")[2] == name)
        return self.weights[full], full

    def rectified(self, node: Node, y: str) -> str:
        """max(0, y) where the layer has a ReLU."""
        return self.op("Relu", node, y) if getattr(node.layer, "relu", False) else y


def _there(shape: Sequence[int]) -> Shape:
    """A shape as it is there, without the batch."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else tuple(shape)


def _window(layer: Any) -> dict[str, list[int]]:
    """Strides, and pads at the beginning and the end, of which floor gives the size here."""
    places = zip(layer.in_shape[:2], layer.out_shape[:2], strict=True)
    sides = zip(places, layer.size, layer.stride, layer.pad, strict=True)
    ends = [max(0, (o - 1) * step + size - i - pad) for (i, o), size, step, pad in sides]
    return {"strides": [*layer.stride], "pads": [*layer.pad, *ends]}


# ---- layers with weights -------------------------------------------------------------------------


def _conv(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer, (w, name) = node.layer, to.param(node, "w")
    assert isinstance(layer, kinds.Conv)
    constants = [to.model.constant(w.transpose(0, 3, 1, 2), name)]
    constants += [to.model.constant(*to.param(node, "b"))] if layer.bias else []
    options = {"kernel_shape": [*layer.size], "group": layer.groups, **_window(layer)}
    return to.rectified(node, to.op("Conv", node, *inputs, *constants, **options))


def _dense(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer, (w, name) = node.layer, to.param(node, "w")
    assert isinstance(layer, kinds.Dense)
    x = inputs[0]
    if len(layer.in_shape) == 3:
        x = to.op("Flatten", node, x)
        w, name = to_foreign(to.net, node, "w", w), f"{name}:chw"
    constants = [to.model.constant(w, name)]
    constants += [to.model.constant(*to.param(node, "b"))] if layer.bias else []
    return to.rectified(node, to.op("Gemm", node, x, *constants, transB=1))


def _local(to: Exporter, node: Node, inputs: list[str]) -> str:
    """Each window is gathered as a row, and multiplied by the filters of its place."""
    layer, (w, name) = node.layer, to.param(node, "w")
    assert isinstance(layer, kinds.Local)
    (height, width, channels), (p, q, k), groups = layer.in_shape, layer.out_shape, layer.groups
    pads, depth = _window(layer)["pads"], channels // groups
    x = to.op("Pad", node, inputs[0], to.integers(0, 0, *pads[:2], 0, 0, *pads[2:]))
    rows, columns = height + pads[0] + pads[2], width + pads[1] + pads[3]
    x = to.op("Reshape", node, x, to.integers(-1, channels * rows * columns))
    at = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    windows = np.lib.stride_tricks.sliding_window_view(at, layer.size, (1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1]][:, :p, :q]
    filters = w.reshape(p, q, groups, k // groups, *layer.size, depth)
    parts = []
    for group in range(groups):
        own = windows[group * depth : (group + 1) * depth].transpose(1, 2, 0, 3, 4)
        index = to.model.constant(own.reshape(p * q, -1), f"{node.name}:windows{group}", "int64")
        columns_of = (
            filters[:, :, group].transpose(0, 1, 5, 3, 4, 2).reshape(p * q, -1, k // groups)
        )
        taken = to.op("Gather", node, x, index, axis=1)
        taken = to.op("Transpose", node, taken, perm=[1, 0, 2])
        matrix = to.model.constant(columns_of, f"{name}:{group}")
        made = to.op("Transpose", node, to.op("MatMul", node, taken, matrix), perm=[1, 2, 0])
        parts.append(to.op("Reshape", node, made, to.integers(-1, k // groups, p, q)))
    y = to.op("Concat", node, *parts, axis=1) if groups > 1 else parts[0]
    if layer.bias:
        b, name = to.param(node, "b")
        y = to.op("Add", node, y, to.model.constant(b.transpose(2, 0, 1)[None], name))
    return to.rectified(node, y)


def _bias(to: Exporter, node: Node, inputs: list[str]) -> str:
    b, name = to.param(node, "b")
    if len(node.layer.in_shape) == 3:
        b = b.transpose(2, 0, 1) if b.ndim == 3 else b.reshape(-1, 1, 1)
    return to.op("Add", node, inputs[0], to.model.constant(b, name))


# ---- pools and norms -----------------------------------------------------------------------------


def _pool(kind: str) -> Translate:
    def translate(to: Exporter, node: Node, inputs: list[str]) -> str:
        layer: Any = node.layer
        more = {"count_include_pad": 0} if kind == "AveragePool" else {}
        return to.op(kind, node, *inputs, kernel_shape=[*layer.size], **_window(layer), **more)

    return translate


def _sum_pool(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    sides = []
    for axis in (0, 1):
        first = np.arange(layer.out_shape[axis]) * layer.stride[axis] - layer.pad[axis]
        last = np.minimum(first + layer.size[axis], layer.in_shape[axis])
        sides.append(last - np.maximum(first, 0))
    pixels = to.model.constant(np.multiply.outer(*sides), f"{node.name}:pixels")
    return to.op("Mul", node, _pool("AveragePool")(to, node, inputs), pixels)


def _max_abs_pool(to: Exporter, node: Node, inputs: list[str]) -> str:
    high = _pool("MaxPool")(to, node, inputs)
    low = _pool("MaxPool")(to, node, [to.op("Neg", node, *inputs)])
    is_low = to.op("Greater", node, low, high)
    return to.op("Where", node, is_low, to.op("Neg", node, low), high)


def _lrn(to: Exporter, node: Node, inputs: list[str]) -> str:
    """ONNX divides alpha by n and has no groups; runtimes know odd n only."""
    layer = node.layer
    assert isinstance(layer, kinds.LRN)
    channels, n = layer.in_shape[-1], layer.n
    mean = layer.alpha_mode == "mean"
    if n % 2 == 0 or len(layer.in_shape) == 1:
        return _lrn_by_matrix(to, node, inputs[0], layer.alpha / n if mean else layer.alpha)
    alpha = layer.alpha if mean else layer.alpha * n
    options = {"size": n, "alpha": float(alpha), "beta": float(layer.beta), "bias": float(layer.k)}
    if layer.groups == 1:
        return to.op("LRN", node, *inputs, **options)
    size, parts = channels // layer.groups, []
    for start in range(0, channels, size):
        bounds = to.integers(start), to.integers(start + size), to.integers(1)
        parts.append(to.op("LRN", node, to.op("Slice", node, *inputs, *bounds), **options))
    return to.op("Concat", node, *parts, axis=1)


def _lrn_by_matrix(to: Exporter, node: Node, x: str, alpha: float) -> str:
    """The sum over channels as a product with a matrix of zeros and ones."""
    layer = node.layer
    assert isinstance(layer, kinds.LRN)
    channels, size = layer.in_shape[-1], layer.in_shape[-1] // layer.groups
    i, j = np.meshgrid(np.arange(channels), np.arange(channels), indexing="ij")
    near = (j >= i - layer.n // 2) & (j < i - layer.n // 2 + layer.n) & (i // size == j // size)
    squares = to.op("Mul", node, x, x)
    if len(layer.in_shape) == 1:
        matrix = to.model.constant(near, f"{node.name}:near")
        sums = to.op("Gemm", node, squares, matrix, transB=1)
    else:
        matrix = to.model.constant(near[:, :, None, None], f"{node.name}:near")
        sums = to.op("Conv", node, squares, matrix, kernel_shape=[1, 1])
    return _divided(to, node, x, sums, alpha, layer.k, layer.beta)


def _divided(
    to: Exporter, node: Node, x: str, sums: str, alpha: float, k: float, beta: float
) -> str:
    """x (k + alpha sums)^-beta."""
    scale = to.op("Add", node, to.op("Mul", node, sums, to.number(alpha)), to.number(k))
    return to.op("Mul", node, x, to.op("Pow", node, scale, to.number(-beta)))


def _window_sum(to: Exporter, node: Node, x: str) -> str:
    """The sum over the n x n pixels around each, zeros outside."""
    layer: Any = node.layer
    channels, n = layer.in_shape[2], layer.n
    ones = to.model.constant(np.ones((channels, 1, n, n)), f"{node.name}:ones")
    before, after = n // 2, n - 1 - n // 2
    pads = [before, before, after, after]
    return to.op("Conv", node, x, ones, kernel_shape=[n, n], group=channels, pads=pads)


def _map_norm(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    x = differences = inputs[0]
    if isinstance(layer, kinds.ContrastNorm):
        sides = []
        for size in layer.in_shape[:2]:
            at = np.arange(size) - layer.n // 2
            sides.append(np.minimum(at + layer.n, size) - np.maximum(at, 0))
        pixels = to.model.constant(np.multiply.outer(*sides), f"{node.name}:pixels")
        mean = to.op("Div", node, _window_sum(to, node, x), pixels)
        differences = to.op("Sub", node, x, mean)
    sums = _window_sum(to, node, to.op("Mul", node, differences, differences))
    alpha = layer.alpha / layer.n**2 if layer.alpha_mode == "mean" else layer.alpha
    return _divided(to, node, x, sums, alpha, layer.k, layer.beta)


def _blur(to: Exporter, node: Node, inputs: list[str]) -> str:
    """The Gaussian down, then across."""
    layer: Any = node.layer
    y, half, channels = inputs[0], layer.size // 2, layer.in_shape[2]
    row = gaussian_filter(layer.size, layer.std)
    for axis in (0, 1):
        size, pads = [1, 1], [0, 0, 0, 0]
        size[axis], pads[axis], pads[axis + 2] = layer.size, half, half
        filters = np.broadcast_to(row.reshape(1, 1, *size), (channels, 1, *size))
        filters_there = to.model.constant(filters, f"{node.name}:filter{axis}")
        y = to.op("Conv", node, y, filters_there, kernel_shape=size, pads=pads, group=channels)
    return y


# ---- element by element --------------------------------------------------------------------------


def _simple(kind: str, **attributes: Any) -> Translate:
    """One operator of the same inputs."""
    return lambda to, node, inputs: to.op(kind, node, *inputs, **attributes)


def _tanh(to: Exporter, node: Node, inputs: list[str]) -> str:
    a, b = (to.number(value) for value in (node.layer.a, node.layer.b))  # type: ignore[attr-defined]
    return to.op("Mul", node, to.op("Tanh", node, to.op("Mul", node, *inputs, b)), a)


def _affine(to: Exporter, node: Node, inputs: list[str]) -> str:
    a, b = (to.number(value) for value in (node.layer.a, node.layer.b))  # type: ignore[attr-defined]
    return to.op("Add", node, to.op("Mul", node, *inputs, a), b)


def _log(to: Exporter, node: Node, inputs: list[str]) -> str:
    a = to.number(node.layer.a)  # type: ignore[attr-defined]
    return to.op("Log", node, to.op("Add", node, *inputs, a))


def _brelu(to: Exporter, node: Node, inputs: list[str]) -> str:
    return to.op("Clip", node, *inputs, to.number(0.0), to.number(node.layer.a))  # type: ignore[attr-defined]


def _drelu(to: Exporter, node: Node, inputs: list[str]) -> str:
    a = to.number(node.layer.a)  # type: ignore[attr-defined]
    flat = to.op("Mul", node, to.op("Tanh", node, to.op("Div", node, *inputs, a)), a)
    return to.op("Sub", node, *inputs, flat)


def _square(to: Exporter, node: Node, inputs: list[str]) -> str:
    return to.op("Mul", node, *inputs, *inputs)


def _dropout(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.Dropout)
    if layer.mode == "inverted":
        return to.op("Identity", node, *inputs)
    return to.op("Mul", node, *inputs, to.number(1.0 - layer.drop))


# ---- shapes, and several inputs ------------------------------------------------------------------


def _flatten(to: Exporter, node: Node, inputs: list[str]) -> str:
    x = inputs[0]
    if len(node.layer.in_shape) == 3:
        x = to.op("Transpose", node, x, perm=[0, 2, 3, 1])
    return to.op("Flatten", node, x)


def _unflatten_chw(to: Exporter, node: Node, inputs: list[str]) -> str:
    return to.op("Reshape", node, *inputs, to.integers(-1, *_there(node.layer.out_shape)))


def _crop(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    ends = to.integers(layer.top + layer.height, layer.left + layer.width)
    return to.op(
        "Slice", node, *inputs, to.integers(layer.top, layer.left), ends, to.integers(2, 3)
    )


def _nailbed(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    starts, ends = to.integers(layer.start, layer.start), to.integers(*layer.in_shape[:2])
    steps = to.integers(layer.stride, layer.stride)
    return to.op("Slice", node, *inputs, starts, ends, to.integers(2, 3), steps)


def _slice(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    bounds = to.integers(layer.start), to.integers(layer.stop), to.integers(1)
    return to.op("Slice", node, *inputs, *bounds)


def _sum(to: Exporter, node: Node, inputs: list[str]) -> str:
    layer: Any = node.layer
    coeffs = layer.coeffs or [1.0] * len(inputs)
    pairs = zip(inputs, coeffs, strict=True)
    terms = [x if c == 1.0 else to.op("Mul", node, x, to.number(c)) for x, c in pairs]
    return to.op("Sum", node, *terms)


def _binary(to: Exporter, node: Node, inputs: list[str]) -> str:
    return to.op("Sigmoid" if node.layer.scores else "Identity", node, *inputs)  # type: ignore[attr-defined]


TRANSLATIONS: dict[type, Translate] = {
    kinds.Conv: _conv,
    kinds.Dense: _dense,
    kinds.Local: _local,
    kinds.Bias: _bias,
    kinds.MaxPool: _pool("MaxPool"),
    kinds.AvgPool: _pool("AveragePool"),
    kinds.SumPool: _sum_pool,
    kinds.MaxAbsPool: _max_abs_pool,
    kinds.LRN: _lrn,
    kinds.MapNorm: _map_norm,
    kinds.ContrastNorm: _map_norm,
    kinds.ReLU: _simple("Relu"),
    kinds.Sigmoid: _simple("Sigmoid"),
    kinds.Abs: _simple("Abs"),
    kinds.Softplus: _simple("Softplus"),
    kinds.Sqrt: _simple("Sqrt"),
    kinds.Square: _square,
    kinds.Tanh: _tanh,
    kinds.Affine: _affine,
    kinds.Log: _log,
    kinds.BReLU: _brelu,
    kinds.DReLU: _drelu,
    kinds.Dropout: _dropout,
    kinds.Flatten: _flatten,
    kinds.FlattenCHW: _simple("Flatten"),
    kinds.UnflattenCHW: _unflatten_chw,
    kinds.Crop: _crop,
    kinds.Nailbed: _nailbed,
    kinds.Blur: _blur,
    kinds.Slice: _slice,
    kinds.Sum: _sum,
    kinds.Max: _simple("Max"),
    kinds.Concat: _simple("Concat", axis=1),
    kinds.Softmax: _simple("Softmax", axis=1),
    kinds.SoftmaxCrossEntropy: _simple("Softmax", axis=1),
    kinds.BinaryCrossEntropy: _binary,
    kinds.SumSquares: _simple("Identity"),
}
