"""Every operation of the contract (src/ops.h) in naive float64 NumPy: what the backends must give.

Written to be checked by eye against the equations, one window or channel at a time, and shares no
code with the package. Arguments are those of `convnet.ops`, with strides, pads and sizes as
(height, width) pairs. Activations are NHWC, filters KRSC.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]


def float64(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)


# ---- sizes ----------------------------------------------------------------------------------


def output_size(
    size: int, window: int, stride: int, pad: int, rounding: str, inside: bool = False
) -> int:
    """Window positions along one axis; `inside` drops those that start past the last element."""
    room = size + 2 * pad - window
    positions = 1 + (-(-room // stride) if rounding == "ceil" else room // stride)
    while inside and (positions - 1) * stride - pad >= size:
        positions -= 1
    return positions


def conv_size(x_shape: tuple, size: Pair, stride: Pair, pad: Pair, rounding: str) -> Pair:
    return (
        output_size(x_shape[1], size[0], stride[0], pad[0], rounding),
        output_size(x_shape[2], size[1], stride[1], pad[1], rounding),
    )


def pool_size(x_shape: tuple, size: Pair, stride: Pair, pad: Pair, rounding: str) -> Pair:
    return (
        output_size(x_shape[1], size[0], stride[0], pad[0], rounding, inside=True),
        output_size(x_shape[2], size[1], stride[1], pad[1], rounding, inside=True),
    )


# ---- convolution with filters of its own at every position ----------------------------------


def _pad_image(x: Array, size: Pair, output: Pair, stride: Pair, pad: Pair) -> Array:
    """x inside zeros, wide enough that every window lies inside."""
    n, h, w, c = x.shape
    rows = max(pad[0] + h, (output[0] - 1) * stride[0] + size[0])
    cols = max(pad[1] + w, (output[1] - 1) * stride[1] + size[1])
    padded = np.zeros((n, rows, cols, c))
    padded[:, pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
    return padded


def _windows(
    padded: Array, output: Pair, size: Pair, stride: Pair, groups: int, filters: int
) -> Iterator[tuple[int, int, slice, Array]]:
    """Every output position and group: (p, q, the group's filters, its window as a view)."""
    depth, per_group = padded.shape[3] // groups, filters // groups
    for p in range(output[0]):
        for q in range(output[1]):
            top, left = p * stride[0], q * stride[1]
            for g in range(groups):
                window = padded[
                    :, top : top + size[0], left : left + size[1], g * depth : (g + 1) * depth
                ]
                yield p, q, slice(g * per_group, (g + 1) * per_group), window


def local_fprop(x, w, b=None, *, stride, pad, groups=1, rounding="floor", relu=False):
    """y[n,p,q,k] = b[p,q,k] + the sum of window (p, q) times w[p,q,k]. w [P,Q,K,R,S,C/G]."""
    x, w = float64(x), float64(w)
    k, size = w.shape[2], (w.shape[3], w.shape[4])
    output = conv_size(x.shape, size, stride, pad, rounding)
    padded = _pad_image(x, size, output, stride, pad)
    y = np.zeros((len(x), *output, k))
    for p, q, filters, window in _windows(padded, output, size, stride, groups, k):
        y[:, p, q, filters] = np.tensordot(window, w[p, q, filters], ([1, 2, 3], [1, 2, 3]))
    if b is not None:
        y += float64(b)
    return np.maximum(y, 0) if relu else y


def local_dgrad(dy, w, x_shape, *, stride, pad, groups=1, rounding="floor", relu_mask=None):
    """Every dy[n,p,q,k] adds itself times w[p,q,k] to its window of dx."""
    dy, w = float64(dy), float64(w)
    size, output = (w.shape[3], w.shape[4]), dy.shape[1:3]
    padded = _pad_image(np.zeros(x_shape), size, output, stride, pad)
    for p, q, filters, window in _windows(padded, output, size, stride, groups, dy.shape[3]):
        window += np.tensordot(dy[:, p, q, filters], w[p, q, filters], 1)
    dx = padded[:, pad[0] : pad[0] + x_shape[1], pad[1] : pad[1] + x_shape[2]]
    return dx if relu_mask is None else np.where(np.asarray(relu_mask) > 0, dx, 0.0)


def local_wgrad(x, dy, w_shape, *, stride, pad, groups=1, rounding="floor"):
    """dw[p,q,k] = the sum over the batch of dy[n,p,q,k] times window (p, q); db[p,q,k] of dy."""
    x, dy = float64(x), float64(dy)
    size, output = (w_shape[3], w_shape[4]), dy.shape[1:3]
    padded = _pad_image(x, size, output, stride, pad)
    dw = np.zeros(w_shape)
    for p, q, filters, window in _windows(padded, output, size, stride, groups, dy.shape[3]):
        dw[p, q, filters] = np.tensordot(dy[:, p, q, filters], window, (0, 0))
    return dw, dy.sum(axis=0)


# ---- convolution: the same with one set of filters, shared by all positions -----------------


def conv_fprop(x, w, b=None, *, stride, pad, groups=1, rounding="floor", relu=False):
    output = conv_size(np.shape(x), w.shape[1:3], stride, pad, rounding)
    w = np.broadcast_to(w, (*output, *w.shape))
    return local_fprop(x, w, b, stride=stride, pad=pad, groups=groups, rounding=rounding, relu=relu)


def conv_dgrad(dy, w, x_shape, *, stride, pad, groups=1, rounding="floor", relu_mask=None):
    w = np.broadcast_to(w, (*dy.shape[1:3], *w.shape))
    return local_dgrad(
        dy, w, x_shape, stride=stride, pad=pad, groups=groups, rounding=rounding,
        relu_mask=relu_mask,
    )  # fmt: skip


def conv_wgrad(x, dy, w_shape, *, stride, pad, groups=1, rounding="floor"):
    x, dy = float64(x), float64(dy)
    size, output = w_shape[1:3], dy.shape[1:3]
    padded = _pad_image(x, size, output, stride, pad)
    dw = np.zeros(w_shape)
    for p, q, filters, window in _windows(padded, output, size, stride, groups, dy.shape[3]):
        dw[filters] += np.tensordot(dy[:, p, q, filters], window, (0, 0))
    return dw, dy.sum(axis=(0, 1, 2))


# ---- dense ----------------------------------------------------------------------------------


def dense_fprop(x, w, b=None, *, relu=False):
    y = float64(x) @ float64(w).T
    if b is not None:
        y = y + float64(b)
    return np.maximum(y, 0) if relu else y


def dense_dgrad(dy, w, *, relu_mask=None):
    dx = float64(dy) @ float64(w)
    return dx if relu_mask is None else np.where(np.asarray(relu_mask) > 0, dx, 0.0)


def dense_wgrad(x, dy):
    return float64(dy).T @ float64(x), float64(dy).sum(axis=0)


# ---- pooling --------------------------------------------------------------------------------


def _pool_windows(
    x_shape: tuple, size: Pair, stride: Pair, pad: Pair, rounding: str
) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """Every position (p, q) and its elements inside the image: (index in the window, h, w)."""
    _, height, width, _ = x_shape
    output = pool_size(x_shape, size, stride, pad, rounding)
    for p in range(output[0]):
        for q in range(output[1]):
            elements = []
            for r in range(size[0]):
                for s in range(size[1]):
                    h, w = p * stride[0] - pad[0] + r, q * stride[1] - pad[1] + s
                    if 0 <= h < height and 0 <= w < width:
                        elements.append((r * size[1] + s, h, w))
            yield p, q, elements


def maxpool_fprop(x, size, stride, pad=(0, 0), rounding="ceil"):
    """(y, argmax); the first of equals wins in row-major order, and a NaN wins over all."""
    x = float64(x)
    output = pool_size(x.shape, size, stride, pad, rounding)
    y = np.zeros((len(x), *output, x.shape[3]))
    argmax = np.zeros(y.shape, np.uint8)
    for p, q, elements in _pool_windows(x.shape, size, stride, pad, rounding):
        first, h, w = elements[0]
        best = x[:, h, w].copy()
        winner = np.full(best.shape, first)
        for index, h, w in elements[1:]:
            value = x[:, h, w]
            wins = (value > best) | (np.isnan(value) & ~np.isnan(best))
            best[wins], winner[wins] = value[wins], index
        y[:, p, q], argmax[:, p, q] = best, winner
    return y, argmax


def maxpool_bprop(dy, argmax, x_shape, size, stride, pad=(0, 0), rounding="ceil"):
    dx = np.zeros(x_shape)
    for p, q, elements in _pool_windows(x_shape, size, stride, pad, rounding):
        for index, h, w in elements:
            dx[:, h, w] += np.where(argmax[:, p, q] == index, float64(dy)[:, p, q], 0.0)
    return dx


def avgpool_fprop(x, size, stride, pad=(0, 0), rounding="ceil"):
    x = float64(x)
    y = np.zeros((len(x), *pool_size(x.shape, size, stride, pad, rounding), x.shape[3]))
    for p, q, elements in _pool_windows(x.shape, size, stride, pad, rounding):
        y[:, p, q] = sum(x[:, h, w] for _, h, w in elements) / len(elements)
    return y


def avgpool_bprop(dy, x_shape, size, stride, pad=(0, 0), rounding="ceil"):
    dx = np.zeros(x_shape)
    for p, q, elements in _pool_windows(x_shape, size, stride, pad, rounding):
        for _, h, w in elements:
            dx[:, h, w] += float64(dy)[:, p, q] / len(elements)
    return dx


# ---- blur and nailbed -----------------------------------------------------------------------


def blur(x, size, std):
    """The Gaussian with zeros outside, pixel by pixel; it is its own transpose."""
    row = np.exp(-((size // 2 - np.arange(size)) ** 2) / (2 * std**2))
    row /= row.sum()
    x, half = float64(x), size // 2
    y, (height, width) = np.zeros(x.shape), x.shape[1:3]
    for h in range(height):
        for w in range(width):
            for r in range(max(0, half - h), min(size, height + half - h)):
                for s in range(max(0, half - w), min(size, width + half - w)):
                    y[:, h, w] += row[r] * row[s] * x[:, h + r - half, w + s - half]
    return y


def nailbed_fprop(x, stride, start):
    return float64(x)[:, start::stride, start::stride]


def nailbed_bprop(dy, x_shape, stride, start):
    dx = np.zeros(x_shape)
    for p in range(dy.shape[1]):
        for q in range(dy.shape[2]):
            dx[:, start + p * stride, start + q * stride] = dy[:, p, q]
    return dx


# ---- local response normalization -----------------------------------------------------------


def lrn_window(i: int, n: int, channels: int, groups: int) -> slice:
    """Channels [i - n/2, i - n/2 + n), clipped to the group of channel i."""
    per_group = channels // groups
    start = i // per_group * per_group
    first = i - n // 2
    return slice(max(start, first), min(start + per_group, first + n))


def lrn_scale(x, n, k, alpha, groups, alpha_mode):
    """s_i = k + alpha * the sum of squares over the window of channel i (or their "mean": / n)."""
    x = float64(x)
    if alpha_mode == "mean":
        alpha = alpha / n
    s = np.empty_like(x)
    for i in range(x.shape[-1]):
        window = x[..., lrn_window(i, n, x.shape[-1], groups)]
        s[..., i] = k + alpha * (window**2).sum(axis=-1)
    return s


def lrn_fprop(x, n=5, k=2.0, alpha=1e-4, beta=0.75, groups=1, alpha_mode="sum"):
    return float64(x) * lrn_scale(x, n, k, alpha, groups, alpha_mode) ** -beta


def lrn_bprop(x, dy, n=5, k=2.0, alpha=1e-4, beta=0.75, groups=1, alpha_mode="sum"):
    """The product of dy with the Jacobian: y_j depends on x_i where i is in the window of j."""
    x, dy = float64(x), float64(dy)
    s = lrn_scale(x, n, k, alpha, groups, alpha_mode)
    if alpha_mode == "mean":
        alpha = alpha / n
    dx = dy * s**-beta
    for j in range(x.shape[-1]):
        window = lrn_window(j, n, x.shape[-1], groups)
        slope = dy[..., j] * x[..., j] * -beta * s[..., j] ** (-beta - 1)
        dx[..., window] += slope[..., None] * alpha * 2 * x[..., window]
    return dx


# ---- activations ----------------------------------------------------------------------------

# name: (y, dy/dx) at x with the constants a and b. At a kink the slope is that of the side towards
# zero output.
ACTIVATIONS = {
    "relu": (lambda x, a, b: np.maximum(0, x), lambda x, a, b: np.where(x > 0, 1.0, 0.0)),
    "tanh": (
        lambda x, a, b: a * np.tanh(b * x),
        lambda x, a, b: a * b * (1 - np.tanh(b * x) ** 2),
    ),
    "sigmoid": (
        lambda x, a, b: np.exp(-np.logaddexp(0, -x)),
        lambda x, a, b: np.exp(-np.logaddexp(0, -x) - np.logaddexp(0, x)),
    ),
    "abs": (lambda x, a, b: np.abs(x), lambda x, a, b: np.sign(x)),
    "softplus": (
        lambda x, a, b: np.logaddexp(0, x),
        lambda x, a, b: np.exp(-np.logaddexp(0, -x)),
    ),
    "square": (lambda x, a, b: x**2, lambda x, a, b: 2 * x),
    "sqrt": (lambda x, a, b: np.sqrt(x), lambda x, a, b: 0.5 / np.sqrt(x)),
    "log": (lambda x, a, b: np.log(a + x), lambda x, a, b: 1 / (a + x)),
    "brelu": (
        lambda x, a, b: np.minimum(a, np.maximum(0, x)),
        lambda x, a, b: np.where((x > 0) & (x < a), 1.0, 0.0),
    ),
    "affine": (lambda x, a, b: a * x + b, lambda x, a, b: np.full_like(x, a)),
    "drelu": (lambda x, a, b: x - a * np.tanh(x / a), lambda x, a, b: np.tanh(x / a) ** 2),
}


def activation_fprop(kind, x, a=1.0, b=1.0):
    return ACTIVATIONS[kind][0](float64(x), a, b)


def activation_slope(kind, x, a=1.0, b=1.0):
    return ACTIVATIONS[kind][1](float64(x), a, b)


# ---- random numbers and dropout -------------------------------------------------------------


def philox4x32(counter: Array, key: int) -> Array:
    """Philox4x32-10 (Salmon and others, SC 2011). counter uint32 [..., 4] -> uint32 [..., 4]."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(counter)[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def random_bits(seed: int, stream: int, step: int, index: Array) -> Array:
    """The 32 bits at each position `index` of a stream: number index % 4 of counter index / 4."""
    index = np.asarray(index, np.uint64)
    quarter = index // np.uint64(4)
    counter = np.empty((*index.shape, 4), np.uint32)
    counter[..., 0] = quarter & np.uint64(0xFFFFFFFF)
    counter[..., 1] = quarter >> np.uint64(32)
    counter[..., 2], counter[..., 3] = stream, step
    lane = (index % np.uint64(4)).astype(np.int64)
    return np.take_along_axis(philox4x32(counter, seed), lane[..., None], axis=-1)[..., 0]


def dropout_mask(
    shape: tuple, drop: float, *, seed: int, layer=0, step=0, row_offset=0, col_offset=0,
    global_cols=None,
) -> Array:  # fmt: skip
    """1 where an element is kept. `shape` is taken as [rows, columns] of a larger whole."""
    cols = shape[-1]
    rows = int(np.prod(shape)) // cols
    row, col = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    index = (row + row_offset) * (global_cols or cols) + col + col_offset
    uniform24 = random_bits(seed, layer, step, index) >> 8
    return (uniform24 >= round(drop * 2**24)).astype(np.float64).reshape(shape)


# ---- softmax, cross-entropy, update ---------------------------------------------------------


def softmax(logits):
    shifted = float64(logits) - float64(logits).max(axis=1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)


def softmax_xent(logits, labels, scale=None, weights=None):
    """(loss [N], dlogits [N, classes], rank [N]); scale 1 / N unless given."""
    logits = float64(logits)
    n, classes = logits.shape
    scale = 1 / n if scale is None else scale
    loss, rank = np.zeros(n), np.zeros(n, np.int32)
    dlogits = scale * softmax(logits)
    for i, label in enumerate(labels):
        top = logits[i].max()
        weight = 1.0 if weights is None else float64(weights)[label]
        loss[i] = weight * (np.log(np.exp(logits[i] - top).sum()) - (logits[i, label] - top))
        dlogits[i, label] -= scale
        dlogits[i] *= weight
        for j in range(classes):
            if j != label:  # a score that cannot be compared (NaN) counts against the label
                tied_after = logits[i, j] == logits[i, label] and j > label
                rank[i] += not (logits[i, j] < logits[i, label] or tied_after)
    return loss, dlogits, rank


def sgd_update(w, velocity, grad, lr_mult, decay_mult, lr, momentum, weight_decay):
    """(w, velocity) after one step of the paper's rule."""
    w, velocity, rate = float64(w), float64(velocity), lr * lr_mult
    velocity = momentum * velocity - weight_decay * decay_mult * rate * w - rate * float64(grad)
    return w + velocity, velocity


# ---- data -----------------------------------------------------------------------------------


def augment(x, offsets, mirror, mean, *, crop, affine=None, noise=None, scale=1.0):
    """Crop, mirror, add noise, subtract the mean of the same place; outside the image 0. `affine`
    turns the places of a crop about its centre; then four pixels are interpolated."""
    n, height, width, c = x.shape
    y = np.zeros((n, *crop, c))
    mean = np.broadcast_to(float64(mean), (height, width, c))
    middle = (float64(crop) - 1) / 2
    for i in range(n):
        shift = float64(noise)[i] if noise is not None else 0.0

        def value(h, w, i=i, shift=shift):
            inside = 0 <= h < height and 0 <= w < width
            return float64(x[i, h, w]) + shift - mean[h, w] if inside else np.zeros(c)

        for p in range(crop[0]):
            for q in range(crop[1]):
                place = np.array([p, crop[1] - 1 - q if mirror[i] else q])
                if affine is None:
                    h, w = place + offsets[i]
                    y[i, p, q] = scale * value(h, w)
                    continue
                h, w = offsets[i] + middle + float64(affine)[i] @ (place - middle)
                if np.isnan(h + w):
                    y[i, p, q] = np.nan
                elif -1 < h < height and -1 < w < width:
                    top, left = int(np.floor(h)), int(np.floor(w))
                    for row in (top, top + 1):
                        for column in (left, left + 1):
                            share = (1 - abs(h - row)) * (1 - abs(w - column))
                            y[i, p, q] += scale * share * value(row, column)
    return y
