"""Every operation of a small net's step."""

import numpy as np

import convnet


def passes(threads: int) -> dict[str, np.ndarray]:
    """Every operation of a small net's step, forward and backward, with this many threads."""
    convnet.backend.set_threads(threads)
    ops = convnet.ops
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 28, 28, 24), dtype=np.float32)
    w = rng.standard_normal((48, 5, 5, 12), dtype=np.float32)
    b = rng.standard_normal(48, dtype=np.float32)
    window = {"stride": 1, "pad": 2, "groups": 2}
    found = {"conv_fprop": ops.conv_fprop(x, w, b, **window, relu=True)}
    y = found["conv_fprop"]
    dy = rng.standard_normal(y.shape, dtype=np.float32)
    found["conv_dgrad"] = ops.conv_dgrad(dy, w, x.shape, **window)
    found["conv_wgrad"], found["conv_db"] = ops.conv_wgrad(x, dy, w.shape, **window)
    found["lrn_fprop"] = ops.lrn_fprop(y, groups=2)
    found["lrn_bprop"] = ops.lrn_bprop(y, dy, groups=2)
    pooled, argmax = ops.maxpool_fprop(y, 3, 2)
    found["maxpool_fprop"] = pooled
    dpooled = rng.standard_normal(pooled.shape, dtype=np.float32)
    found["maxpool_bprop"] = ops.maxpool_bprop(dpooled, argmax, y.shape, 3, 2)
    found["dropout"] = ops.dropout_fprop(pooled, 0.3, seed=1)
    flat = pooled.reshape(16, -1)
    dense_w = rng.standard_normal((40, flat.shape[1]), dtype=np.float32)
    logits = found["dense_fprop"] = ops.dense_fprop(flat, dense_w)
    labels = rng.integers(0, 40, 16).astype(np.int32)
    loss, dlogits, _ = ops.softmax_xent(logits, labels)
    found["softmax_xent"] = np.concatenate([loss, dlogits.ravel()])
    found["dense_dgrad"] = ops.dense_dgrad(dlogits, dense_w)
    found["dense_wgrad"] = ops.dense_wgrad(flat, dlogits)[0]
    velocity = np.zeros_like(dense_w)
    ops.sgd_update([(dense_w, velocity, found["dense_wgrad"], 1.0, 1.0)], 0.1)
    found["sgd_update"] = dense_w
    return found
