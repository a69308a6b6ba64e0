"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence

from convnet import backend as _backend
from convnet.backend import Array
from convnet.common.deprecated import renamed_keyword
from convnet.ops.call import Pair, Shape, call, given, outputs


def conv_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
) -> Shape:
    """The shape of the output of a convolution.

    Args:
        x_shape: (N, H, W, C).
        w_shape: (K, R, S, C/groups).
        stride, pad, groups, rounding: as in `conv_fprop`.

    Returns:
        (N, P, Q, K).

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    module = _backend.get("cpu").module
    return module.conv_output_shape(x_shape, w_shape, stride, pad, rounding, groups)


@renamed_keyword("math", "precision")
def conv_workspace(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    dgrad: bool = True,
    precision: str = "fp32",
    dtype: str = "float32",
) -> int:
    """The most scratch memory that a pass of a convolution takes, in bytes, on the backend that is
    in use.

    Args:
        x_shape, w_shape: as in `conv_output_shape`.
        stride, pad, groups, rounding, precision: as in `conv_fprop`.
        dgrad: whether the gradient of x counts.
        dtype: of the activations, "float32" or "bfloat16".

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    module, given = (
        _backend.of().module,
        (x_shape, w_shape, stride, pad, rounding, groups, precision, dtype),
    )
    passes = ("fprop", "dgrad", "wgrad") if dgrad else ("fprop", "wgrad")
    return max(module.conv_workspace(each, *given) for each in passes)


@renamed_keyword("math", "precision")
def conv_kernel(
    pass_name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    precision: str = "fp32",
    dtype: str = "float32",
) -> str:
    """The kernel or algorithm that "fprop", "dgrad" or "wgrad" takes on the backend that is in use,
    for arrays aligned to 16 bytes: such as "wgmma, 256x128" (the tile: pixels x filters, in wgrad
    rows of dw x filters), "mma.sync, 128x64, 3 splits", "Winograd, F(2 x 2, 3 x 3)" or "direct".

    Tensor cores compute in the precision that is asked for. On the CPU a kernel that computes in a
    lower one ends in it ("direct, bf16", "tiles, bf16"), and every other computes in float32, also
    of bfloat16 arrays.

    CONVNET_WGMMA, CONVNET_WINOGRAD and CONVNET_AMX (auto, off, always) overrule the choice; see
    docs/kernels.md, docs/performance.md and docs/precision.md.

    Args:
        pass_name: "fprop", "dgrad" or "wgrad".
        x_shape, w_shape: as in `conv_output_shape`.
        stride, pad, groups, rounding, precision: as in `conv_fprop`.
        dtype: of the activations, "float32" or "bfloat16".

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    module = _backend.of().module
    options = stride, pad, rounding, groups, precision, dtype
    return module.conv_kernel(pass_name, x_shape, w_shape, *options)


@renamed_keyword("math", "precision")
def conv_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu: bool = False,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """2-D cross-correlation (paper, section 3.5).

    ``y[n,p,q,k] = b[k] + sum_{r,s,c} x[n,h,w,c] w[k,r,s,c]`` with ``h = p stride_h - pad_h + r``,
    ``w = q stride_w - pad_w + s`` and c over the channels of k's
    group; reads outside the image are zero.

    Args:
        x: [N, H, W, C].
        w: [K, R, S, C/groups].
        b: [K], or None.
        stride, pad: at least 1, at least 0.
        groups: divides both C and K; group g of the filters sees group g of the channels.
        rounding: ``"floor"`` or ``"ceil"``; ceil makes 224, 11, stride 4 give 55.
        relu: return max(0, y).
        precision: the multiply precision; see `convnet.ops`.
        out: [N, P, Q, K], written and returned.

    Returns:
        y [N, P, Q, K].

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    return call("conv_fprop", x, w, b, out, stride, pad, rounding, groups, relu, precision)


def conv_prepared_bytes(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    precision: str = "fp32",
    dtype: str = "float32",
) -> int:
    """How much memory the filters that `conv_prepare` makes take.

    Args:
        x_shape: (N, H, W, C).
        w_shape: (K, R, S, C/groups).
        stride, pad, groups, rounding, precision: as for `conv_fprop`.
        dtype: of the activations, "float32" or "bfloat16".

    Returns:
        Bytes on the backend that is in use, the same for any number of threads; 0 where
        `conv_fprop` takes w as it lies, and there is nothing to prepare.
    """
    module = _backend.of().module
    options = stride, pad, rounding, groups, precision, dtype
    return module.conv_prepared_bytes(x_shape, w_shape, *options)


def conv_prepare(
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    precision: str = "fp32",
    dtype: str = "float32",
    out: Array | None = None,
) -> Array:
    """Filters in the form in which `conv_fprop` multiplies them: transformed for Winograd's
    algorithm, blocked, or split for tensor cores. `conv_fprop` makes them of w each time; where w
    stays the same, they can be made once.

    Args:
        w: [K, R, S, C/groups].
        x_shape: (N, H, W, C) of the x that they will meet.
        stride, pad, groups, rounding, precision: as for `conv_fprop`, and as they will be there.
        dtype: of that x, "float32" or "bfloat16".
        out: uint8 of `conv_prepared_bytes` bytes, written and returned.

    Returns:
        The prepared filters, uint8, for `conv_fprop_prepared` on this device. They depend on
        the settings (CONVNET_WINOGRAD, CONVNET_AMX, CONVNET_WGMMA, the table of tiles) under which
        they were made.

    Raises:
        ValueError: an argument does not fit, or there is nothing to prepare.
    """
    return call("conv_prepare", w, out, x_shape, stride, pad, rounding, groups, precision, dtype)


def conv_fprop_prepared(
    x: Array,
    prepared: Array,
    w_shape: Sequence[int],
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu: bool = False,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """`conv_fprop` of filters that `conv_prepare` has made; the same bits.

    Args:
        x: [N, H, W, C].
        prepared: uint8, made for the shape of x and the same options. On a GPU both begin at
            multiples of 16 bytes.
        w_shape: (K, R, S, C/groups).
        b, stride, pad, groups, rounding, relu, precision, out: as for `conv_fprop`.

    Returns:
        y [N, P, Q, K].

    Raises:
        ValueError: an argument does not fit; the message names it.
    """
    options = stride, pad, rounding, groups, relu, precision
    return call("conv_fprop_prepared", x, prepared, b, out, w_shape, *options)


@renamed_keyword("math", "precision")
def conv_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    relu_mask: Array | None = None,
    precision: str = "fp32",
    out: Array | None = None,
) -> Array:
    """Gradient of `conv_fprop` with respect to x.

    Args:
        dy: [N, P, Q, K].
        w: [K, R, S, C/groups].
        x_shape: (N, H, W, C).
        stride, pad, groups, rounding: as in `conv_fprop`.
        relu_mask: [N, H, W, C], or None. Where it is <= 0, dx becomes 0: the backward pass of the
            ReLU that x came out of, for free.
        precision: the multiply precision; see `convnet.ops`.
        out: [N, H, W, C].

    Returns:
        dx [N, H, W, C].
    """
    dx = given(out, x_shape)
    return call("conv_dgrad", dy, w, relu_mask, dx, stride, pad, rounding, groups, precision)


@renamed_keyword("math", "precision")
def conv_wgrad(
    x: Array,
    dy: Array,
    w_shape: Sequence[int],
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    groups: int = 1,
    rounding: str = "floor",
    bias: bool = True,
    precision: str = "fp32",
    out: tuple[Array, Array | None] | None = None,
) -> tuple[Array, Array | None]:
    """Gradients of `conv_fprop` with respect to w and b.

    Args:
        x: [N, H, W, C].
        dy: [N, P, Q, K].
        w_shape: (K, R, S, C/groups).
        stride, pad, groups, rounding: as in `conv_fprop`.
        bias: whether db is wanted.
        precision: the multiply precision; see `convnet.ops`.
        out: (dw, db), written and returned; db may be None.

    Returns:
        dw [K, R, S, C/groups], and db [K] or None.
    """
    dw, db = outputs("conv_wgrad", out, given(None, w_shape), True if bias else None)
    return call("conv_wgrad", x, dy, dw, db, stride, pad, rounding, groups, precision)
