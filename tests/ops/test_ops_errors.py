"""Shapes that do not fit: the argument is named, what was expected and what was found."""

from __future__ import annotations

import numpy as np
from refused_calls import assert_refuses, augment, parametrize

from convnet import ops

SHAPES = {
    "conv-channels": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 3), z(4, 3, 3, 2)),
        r"conv_fprop: w: expected 3 channels per filter .*, got 2",
    ),
    "conv-groups-depth": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 4), z(4, 3, 3, 4), groups=2),
        r"w: expected 2 channels per filter \(groups=2\), got 4",
    ),
    "conv-groups-of-channels": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 3), z(4, 3, 3, 1), groups=2),
        r"groups: expected a divisor of the 3 channels of x, got 2",
    ),
    "conv-groups-of-filters": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 4), z(3, 3, 3, 2), groups=2),
        r"groups: expected a divisor of the 3 filters, got 2",
    ),
    "conv-groups-zero": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 4), z(3, 3, 3, 2), groups=0),
        r"groups: expected between 1 and",
    ),
    "conv-window-too-big": (
        lambda z: ops.conv_fprop(z(2, 5, 9, 3), z(4, 7, 7, 3)),
        r"window: expected a height of at most 5 .*, got 7",
    ),
    "conv-bias": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 3), z(4, 3, 3, 3), z(5)),
        r"conv_fprop: b: expected shape \(4,\), got \(5,\)",
    ),
    "conv-rank": (
        lambda z: ops.conv_fprop(z(5, 5, 3), z(4, 3, 3, 3)),
        r"x: expected 4 dimensions \[N, H, W, C\], got shape \(5, 5, 3\)",
    ),
    "conv-empty": (
        lambda z: ops.conv_fprop(z(0, 5, 5, 3), z(4, 3, 3, 3)),
        r"x: expected every size at least 1, got shape \(0, 5, 5, 3\)",
    ),
    "conv-out": (
        lambda z: ops.conv_fprop(z(2, 5, 5, 3), z(4, 3, 3, 3), out=z(2, 5, 5, 4)),
        r"conv_fprop: y: expected shape \(2, 3, 3, 4\), got \(2, 5, 5, 4\)",
    ),
    "conv-dgrad-dy": (
        lambda z: ops.conv_dgrad(z(2, 4, 3, 4), z(4, 3, 3, 3), (2, 5, 5, 3)),
        r"conv_dgrad: dy: expected shape \(2, 3, 3, 4\), got \(2, 4, 3, 4\)",
    ),
    "conv-dgrad-mask": (
        lambda z: ops.conv_dgrad(
            z(2, 3, 3, 4), z(4, 3, 3, 3), (2, 5, 5, 3), relu_mask=z(2, 5, 5, 4)
        ),
        r"relu_mask: expected shape \(2, 5, 5, 3\), got",
    ),
    "conv-wgrad-shape": (
        lambda z: ops.conv_wgrad(z(2, 5, 5, 3), z(2, 3, 3, 4), (5, 3, 3, 3)),
        r"conv_wgrad: dy: expected shape \(2, 3, 3, 5\), got",
    ),
    "conv-wgrad-out-count": (
        lambda z: ops.conv_wgrad(z(2, 5, 5, 3), z(2, 3, 3, 4), (4, 3, 3, 3), out=z(4, 3, 3, 3)),
        r"out: expected 2 arrays, got",
    ),
    "conv-31-bits": (
        lambda z: ops.conv_output_shape((2**16, 2**8, 2**8, 1), (1, 1, 1, 1)),
        r"x: expected fewer than 2\^31 elements, got",
    ),
    "local-positions": (
        lambda z: ops.local_fprop(z(2, 5, 5, 3), z(4, 3, 2, 3, 3, 3)),
        r"local_fprop: w: expected shape \(3, 3, 2, 3, 3, 3\), got",
    ),
    "local-bias": (
        lambda z: ops.local_fprop(z(2, 5, 5, 3), z(3, 3, 2, 3, 3, 3), z(2)),
        r"local_fprop: b: expected shape \(3, 3, 2\), got \(2,\)",
    ),
    "dense-width": (
        lambda z: ops.dense_fprop(z(2, 5), z(3, 4)),
        r"w: expected 5 columns, the width of x \(2, 5\), got shape \(3, 4\)",
    ),
    "dense-dgrad-batch": (
        lambda z: ops.dense_dgrad(z(2, 4), z(3, 5)),
        r"dense_dgrad: dy: expected shape \(2, 3\), got \(2, 4\)",
    ),
    "pool-pad": (
        lambda z: ops.maxpool_fprop(z(2, 5, 5, 3), 2, 2, 2),
        r"pad: expected less than the window, \(2, 2\), got \(2, 2\)",
    ),
    "pool-window-too-big": (
        lambda z: ops.avgpool_fprop(z(2, 5, 5, 3), 6, 2),
        r"window: expected a height of at most 5 .*, got 6",
    ),
    "blur-size": (
        lambda z: ops.blur_fprop(z(2, 5, 5, 3), 4, 1.0),
        r"blur: size: expected 3, 5, 7 or 9 pixels, got 4",
    ),
    "blur-std": (
        lambda z: ops.blur_fprop(z(2, 5, 5, 3), 3, 0.0),
        r"blur: std: expected a positive number of pixels, got 0",
    ),
    "nailbed-start": (
        lambda z: ops.nailbed_fprop(z(2, 5, 9, 3), 2, 5),
        r"nailbed_fprop: start: expected between 0 and 4, got 5",
    ),
    "nailbed-gradient": (
        lambda z: ops.nailbed_bprop(z(2, 3, 3, 3), (2, 5, 5, 3), 2, 1),
        r"nailbed_bprop: dy: expected shape \(2, 2, 2, 3\), got \(2, 3, 3, 3\)",
    ),
    "maxpool-window-of-257": (
        lambda z: ops.maxpool_fprop(z(1, 20, 20, 1), (17, 16), 1),
        r"size: expected at most 256 elements in a window .*, got \(17, 16\)",
    ),
    "maxpool-argmax": (
        lambda z: ops.maxpool_bprop(
            z(2, 2, 2, 3), z(2, 2, 2, 1, dtype=np.uint8), (2, 4, 4, 3), 2, 2
        ),
        r"argmax: expected shape \(2, 2, 2, 3\), got",
    ),
    "lrn-groups": (
        lambda z: ops.lrn_fprop(z(2, 6), groups=4),
        r"groups: expected a divisor of the 6 channels, got 4",
    ),
    "lrn-dy": (
        lambda z: ops.lrn_bprop(z(2, 6), z(2, 5)),
        r"lrn_bprop: dy: expected shape \(2, 6\), got \(2, 5\)",
    ),
    "activation-dy": (
        lambda z: ops.relu_bprop(z(2, 6), z(12)),
        r"activation_bprop: dy: expected shape \(2, 6\), got \(12,\)",
    ),
    "accumulate": (
        lambda z: ops.accumulate(z(3), z(4)),
        r"accumulate: dst: expected shape \(4,\), got \(3,\)",
    ),
    "dropout-block": (
        lambda z: ops.dropout_fprop(z(2, 6), seed=1, col_offset=3, global_cols=8),
        r"col_offset: expected between 0 and 2, got 3",
    ),
    "softmax-rank": (
        lambda z: ops.softmax_fprop(z(6)),
        r"logits: expected 2 dimensions \[N, classes\], got shape \(6,\)",
    ),
    "softmax-labels": (
        lambda z: ops.softmax_xent(z(2, 6), z(3, dtype=np.int32)),
        r"softmax_xent: labels: expected shape \(2,\), got \(3,\)",
    ),
    "sgd-velocity": (
        lambda z: ops.sgd_update([(z(3), z(4), z(3), 1.0, 1.0)], 0.1),
        r"sgd_update: velocity\[0\]: expected shape \(3,\), got \(4,\)",
    ),
    "sgd-entry": (
        lambda z: ops.sgd_update([(z(3), z(3), z(3))], 0.1),
        r"tensors: expected \(w, velocity, grad, lr_mult, decay_mult\), got",
    ),
    "augment-mean": (
        lambda z: augment(z, mean=(5, 5, 1)),
        r"mean: expected shape \(5, 5, 3\) or \(1, 1, 3\), got \(5, 5, 1\)",
    ),
    "augment-offsets": (
        lambda z: augment(z, offsets=(2, 3)),
        r"offsets: expected shape \(2, 2\), got \(2, 3\)",
    ),
    "augment-affine": (
        lambda z: augment(z, affine=(2, 4)),
        r"affine: expected shape \(2, 2, 2\), got \(2, 4\)",
    ),
    "softmax-weights": (
        lambda z: ops.softmax_xent(z(2, 6), z(2, dtype=np.int32), weights=z(2)),
        r"softmax_xent: weights: expected shape \(6,\), got \(2,\)",
    ),
    "augment-crop": (
        lambda z: augment(z, crop=(0, 4)),
        "crop height: expected between 1 and 1048576, got 0",
    ),
    "peer-rows": (
        lambda z: ops.peer_copy(z(3, 5), z(4, 5)),
        r"src: expected 3 rows, as in dst \(3, 5\), got shape \(4, 5\)",
    ),
    "peer-columns": (
        lambda z: ops.peer_add(z(3, 5), z(3, 5), dst_col=1),
        r"dst_col: expected between 0 and 0, got 1",
    ),
}  # fmt: skip


@parametrize(SHAPES)
def test_shapes_that_do_not_fit(backend, call, message):
    assert_refuses(call, message, backend)
