"""Dropout."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.arguments import Shape, backend_of, dims_of, real_of, text_of, whole_of


def dropout_fprop(
    x: Array,
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
    out: Array | None = None,
) -> Array:
    """Dropout in training (paper, section 4.2): elements become 0 with probability ``drop``.

    The mask is a pure function of (seed, layer, step, position): the same on every backend.

    Args:
        x: [..., C].
        drop: in [0, 1).
        seed, layer, step: 64, 32 and 32 bits: key and counter of Philox4x32-10.
        mode: ``"paper"`` leaves the kept elements as they are (outputs are multiplied by 1 - drop
            at test time); ``"inverted"`` divides them by 1 - drop (and leaves test time alone).
        row_offset, col_offset, global_cols: where x lies as a block of a larger [rows, global_cols]
            tensor; the block gets its part of the whole's mask.
        state: uint32 [12] on the same device (see :mod:`convnet.ops.step_state`): seed and step are
            taken from it, as they are when the operation runs, in place of those given.
        out: same shape; may be x.
    """
    return _dropout("dropout_fprop", x, drop, seed, layer, step, mode, row_offset, col_offset,
                    global_cols, state, out)  # fmt: skip


def dropout_bprop(
    dy: Array,
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
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`dropout_fprop`: the same mask, drawn again. ``out`` may be dy."""
    return _dropout("dropout_bprop", dy, drop, seed, layer, step, mode, row_offset, col_offset,
                    global_cols, state, out)  # fmt: skip


def _dropout(
    op: str,
    x: Array,
    drop: float,
    seed: int,
    layer: int,
    step: int,
    mode: str,
    row_offset: int,
    col_offset: int,
    global_cols: int | None,
    state: Array | None,
    out: Array | None,
) -> Array:
    be = backend_of(op, x=x, out=out, state=state)
    shape = dims_of(op, "x", x)
    mask = mask_of(op, shape, drop, seed, layer, step, mode, row_offset, col_offset, global_cols)
    if out is None:
        out = be.empty(shape)
    be.module.dropout(x, out, *mask, state, be.stream())
    return out


def mask_of(
    op: str,
    shape: Shape,
    drop: float,
    seed: int,
    layer: int,
    step: int,
    mode: str,
    row_offset: int,
    col_offset: int,
    global_cols: int | None,
) -> tuple[float, float, int, int, int, int, int, int]:
    """What the binding is told of a mask over an array of this shape, checked."""
    if text_of(op, "mode", mode) not in ("paper", "inverted"):
        raise ValueError(f'{op}: mode: expected "paper" or "inverted", got {mode!r}')
    drop = real_of(op, "drop", drop)
    if not 0.0 <= drop < 1.0:
        raise ValueError(f"{op}: drop: expected a probability in [0, 1), got {drop}")
    if global_cols is None:
        global_cols = shape[-1] + whole_of(op, "col_offset", col_offset) if shape else 1
    return (
        drop,
        1.0 / (1.0 - drop) if mode == "inverted" else 1.0,
        whole_of(op, "seed", seed, 0, 2**64 - 1),
        whole_of(op, "layer", layer, 0, 2**32 - 1),
        whole_of(op, "step", step, 0, 2**32 - 1),
        whole_of(op, "row_offset", row_offset, 0, 2**40),
        whole_of(op, "col_offset", col_offset),
        whole_of(op, "global_cols", global_cols),
    )
