"""The compiled operations on the host; convnet._cuda and convnet._emulator have the same surface.

Inputs first, then outputs, then parameters. :mod:`convnet.ops` documents each operation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_Array = Any

def start_backend() -> None: ...
def backend_name() -> str: ...
def device_count() -> int: ...
def device_description(device: int = 0) -> str: ...
def build_description() -> str: ...
def math_description(math: str) -> str: ...
def pretend_implementation(name: str) -> None: ...
def thread_count() -> int: ...
def set_thread_count(threads: int) -> None: ...
def tile_choice(
    pass_: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    math: str,
    /,
) -> tuple[str, str, list[int], str, int, str]: ...
def tiles_of(pass_: str, math: str, /) -> list[str]: ...
def set_tile_choices(
    rows: Sequence[tuple[str, str, Sequence[int], str, int, str]] | None, /
) -> None: ...
def conv_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    /,
) -> tuple[int, ...]: ...
def local_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    /,
) -> tuple[int, ...]: ...
def pool_output_shape(
    x_shape: Sequence[int],
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    /,
) -> tuple[int, ...]: ...
def conv_workspace(
    pass_: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    math: str = "fp32",
    /,
) -> int: ...
def conv_kernel(
    pass_: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    math: str = "fp32",
    /,
) -> str: ...
def dense_workspace(
    pass_: str, x_shape: Sequence[int], w_shape: Sequence[int], math: str = "fp32", /
) -> int: ...
def dense_kernel(
    pass_: str, x_shape: Sequence[int], w_shape: Sequence[int], math: str = "fp32", /
) -> str: ...
def conv_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    relu: bool,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def conv_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def conv_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def local_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    relu: bool,
    stream: int = 0,
) -> None: ...
def local_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    stream: int = 0,
) -> None: ...
def local_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    groups: int,
    stream: int = 0,
) -> None: ...
def dense_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    relu: bool,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def dense_fprop_dropout(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    relu: bool,
    drop: float,
    scale: float,
    seed: int,
    stream_id: int,
    step: int,
    row_offset: int,
    col_offset: int,
    global_cols: int,
    state: _Array | None,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def dense_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def dense_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def dense_wgrad_sgd(
    x: _Array,
    dy: _Array,
    w: _Array,
    velocity: _Array,
    db: _Array | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    lr_mult: float,
    decay_mult: float,
    number: int,
    state: _Array | None,
    workspace: _Array | None,
    stream: int = 0,
    math: str = "fp32",
) -> None: ...
def maxpool_fprop(
    x: _Array,
    y: _Array,
    argmax: _Array,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def maxpool_bprop(
    dy: _Array,
    argmax: _Array,
    dx: _Array,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def avgpool_fprop(
    x: _Array,
    y: _Array,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def avgpool_bprop(
    dy: _Array,
    dx: _Array,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def lrn_fprop(
    x: _Array,
    y: _Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    alpha_mode: str,
    stream: int = 0,
) -> None: ...
def lrn_bprop(
    x: _Array,
    dy: _Array,
    dx: _Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    alpha_mode: str,
    stream: int = 0,
) -> None: ...
def lrn_maxpool_fprop(
    x: _Array,
    y: _Array,
    argmax: _Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    alpha_mode: str,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def lrn_maxpool_bprop(
    x: _Array,
    dy: _Array,
    argmax: _Array,
    dx: _Array,
    relu_mask: bool,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    alpha_mode: str,
    size_h: int,
    size_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    rounding: str,
    stream: int = 0,
) -> None: ...
def activation_saves_output(kind: str, /) -> bool: ...
def activation_fprop(
    kind: str, x: _Array, y: _Array, a: float, b: float, stream: int = 0
) -> None: ...
def activation_bprop(
    kind: str, saved: _Array, dy: _Array, dx: _Array, a: float, b: float, stream: int = 0
) -> None: ...
def accumulate(src: _Array, dst: _Array, stream: int = 0) -> None: ...
def dropout(
    x: _Array,
    y: _Array,
    drop: float,
    scale: float,
    seed: int,
    stream_id: int,
    step: int,
    row_offset: int,
    col_offset: int,
    global_cols: int,
    stream: int = 0,
) -> None: ...
def softmax_fprop(logits: _Array, probs: _Array, stream: int = 0) -> None: ...
def softmax_xent(
    logits: _Array,
    labels: _Array,
    loss: _Array,
    dlogits: _Array | None,
    rank: _Array,
    scale: float,
    stream: int = 0,
) -> None: ...
def sgd_update(
    w: list[_Array],
    velocity: list[_Array],
    grad: list[_Array],
    lr_mult: Sequence[float],
    decay_mult: Sequence[float],
    number: Sequence[int],
    lr: float,
    momentum: float,
    weight_decay: float,
    own_rates: bool,
    state: _Array | None,
    stream: int = 0,
) -> None: ...
def augment(
    x: _Array,
    offsets: _Array,
    mirror: _Array,
    noise: _Array | None,
    mean: _Array,
    y: _Array,
    crop_h: int,
    crop_w: int,
    scale: float,
    stream: int = 0,
) -> None: ...
def peer_copy(
    src: _Array,
    dst: _Array,
    src_col: int,
    dst_col: int,
    cols: int,
    src_device: int = 0,
    dst_device: int = 0,
    stream: int = 0,
) -> None: ...
def peer_add(
    src: _Array,
    dst: _Array,
    src_col: int,
    dst_col: int,
    cols: int,
    src_device: int = 0,
    dst_device: int = 0,
    stream: int = 0,
) -> None: ...
def philox(seed: int, stream: int, step: int, indices: np.ndarray) -> np.ndarray: ...
