"""What looks at windows of an image: convolution, dense layers as one of them, pooling, blur."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reference.arrays import Array, Pair, float64

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
