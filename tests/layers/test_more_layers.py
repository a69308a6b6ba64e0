"""The layers without kernels of their own: values and gradients against float64 references."""

import itertools

import numpy as np
import pytest
from mixed_nets import IMAGE, auto_encoder, batch, mixed

from convnet.layers import (
    LRN,
    AvgPool,
    Bias,
    BinaryCrossEntropy,
    ContrastNorm,
    Crop,
    FlattenCHW,
    MapNorm,
    Max,
    MaxAbsPool,
    Slice,
    Softmax,
    Sum,
    SumPool,
    SumSquares,
    UnflattenCHW,
)
from convnet.nn.gradcheck import gradcheck
from convnet.nn.net import Net
from convnet.optim.sgd import SGD


def windows(layer, height, width):
    """The slices of a pool's windows, by place."""
    (size_h, size_w), (step_h, step_w), (pad_h, pad_w) = layer.size, layer.stride, layer.pad
    rows, columns, _ = layer.out_shape
    for p, q in itertools.product(range(rows), range(columns)):
        top, left = p * step_h - pad_h, q * step_w - pad_w
        bottom, right = min(top + size_h, height), min(left + size_w, width)
        yield (p, q), (slice(max(top, 0), bottom), slice(max(left, 0), right))


def sum_pool(layer, x):
    y = np.zeros((len(x), *layer.out_shape))
    for (p, q), (rows, columns) in windows(layer, *x.shape[1:3]):
        y[:, p, q] = x[:, rows, columns].sum(axis=(1, 2))
    return y


def max_abs_pool(layer, x):
    y = np.zeros((len(x), *layer.out_shape))
    for (p, q), (rows, columns) in windows(layer, *x.shape[1:3]):
        part = x[:, rows, columns].reshape(len(x), -1, x.shape[3])
        furthest = np.abs(part).argmax(axis=1)[:, None]
        y[:, p, q] = np.take_along_axis(part, furthest, axis=1)[:, 0]
    return y


def neighbours(layer, x):
    """[N, H, W, C] arrays and the pixels around each place: yields (h, w, [N, pixels, C])."""
    height, width = x.shape[1:3]
    for h, w in itertools.product(range(height), range(width)):
        top, left = h - layer.n // 2, w - layer.n // 2
        part = x[:, max(top, 0) : top + layer.n, max(left, 0) : left + layer.n]
        yield h, w, part.reshape(len(x), -1, x.shape[3])


def map_norm(layer, x, of=None):
    of = x if of is None else of
    scale = layer.alpha / layer.n**2 if layer.alpha_mode == "mean" else layer.alpha
    y = np.zeros_like(x)
    for h, w, part in neighbours(layer, of):
        y[:, h, w] = x[:, h, w] * (layer.k + scale * (part**2).sum(axis=1)) ** -layer.beta
    return y


def contrast_norm(layer, x):
    means = np.zeros_like(x)
    for h, w, part in neighbours(layer, x):
        means[:, h, w] = part.mean(axis=1)
    return map_norm(layer, x, x - means)


def softmax(_layer, x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# layer, shape of its input, reference in float64
ONE_INPUT = [
    (lambda: SumPool(3, 2), IMAGE, sum_pool),
    (lambda: SumPool((2, 3), (2, 1), (1, 0), "floor"), IMAGE, sum_pool),
    (lambda: MaxAbsPool(3, 2), IMAGE, max_abs_pool),
    (lambda: MaxAbsPool((2, 3), 2, (1, 2)), IMAGE, max_abs_pool),
    (lambda: MapNorm(3, 0.8), IMAGE, map_norm),
    (lambda: MapNorm(4, 1.7, k=0.5, beta=0.4, alpha_mode="mean"), IMAGE, map_norm),
    (lambda: MapNorm(1, 0.8), IMAGE, map_norm),
    (lambda: MapNorm(6, 0.8), IMAGE, map_norm),
    (lambda: ContrastNorm(3, 1.1), IMAGE, contrast_norm),
    (lambda: ContrastNorm(4, 2.0, k=0.7, beta=0.5, alpha_mode="mean"), IMAGE, contrast_norm),
    (lambda: Crop(3, 2, 1, 4), IMAGE, lambda layer, x: x[:, 1:4, 4:6]),
    (lambda: Crop(7, 6), IMAGE, lambda layer, x: x),
    (lambda: Slice(1, 3), IMAGE, lambda layer, x: x[..., 1:3]),
    (lambda: Slice(2, 9), (9,), lambda layer, x: x[:, 2:9]),
    (FlattenCHW, IMAGE, lambda layer, x: x.transpose(0, 3, 1, 2).reshape(len(x), -1)),
    (
        lambda: UnflattenCHW(2),
        (18,),
        lambda layer, x: x.reshape(-1, 2, 3, 3).transpose(0, 2, 3, 1),
    ),
    (Softmax, (5,), softmax),
]


def prepared(layer, in_shape, rng, backend):
    layer.setup(in_shape, rng)
    for param in layer.params:
        param.data = backend.asarray(param.data)
    return layer


def assert_is_gradient(dx, function, x, dy, rng, step=1e-6):
    """Holds dx against central differences of <dy, function(x)>: single elements, and all at once
    in random directions, in float64."""
    single = rng.choice(x.size, min(x.size, 12), replace=False)
    moves = [np.eye(1, x.size, at)[0] for at in single]
    moves += [rng.choice([-1.0, 1.0], x.size) for _ in range(4)]
    for move in moves:
        move = move.reshape(x.shape)
        ends = [(dy * function(x + sign * step * move)).sum() for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        assert abs((dx * move).sum() - expected) < 2e-5 * np.abs(dx * move).sum() + 2e-5


@pytest.mark.parametrize(("make", "in_shape", "reference"), ONE_INPUT)
def test_values_and_gradients(make, in_shape, reference, backend, rng):
    layer = prepared(make(), in_shape, rng, backend)
    x = rng.standard_normal((2, *in_shape))
    dy = rng.standard_normal((2, *layer.out_shape))
    device_x, device_dy = (backend.asarray(a.astype(np.float32)) for a in (x, dy))
    y, saved = layer.fprop(device_x, True)
    assert backend.to_host(y).dtype == np.float32
    np.testing.assert_allclose(backend.to_host(y), reference(layer, x), rtol=2e-5, atol=2e-6)
    dx, none = layer.bprop(saved, device_dy)
    assert none == []
    assert_is_gradient(backend.to_host(dx), lambda a: reference(layer, a), x, dy, rng)
    np.testing.assert_array_equal(backend.to_host(device_x), x.astype(np.float32))
    np.testing.assert_array_equal(backend.to_host(device_dy), dy.astype(np.float32))


def test_max_takes_the_first_of_the_largest(backend, rng):
    layer = prepared(Max(), [IMAGE] * 3, rng, backend)
    x = rng.integers(-2, 3, (3, 2, *IMAGE)).astype(np.float32)  # with many ties
    inputs = [backend.asarray(part) for part in x]
    y, saved = layer.fprop(inputs, True)
    np.testing.assert_array_equal(backend.to_host(y), x.max(axis=0))
    dy = rng.standard_normal(y.shape).astype(np.float32)
    winner = x.argmax(axis=0)
    for index, dx in enumerate(layer.bprop(saved, backend.asarray(dy))[0]):
        np.testing.assert_array_equal(backend.to_host(dx), np.where(winner == index, dy, 0.0))


def test_sum_with_coefficients(backend, rng):
    layer = prepared(Sum([0.5, -1.0, 1.25]), [IMAGE] * 3, rng, backend)
    x = [rng.standard_normal((2, *IMAGE)).astype(np.float32) for _ in range(3)]
    y = backend.to_host(layer.fprop([backend.asarray(part) for part in x], True)[0])
    np.testing.assert_allclose(y, 0.5 * x[0] - x[1] + 1.25 * x[2], rtol=1e-5, atol=1e-6)
    dy = backend.asarray(x[0].copy())
    for coeff, dx in zip(layer.coeffs, layer.bprop(None, dy)[0], strict=True):
        np.testing.assert_array_equal(backend.to_host(dx), np.float32(coeff) * x[0])
        assert dx is not dy
    np.testing.assert_array_equal(backend.to_host(dy), x[0])
    with pytest.raises(ValueError, match="coeffs: expected one for each of 2 inputs, got 3"):
        Sum([1.0, 2.0, 3.0]).setup([IMAGE] * 2, rng)


@pytest.mark.parametrize("tied", [True, False])
def test_bias(tied, backend, rng):
    layer = prepared(Bias(tied, bias_init=0.25), IMAGE, rng, backend)
    (b,) = layer.params
    assert b.shape == (IMAGE[-1:] if tied else IMAGE)
    assert (b.name, b.lr_mult, b.decay_mult) == ("b", 1.0, 0.0)
    b.data[...] = backend.asarray(rng.standard_normal(b.shape).astype(np.float32))
    x = rng.standard_normal((3, *IMAGE)).astype(np.float32)
    y, _ = layer.fprop(backend.asarray(x), True)
    np.testing.assert_array_equal(backend.to_host(y), x + backend.to_host(b.data))
    dx, (db,) = layer.bprop(None, y)
    assert dx is y
    expected = backend.to_host(y).astype(np.float64).sum(axis=(0, 1, 2) if tied else 0)
    np.testing.assert_allclose(backend.to_host(db), expected, rtol=1e-6)


def labels_of(backend, labels):
    return backend.asarray(np.array(labels, np.int32))


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("pos_weight", [1.0, 2.5])
def test_binary_cross_entropy(scores, pos_weight, backend, rng):
    layer = prepared(BinaryCrossEntropy(pos_weight=pos_weight, scores=scores), (5,), rng, backend)
    x = rng.standard_normal((4, 5)) if scores else rng.uniform(0.05, 0.95, (4, 5))
    labels = [0, 4, 2, 2]
    right = np.eye(5, dtype=bool)[labels]

    def reference(a):
        q = 1.0 / (1.0 + np.exp(-a)) if scores else a
        return -(pos_weight * right * np.log(q) + ~right * np.log(1.0 - q))

    device_x = backend.asarray(x.astype(np.float32))
    loss, rank, dx = layer.loss(device_x, labels_of(backend, labels), 0.25, True)
    np.testing.assert_allclose(backend.to_host(loss), reference(x).sum(axis=1), rtol=2e-5)
    own = x[np.arange(4), labels][:, None]
    np.testing.assert_array_equal(backend.to_host(rank), (x > own).sum(axis=1))
    assert_is_gradient(backend.to_host(dx), reference, x, 0.25, rng)
    q = backend.to_host(layer.fprop(device_x, False)[0])
    np.testing.assert_allclose(q, 1 / (1 + np.exp(-x)) if scores else x, rtol=1e-5)


def test_certain_and_wrong_is_a_finite_loss(backend, rng):
    for scores, x in ((True, [[90.0, -90.0]]), (False, [[1.0, 0.0]])):
        layer = prepared(BinaryCrossEntropy(scores=scores), (2,), rng, backend)
        device_x = backend.asarray(np.array(x, np.float32))
        loss, _, dx = layer.loss(device_x, labels_of(backend, [1]), 1.0, True)
        assert np.isfinite(backend.to_host(loss)).all()
        assert np.isfinite(backend.to_host(dx)).all()


def test_sum_of_squares(backend, rng):
    layer = prepared(SumSquares(), IMAGE, rng, backend)
    x = rng.standard_normal((3, *IMAGE)).astype(np.float32)
    loss, rank, dx = layer.loss(backend.asarray(x), labels_of(backend, [0, 1, 2]), 0.5, True)
    assert rank is None
    np.testing.assert_allclose(backend.to_host(loss), (x**2).sum(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(backend.to_host(dx), x)


# ---- in nets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [mixed, auto_encoder])
@pytest.mark.parametrize("trace", [True, False])
def test_nets_of_them_pass_the_gradient_check(graph, trace, rng):
    net = Net(graph(), (7, 6, 2), device="cpu", trace=trace)
    rows = gradcheck(net, *batch(rng), samples=4)
    assert len(rows) == len(net.params)
    assert [row.parameter for row in rows if not row.ok] == []


@pytest.mark.parametrize("graph", [mixed, auto_encoder])
def test_traced_or_not_they_train_alike_on_every_backend(graph, backend, rng):
    x, labels = batch(rng)
    losses = []
    for trace in (True, False):
        net = Net(graph(), (7, 6, 2), device=backend, trace=trace)
        sgd = SGD(net.params, lr=0.002)
        losses.append([net.train_step(x, labels, sgd) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=2e-5)
    assert losses[0][2] < losses[0][0]


@pytest.mark.parametrize("graph", [mixed, auto_encoder])
def test_on_two_devices_they_are_the_same_net(graph, rng):
    x, labels = batch(rng)
    nets = [Net(graph(), (7, 6, 2), device=device) for device in ("cpu", "cpu:0,cpu:1")]
    grads = []
    for net in nets:
        net.gradients(x, labels)
        # the gradients, taken through an update without momentum and weight decay
        before = net.state()
        net.train_step(x, labels, SGD(net.params, 0.1, 0.0, 0.0))
        after = net.state()
        grads.append({k: before[k] - after[k] for k in before if ":" not in k})
    for name, grad in grads[0].items():
        bound = 1e-5 * max(1e-3, np.abs(grad).max())
        np.testing.assert_allclose(grads[1][name], grad, rtol=0, atol=bound, err_msg=name)


def test_a_net_without_classes_ranks_nothing(rng):
    net = Net(auto_encoder(), (7, 6, 2), device="cpu")
    x, labels = batch(rng)
    assert net.classes is None
    losses, ranks = net.evaluate(x, np.full(6, 999))  # labels are not looked at
    assert (ranks > 10**6).all()
    assert losses.shape == (6,)
    assert net.predict(x).shape == (6, 84)
    net.train_step(x, labels, SGD(net.params))
    assert (net.last_rank > 10**6).all()
    assert Net(mixed(), (7, 6, 2), device="cpu").classes == 5


WRONG = [
    (lambda: MapNorm(3, 0.1), (10,), r"rnorm expects an input of shape \(H, W, C\), got \(10,\)"),
    (lambda: MapNorm(7, 0.1), IMAGE, "n: expected at most 6, as large as the image, got 7"),
    (lambda: ContrastNorm(3, 0.1), (10,), "cnorm expects an input"),
    (lambda: Crop(7, 2, 1), IMAGE, r"rows: expected at most 7, got 1 \+ 7"),
    (lambda: Crop(2, 2, 0, 5), IMAGE, r"columns: expected at most 6, got 5 \+ 2"),
    (lambda: Slice(0, 5), IMAGE, "stop: expected at most 4, got 5"),
    (lambda: UnflattenCHW(3), (18,), r"a row of 3 squares, got shape \(18,\)"),
    (lambda: UnflattenCHW(1), IMAGE, "a row of 1 squares"),
    (lambda: FlattenCHW(), (10,), "flatten_chw expects an input of shape"),
    (lambda: Softmax(), IMAGE, "a softmax expects one score for each class"),
    (lambda: BinaryCrossEntropy(), IMAGE, "binary cross-entropy expects one score for each class"),
    (Max, [IMAGE, (7, 6, 3)], "inputs of one shape"),
    (lambda: MaxAbsPool(17, 17), (17, 17, 4), "window of at most 256 elements"),
]


@pytest.mark.parametrize(("make", "in_shape", "message"), WRONG)
def test_sizes_that_do_not_fit(make, in_shape, message, rng):
    with pytest.raises(ValueError, match=message):
        make().setup(in_shape, rng)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MapNorm(0, 0.1), "n: expected a whole number"),
        (lambda: MapNorm(3, -1.0), "alpha: expected a number >= 0"),
        (lambda: MapNorm(3, 0.1, k=0.0), "k: expected a number > 0"),
        (lambda: Slice(3, 3), "stop: expected a whole number, at least 4"),
        (lambda: BinaryCrossEntropy(pos_weight=-1.0), "pos_weight: expected a number >= 0"),
        (lambda: Sum(["a"]), "coeffs: expected a finite number, got 'a'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_neighbours_of_one_pixel_are_the_channel_norm_of_one_channel(rng):
    """Where windows are of one element, the norm over maps and the one across them agree."""
    x = rng.standard_normal((2, *IMAGE)).astype(np.float32)
    results = []
    for layer in (MapNorm(1, 0.6, 1.5, 0.4), LRN(1, 1.5, 0.6, 0.4)):
        layer.setup(IMAGE, rng)
        results.append(layer.fprop(x, True)[0])
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_sum_pool_is_average_pool_times_the_window(rng):
    x = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)
    results = []
    for layer in (SumPool(2, 2), AvgPool(2, 2)):
        layer.setup((8, 8, 3), rng)
        results.append(layer.fprop(x, True)[0])
    np.testing.assert_allclose(results[0], 4.0 * results[1], rtol=1e-6)
