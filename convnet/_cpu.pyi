"""The compiled operations on the host; convnet._cuda and convnet._vgpu have the same surface.

Written by bindings/stubs.py from the schema in bindings/operations/ and queries.cpp. An
operation takes its stream last; :mod:`convnet.ops` documents each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_Array = Any
_Tile = tuple[str, str, Sequence[int], str, int, str]

class Recording:
    """The operations called between `begin` and `end` on a thread, which `run` calls again."""

    def __init__(self) -> None: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def run(self) -> None: ...
    @property
    def names(self) -> list[str]: ...

def schema() -> list[tuple[str, list[tuple[str, str, str, bool, bool, str]], str]]:
    """For each function below: its name; its arguments as (name, role, type, optional, several,
    the input whose memory it may have); and what it returns, "" for an operation."""

def infer(op: str, /, *arguments: Any) -> tuple[list[tuple[int, tuple[int, ...], Any]], int]:
    """For an operation with these arguments, without workspace and stream, of which only shapes
    are looked at: the outputs that have yet to be made as (number of the argument, shape, dtype),
    and the bytes of its workspace."""

def start_backend() -> None: ...
def backend_name() -> str: ...
def device_count() -> int: ...
def device_description(device: int = 0) -> str: ...
def build_description() -> str: ...
def pretend_implementation(name: str) -> None: ...
def set_tile_choices(rows: Sequence[_Tile] | None) -> None: ...
def thread_count() -> int: ...
def set_thread_count(threads: int) -> None: ...
def conv_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    relu: bool,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def conv_prepare(
    w: _Array,
    prepared: _Array,
    x_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    dtype: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def conv_fprop_prepared(
    x: _Array,
    prepared: _Array,
    b: _Array | None,
    y: _Array,
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    relu: bool,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def conv_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def conv_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def local_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    relu: bool,
    stream: int,
    /,
) -> None: ...
def local_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    stream: int,
    /,
) -> None: ...
def local_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    stream: int,
    /,
) -> None: ...
def dense_fprop(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    relu: bool,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def dense_fprop_dropout(
    x: _Array,
    w: _Array,
    b: _Array | None,
    y: _Array,
    relu: bool,
    drop: float,
    seed: int,
    layer: int,
    step: int,
    mode: str,
    row_offset: int,
    col_offset: int,
    global_cols: int | None,
    state: _Array | None,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def dense_dgrad(
    dy: _Array,
    w: _Array,
    relu_mask: _Array | None,
    dx: _Array,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def dense_wgrad(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
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
    rates: _Array | None,
    state: _Array | None,
    precision: str,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def maxpool_fprop(
    x: _Array,
    y: _Array,
    argmax: _Array,
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
) -> None: ...
def maxpool_bprop(
    dy: _Array,
    argmax: _Array,
    dx: _Array,
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
) -> None: ...
def avgpool_fprop(
    x: _Array,
    y: _Array,
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
) -> None: ...
def avgpool_bprop(
    dy: _Array,
    dx: _Array,
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
) -> None: ...
def blur(x: _Array, y: _Array, size: int, std: float, stream: int, /) -> None: ...
def nailbed_fprop(x: _Array, y: _Array, stride: int, start: int, stream: int, /) -> None: ...
def nailbed_bprop(dy: _Array, dx: _Array, stride: int, start: int, stream: int, /) -> None: ...
def lrn_fprop(
    x: _Array,
    y: _Array,
    n: int,
    k: float,
    alpha: float,
    beta: float,
    groups: int,
    alpha_mode: str,
    stream: int,
    /,
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
    stream: int,
    /,
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
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
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
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    stream: int,
    /,
) -> None: ...
def activation_fprop(
    kind: str, x: _Array, y: _Array, a: float, b: float, stream: int, /
) -> None: ...
def activation_bprop(
    kind: str, saved: _Array, dy: _Array, dx: _Array, a: float, b: float, stream: int, /
) -> None: ...
def accumulate(src: _Array, dst: _Array, stream: int, /) -> None: ...
def dropout(
    x: _Array,
    y: _Array,
    drop: float,
    seed: int,
    layer: int,
    step: int,
    mode: str,
    row_offset: int,
    col_offset: int,
    global_cols: int | None,
    state: _Array | None,
    stream: int,
    /,
) -> None: ...
def to_bfloat16(x: _Array, y: _Array, stream: int, /) -> None: ...
def to_float32(x: _Array, y: _Array, stream: int, /) -> None: ...
def augment(
    x: _Array,
    offsets: _Array,
    mirror: _Array,
    affine: _Array | None,
    noise: _Array | None,
    mean: _Array,
    y: _Array,
    crop: int | tuple[int, int],
    scale: float,
    dtype: str | None,
    stream: int,
    /,
) -> None: ...
def softmax_fprop(logits: _Array, probs: _Array, stream: int, /) -> None: ...
def softmax_xent(
    logits: _Array,
    labels: _Array,
    weights: _Array | None,
    loss: _Array,
    dlogits: _Array | None,
    rank: _Array,
    scale: float | None,
    stream: int,
    /,
) -> None: ...
def sgd_update(
    w: Sequence[_Array],
    velocity: Sequence[_Array],
    grad: Sequence[_Array],
    lr_mult: Sequence[float],
    decay_mult: Sequence[float],
    number: Sequence[int],
    lr: float,
    momentum: float,
    weight_decay: float,
    rates: _Array | None,
    state: _Array | None,
    stream: int,
    /,
) -> None: ...
def peer_copy(
    src: _Array,
    dst: _Array,
    src_col: int,
    dst_col: int,
    cols: int | None,
    src_device: int,
    dst_device: int,
    stream: int,
    /,
) -> None: ...
def peer_add(
    src: _Array,
    dst: _Array,
    src_col: int,
    dst_col: int,
    cols: int | None,
    src_device: int,
    dst_device: int,
    stream: int,
    /,
) -> None: ...
def peer_checksum(
    src: _Array,
    count: _Array,
    checksum: _Array,
    src_col: int,
    cols: int | None,
    device: int,
    other_device: int,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def peer_check(
    src: _Array,
    count: _Array,
    checksum: _Array,
    aborted: _Array,
    code: int,
    src_col: int,
    cols: int | None,
    device: int,
    workspace: _Array | None,
    stream: int,
    /,
) -> None: ...
def peer_abort(aborted: _Array, other: _Array, other_device: int, stream: int, /) -> None: ...
def conv_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    /,
) -> tuple[int, ...]: ...
def local_output_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    /,
) -> tuple[int, ...]: ...
def pool_output_shape(
    x_shape: Sequence[int],
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    /,
) -> tuple[int, ...]: ...
def conv_workspace(
    pass_name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    dtype: str,
    /,
) -> int: ...
def conv_prepared_bytes(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    dtype: str,
    /,
) -> int: ...
def conv_kernel(
    pass_name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    dtype: str,
    /,
) -> str: ...
def dense_workspace(
    pass_name: str, x_shape: Sequence[int], w_shape: Sequence[int], precision: str, dtype: str, /
) -> int: ...
def dense_kernel(
    pass_name: str, x_shape: Sequence[int], w_shape: Sequence[int], precision: str, dtype: str, /
) -> str: ...
def philox(seed: int, stream: int, step: int, indices: Any, /) -> np.ndarray: ...
def activation_saves_output(kind: str, /) -> bool: ...
def precision_description(precision: str, /) -> str: ...
def tiles_of(pass_name: str, precision: str, /) -> list[str]: ...
def tile_choice(
    pass_name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | tuple[int, int],
    pad: int | tuple[int, int],
    rounding: str,
    groups: int,
    precision: str,
    /,
) -> tuple[str, str, list[int], str, int, str]: ...
