"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.common.deprecated import renamed_keyword
from convnet.ops.call import call, outputs


@renamed_keyword("math", "precision")
def dense_workspace(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    dgrad: bool = True,
    precision: str = "fp32",
    dtype: str = "float32",
) -> int:
    """The most scratch memory that a pass takes, in bytes, on the backend that is in use.

    Args:
        x_shape: (N, C).
        w_shape: (K, C).
        dgrad: whether the gradient of x counts.
        precision: as in `dense_fprop`.
        dtype: of the activations, "float32" or "bfloat16".

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    module = _backend.of().module
    passes = ("fprop", "dgrad", "wgrad") if dgrad else ("fprop", "wgrad")
    return max(module.dense_workspace(each, x_shape, w_shape, precision, dtype) for each in passes)


@renamed_keyword("math", "precision")
def dense_kernel(
    pass_name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    precision: str = "fp32",
    dtype: str = "float32",
) -> str:
    """The kernel that a pass takes on the backend that is in use: such as "mma.sync, 128x64, 3
    splits", "matmul" or "matmul, bf16"; see `convnet.ops.conv_kernel`.

    Args:
        pass_name: "fprop", "dgrad" or "wgrad".
        x_shape: (N, C).
        w_shape: (K, C).
        precision: as in `dense_fprop`.
        dtype: of the activations, "float32" or "bfloat16".

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    return _backend.of().module.dense_kernel(pass_name, x_shape, w_shape, precision, dtype)


@renamed_keyword("math", "precision")
def dense_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    relu: bool = False,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Fully connected layer: ``y = x w^T + b``.

    Args:
        x: [N, C].
        w: [K, C].
        b: [K], or None.
        relu: return max(0, y).
        precision: the multiply precision; see `convnet.ops`.
        out: [N, K].

    Returns:
        y [N, K].
    """
    return call("dense_fprop", x, w, b, out, relu, precision)


@renamed_keyword("math", "precision")
def dense_fprop_dropout(
    x: Array,
    w: Array,
    b: Array | None = None,
    drop: float = 0.5,
    *,
    seed: int,
    layer: int = 0,
    step: int = 0,
    mode: str = "paper",
    row_offset: int = 0,
    col_offset: int = 0,
    global_cols: int | None = None,
    state: Array | None = None,
    relu: bool = False,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """`dense_fprop`, and `convnet.ops.dropout_fprop` of its output, in one pass.

    Args:
        x, w, b, relu, precision: as for `dense_fprop`.
        drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state: as for
            `dropout_fprop` of y.
        out: [N, K].

    Returns:
        y [N, K], with the bits that the two would give it.
    """
    mask = (drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state)
    return call("dense_fprop_dropout", x, w, b, out, relu, *mask, precision)


@renamed_keyword("math", "precision")
def dense_dgrad(
    dy: Array,
    w: Array,
    *,
    relu_mask: Array | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Gradient of `dense_fprop` with respect to x: ``dx = dy w``.

    Args:
        dy: [N, K].
        w: [K, C].
        relu_mask: [N, C], or None; dx becomes 0 where it is <= 0.
        precision: the multiply precision; see `convnet.ops`.
        out: [N, C].

    Returns:
        dx [N, C].
    """
    return call("dense_dgrad", dy, w, relu_mask, out, precision)


@renamed_keyword("math", "precision")
def dense_wgrad(
    x: Array,
    dy: Array,
    *,
    bias: bool = True,
    precision: str = "fp32",
    out: tuple[Array, Array | None] | None = None,
) -> tuple[Array, Array | None]:
    """Gradients of `dense_fprop`: ``dw = dy^T x``, and db, the sum of dy over the batch.

    Args:
        x: [N, C].
        dy: [N, K].
        bias: whether db is wanted.
        precision: the multiply precision; see `convnet.ops`.
        out: (dw, db), written and returned; db may be None.

    Returns:
        dw [K, C], and db [K] or None.
    """
    dw, db = outputs("dense_wgrad", out, None, True if bias else None)
    return call("dense_wgrad", x, dy, dw, db, precision)


@renamed_keyword("math", "precision")
def dense_wgrad_sgd(
    x: Array,
    dy: Array,
    w: Array,
    velocity: Array,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    *,
    lr_mult: float = 1.0,
    decay_mult: float = 1.0,
    bias: bool = True,
    precision: str = "fp32",
    state: Array | None = None,
    number: int = 1,
    rates: Array | None = None,
    out: Array | None = None,
) -> Array | None:
    """`dense_wgrad`, and `convnet.ops.sgd_update` of w by it, in one pass.

    The gradient of w is never stored. w and velocity have the bits that the two would give them.

    Args:
        x: [N, C].
        dy: [N, K].
        w, velocity: [K, C], written in place.
        lr, momentum, weight_decay, lr_mult, decay_mult, state, rates: as for `sgd_update`; number:
            by which w is noted in the state, and its row of rates found.
        bias: whether db is wanted.
        precision: the multiply precision; see `convnet.ops`.
        out: db [K].

    Returns:
        db [K], the gradient of the bias, with which nothing has been done; or None.
    """
    rule = (lr, momentum, weight_decay, lr_mult, decay_mult, number, rates, state)
    db = out if out is not None else True if bias else None
    return call("dense_wgrad_sgd", x, dy, w, velocity, db, *rule, precision)
