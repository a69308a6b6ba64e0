"""Local response normalization."""

from __future__ import annotations

from convnet.backend import Array
from convnet.ops.arguments import backend_of, dims_of, real_of, text_of, whole_of


def lrn_arguments(
    op: str, n: int, k: float, alpha: float, beta: float, groups: int, mode: str
) -> tuple:
    """What the compiled operations take, of checked types."""
    return (
        whole_of(op, "n", n),
        real_of(op, "k", k),
        real_of(op, "alpha", alpha),
        real_of(op, "beta", beta),
        whole_of(op, "groups", groups),
        text_of(op, "alpha_mode", mode),
    )


def lrn_fprop(
    x: Array,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    *,
    out: Array | None = None,
) -> Array:
    """Local response normalization across channels (paper, section 3.3).

    ``y_i = x_i / (k + alpha sum_j x_j^2)^beta`` with j over the n channels ``i - n//2 ...
    i - n//2 + n - 1``, clipped to i's group.

    Args:
        x: [..., C].
        n: channels in the window, at least 1.
        k, alpha, beta: k > 0, alpha >= 0, beta >= 0.
        groups: divides C; a window never crosses a group.
        alpha_mode: ``"sum"`` as in the paper, or ``"mean"`` as in cuda-convnet, Caffe and PyTorch,
            where alpha is divided by n.
        out: same shape as x, another array.
    """
    op = "lrn_fprop"
    be = backend_of(op, x=x, out=out)
    parameters = lrn_arguments(op, n, k, alpha, beta, groups, alpha_mode)
    if out is None:
        out = be.empty(dims_of(op, "x", x))
    be.module.lrn_fprop(x, out, *parameters, be.stream())
    return out


def lrn_bprop(
    x: Array,
    dy: Array,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    groups: int = 1,
    alpha_mode: str = "sum",
    *,
    out: Array | None = None,
) -> Array:
    """Gradient of :func:`lrn_fprop` with respect to x, from x and dy [..., C]."""
    op = "lrn_bprop"
    be = backend_of(op, x=x, dy=dy, out=out)
    parameters = lrn_arguments(op, n, k, alpha, beta, groups, alpha_mode)
    if out is None:
        out = be.empty(dims_of(op, "x", x))
    be.module.lrn_bprop(x, dy, out, *parameters, be.stream())
    return out
