"""What looks at an element and its channels: LRN, activations, dropout, losses, the update."""

from __future__ import annotations

import numpy as np

from reference.arrays import Array, float64

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
