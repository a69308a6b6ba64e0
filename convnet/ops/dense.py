"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.common.deprecated import renamed_keyword
from convnet.ops.arguments import backend_of, dims_of, outputs, real_of, shape_of, text_of, whole_of
from convnet.ops.dropout import mask_of
from convnet.ops.precision import precision_of


@renamed_keyword("math", "precision")
def dense_workspace(
    x_shape: Sequence[int], w_shape: Sequence[int], *, dgrad: bool = True, precision: str = "fp32"
) -> int:
    """The most scratch memory that a pass over x [N, C] and w [K, C] takes, in bytes, on the
    backend that is in use; `dgrad`: whether the gradient of x counts."""
    shapes = shape_of("dense", "x", x_shape), shape_of("dense", "w", w_shape)
    module = _backend.of().module
    passes = ("fprop", "dgrad", "wgrad") if dgrad else ("fprop", "wgrad")
    precision = precision_of("dense", precision)
    return max(int(module.dense_workspace(each, *shapes, precision)) for each in passes)


@renamed_keyword("math", "precision")
def dense_kernel(
    pass_name: str, x_shape: Sequence[int], w_shape: Sequence[int], *, precision: str = "fp32"
) -> str:
    """The kernel that "fprop", "dgrad" or "wgrad" of x [N, C] and w [K, C] takes on the backend
    that is in use: such as "mma.sync, 128x64, 3 splits", "matmul" or "matmul, bf16"; see
    :func:`convnet.ops.conv_kernel`."""
    shapes = shape_of("dense", "x", x_shape), shape_of("dense", "w", w_shape)
    pass_name, precision = (
        text_of("dense", "pass_name", pass_name),
        precision_of("dense", precision),
    )
    return str(_backend.of().module.dense_kernel(pass_name, *shapes, precision))


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
        precision: in which products are formed; see :mod:`convnet.ops`.
        out: [N, K].

    Returns:
        y [N, K].
    """
    op = "dense_fprop"
    precision = precision_of(op, precision)
    be = backend_of(op, x=x, w=w, b=b, out=out)
    shapes = dims_of(op, "x", x), dims_of(op, "w", w)
    space = be.workspace(be.module.dense_workspace("fprop", *shapes, precision))
    if out is None:
        out = be.empty((shapes[0][0], shapes[1][0]))
    be.module.dense_fprop(x, w, b, out, bool(relu), space, be.stream(), precision)
    return out


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
    """:func:`dense_fprop`, and :func:`convnet.ops.dropout_fprop` of its output, in one pass.

    Args:
        x, w, b, relu, precision: as for `dense_fprop`.
        drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state: as for
            `dropout_fprop` of y.
        out: [N, K].

    Returns:
        y [N, K], with the bits that the two would give it.
    """
    op = "dense_fprop_dropout"
    precision = precision_of(op, precision)
    be = backend_of(op, x=x, w=w, b=b, state=state, out=out)
    x_shape, units = dims_of(op, "x", x, 2), dims_of(op, "w", w, 2)[0]
    y_shape, w_shape = (x_shape[0], units), (units, x_shape[1])
    mask = mask_of(op, y_shape, drop, seed, layer, step, mode, row_offset, col_offset, global_cols)
    space = be.workspace(be.module.dense_workspace("fprop", x_shape, w_shape, precision))
    if out is None:
        out = be.empty(y_shape)
    be.module.dense_fprop_dropout(
        x, w, b, out, bool(relu), *mask, state, space, be.stream(), precision
    )
    return out


@renamed_keyword("math", "precision")
def dense_dgrad(
    dy: Array,
    w: Array,
    *,
    relu_mask: Array | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`dense_fprop` with respect to x: ``dx = dy w`` [N, C].

    Args:
        dy: [N, K].
        w: [K, C].
        relu_mask: [N, C], or None; dx becomes 0 where it is <= 0.
        precision: in which products are formed; see :mod:`convnet.ops`.
        out: [N, C].
    """
    op = "dense_dgrad"
    precision = precision_of(op, precision)
    be = backend_of(op, dy=dy, w=w, relu_mask=relu_mask, out=out)
    shapes = (dims_of(op, "dy", dy, 2)[0], dims_of(op, "w", w, 2)[1]), dims_of(op, "w", w)
    space = be.workspace(be.module.dense_workspace("dgrad", *shapes, precision))
    if out is None:
        out = be.empty(shapes[0])
    be.module.dense_dgrad(dy, w, relu_mask, out, space, be.stream(), precision)
    return out


@renamed_keyword("math", "precision")
def dense_wgrad(
    x: Array,
    dy: Array,
    *,
    bias: bool = True,
    precision: str = "fp32",
    out: tuple[Array, Array | None] | None = None,
) -> tuple[Array, Array | None]:
    """Gradients of :func:`dense_fprop`: ``dw = dy^T x`` [K, C], and db [K] or None.

    Args:
        x: [N, C].
        dy: [N, K].
        bias: whether db is wanted.
        precision: in which products are formed; see :mod:`convnet.ops`.
        out: (dw, db), written and returned; db may be None.
    """
    op = "dense_wgrad"
    precision = precision_of(op, precision)
    dw, db = outputs(op, out, 2)
    be = backend_of(op, x=x, dy=dy, dw=dw, db=db)
    x_shape = dims_of(op, "x", x, 2)
    w_shape = dims_of(op, "dy", dy, 2)[1], x_shape[1]
    space = be.workspace(be.module.dense_workspace("wgrad", x_shape, w_shape, precision))
    if out is None:
        dw, db = be.empty(w_shape), be.empty(w_shape[:1]) if bias else None
    be.module.dense_wgrad(x, dy, dw, db, space, be.stream(), precision)
    return dw, db


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
    out: Array | None = None,
) -> Array | None:
    """:func:`dense_wgrad`, and :func:`convnet.ops.sgd_update` of w by it, in one pass.

    The gradient of w is never stored. w and velocity have the bits that the two would give them.

    Args:
        x: [N, C].
        dy: [N, K].
        w, velocity: [K, C], written in place.
        lr, momentum, weight_decay, lr_mult, decay_mult, state: as for `sgd_update`; number: by
            which w is noted in the state.
        bias: whether db is wanted.
        precision: in which products are formed; see :mod:`convnet.ops`.
        out: db [K].

    Returns:
        db [K], the gradient of the bias, with which nothing has been done; or None.
    """
    op = "dense_wgrad_sgd"
    precision = precision_of(op, precision)
    be = backend_of(op, x=x, dy=dy, w=w, velocity=velocity, state=state, out=out)
    rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    rates |= {"lr_mult": lr_mult, "decay_mult": decay_mult}
    numbers = [real_of(op, name, value) for name, value in rates.items()]
    x_shape = dims_of(op, "x", x, 2)
    w_shape = dims_of(op, "dy", dy, 2)[1], x_shape[1]
    space = be.workspace(be.module.dense_workspace("wgrad", x_shape, w_shape, precision))
    if out is None and bias:
        out = be.empty(w_shape[:1])
    numbers.append(whole_of(op, "number", number, 1))
    be.module.dense_wgrad_sgd(
        x, dy, w, velocity, out, *numbers, state, space, be.stream(), precision
    )
    return out
