"""Dropout."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.call import call


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
        state: uint32 [12] on the same device (see `convnet.ops.step_state`): seed and step are
            taken from it, as they are when the operation runs, in place of those given.
        out: same shape; may be x.

    Returns:
        y, of the shape of x.
    """
    mask = (drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state)
    return call("dropout", x, out, *mask)


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
    """Gradient of `dropout_fprop`: the same mask, drawn again.

    Args:
        dy: [..., C].
        drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state: as in the forward
            pass.
        out: same shape; may be dy.

    Returns:
        dx, of the shape of dy.
    """
    mask = (drop, seed, layer, step, mode, row_offset, col_offset, global_cols, state)
    return call("dropout", dy, out, *mask)
