"""Layers one by one: sizes, parameters, their two passes, and errors.

That the operations compute what they should is tested in tests/kernels; here each layer must call
the right one with its own hyper-parameters, so results are compared with those operations.
"""

import numpy as np
import pytest

from convnet import ops
from convnet.layers import (
    LAYER_TYPES,
    LRN,
    Activation,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Local,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
    Sum,
    Tanh,
    initializers,
)

IMAGE = (9, 7, 4)

# constructor, input shape, output shape, shapes of the parameters, multiply-adds
SIZES = [
    (lambda: Conv(6, 3), IMAGE, (7, 5, 6), [(6, 3, 3, 4), (6,)], 7 * 5 * 6 * 9 * 4),
    (
        lambda: Conv(6, (3, 2), stride=(2, 1), pad=(1, 0), groups=2, bias=False),
        IMAGE,
        (5, 6, 6),
        [(6, 3, 2, 2)],
        5 * 6 * 6 * 6 * 2,
    ),
    (lambda: Conv(2, 4, stride=2, rounding="ceil"), IMAGE, (4, 3, 2), [(2, 4, 4, 4), (2,)], 1536),
    (
        lambda: Local(6, 3, stride=2, groups=2),
        IMAGE,
        (4, 3, 6),
        [(4, 3, 6, 3, 3, 2), (4, 3, 6)],
        4 * 3 * 6 * 9 * 2,
    ),
    (lambda: Dense(5), IMAGE, (5,), [(5, 252), (5,)], 5 * 252),
    (lambda: Dense(5, bias=False), (10,), (5,), [(5, 10)], 50),
    (lambda: MaxPool(3, 2), IMAGE, (4, 3, 4), [], 0),
    (lambda: MaxPool(3, 2, rounding="floor", pad=(1, 0)), IMAGE, (5, 3, 4), [], 0),
    (lambda: AvgPool((2, 3), (2, 3)), IMAGE, (5, 3, 4), [], 0),
    (lambda: LRN(groups=2), IMAGE, IMAGE, [], 0),
    (ReLU, IMAGE, IMAGE, [], 0),
    (lambda: Tanh(1.7, 0.6), (10,), (10,), [], 0),
    (lambda: Dropout(0.3), IMAGE, IMAGE, [], 0),
    (Flatten, IMAGE, (252,), [], 0),
    (Sum, [IMAGE, IMAGE], IMAGE, [], 0),
    (Concat, [IMAGE, (9, 7, 3)], (9, 7, 7), [], 0),
    (SoftmaxCrossEntropy, (10,), (10,), [], 0),
]


def ready(layer, in_shape, rng, backend=None):
    layer.setup(in_shape, rng)
    if backend is not None:
        for param in layer.params:
            param.data = backend.asarray(param.data)
    return layer


def draw(backend, rng, *shape):
    return backend.asarray(rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize(("make", "in_shape", "out_shape", "params", "macs"), SIZES)
def test_sizes(make, in_shape, out_shape, params, macs, backend, rng):
    layer = make()
    assert layer.setup(in_shape, rng) == out_shape == layer.out_shape
    assert [param.shape for param in layer.params] == params
    assert [param.name for param in layer.params] == ["w", "b"][: len(params)]
    assert layer.macs == macs
    for param in layer.params:
        param.data = backend.asarray(param.data)
    shapes = in_shape if isinstance(in_shape, list) else [in_shape]
    inputs = [draw(backend, rng, 2, *shape) for shape in shapes]
    y, _ = layer.fprop(inputs if layer.multi_input else inputs[0], False)
    assert y.shape == (2, *out_shape)


@pytest.mark.parametrize("name", LAYER_TYPES)
def test_layers_have_a_description(name, rng):
    required = {
        "conv": {"filters": 2, "size": 3},
        "local": {"filters": 2, "size": 3},
        "dense": {"units": 3},
        "maxpool": {"size": 3, "stride": 2},
        "avgpool": {"size": 3, "stride": 2},
        "sumpool": {"size": 3, "stride": 2},
        "maxabspool": {"size": 3, "stride": 2},
        "rnorm": {"n": 3, "alpha": 0.1},
        "cnorm": {"n": 3, "alpha": 0.1},
        "crop": {"height": 3, "width": 2},
        "blur": {"size": 3, "std": 1.0},
        "nailbed": {"stride": 2},
        "slice": {"start": 0, "stop": 2},
        "unflatten_chw": {"channels": 4},
    }
    assert LAYER_TYPES[name](**required.get(name, {})).describe()


@pytest.mark.parametrize("kind", ["conv", "local", "dense"])
@pytest.mark.parametrize("relu", [False, True])
def test_weighted_layers_call_their_operations(kind, relu, backend, rng):
    window = {"stride": (2, 1), "pad": (1, 0), "groups": 2, "rounding": "ceil"}
    options = {"relu": relu, "init": "he", "bias_init": 0.3}
    layer = {
        "conv": lambda: Conv(6, (3, 2), **window, **options),
        "local": lambda: Local(6, (3, 2), **window, **options),
        "dense": lambda: Dense(6, **options),
    }[kind]()
    ready(layer, (5, 5, 4), rng, backend)
    x = draw(backend, rng, 3, 5, 5, 4)
    w, b = layer.params
    rows = x.reshape(3, -1)
    y = {
        "conv": lambda: ops.conv_fprop(x, w.data, b.data, **window, relu=relu),
        "local": lambda: ops.local_fprop(x, w.data, b.data, **window, relu=relu),
        "dense": lambda: ops.dense_fprop(rows, w.data, b.data, relu=relu),
    }[kind]()
    host = backend.to_host
    found, saved = layer.fprop(x, True)
    np.testing.assert_array_equal(host(found), host(y))
    dy = draw(backend, rng, *y.shape)
    kept = host(dy).copy()
    masked = ops.relu_bprop(y, dy) if relu else dy
    dx = {
        "conv": lambda: ops.conv_dgrad(masked, w.data, x.shape, **window),
        "local": lambda: ops.local_dgrad(masked, w.data, x.shape, **window),
        "dense": lambda: ops.dense_dgrad(masked, w.data).reshape(x.shape),
    }[kind]()
    dw, db = {
        "conv": lambda: ops.conv_wgrad(x, masked, w.shape, **window),
        "local": lambda: ops.local_wgrad(x, masked, w.shape, **window),
        "dense": lambda: ops.dense_wgrad(rows, masked),
    }[kind]()
    got, (got_dw, got_db) = layer.bprop(saved, dy)
    for mine, theirs in ((got, dx), (got_dw, dw), (got_db, db)):
        np.testing.assert_array_equal(host(mine), host(theirs))
    np.testing.assert_array_equal(host(dy), kept)  # a layer leaves dy alone


def test_other_layers_call_their_operations(backend, rng):
    x = draw(backend, rng, 3, 7, 6, 4)
    host = backend.to_host
    lrn = {"n": 3, "k": 1.5, "alpha": 0.4, "beta": 0.6, "groups": 2, "alpha_mode": "mean"}
    window = ((3, 2), (2, 2), (1, 0), "floor")
    y, argmax = ops.maxpool_fprop(x, *window)
    dy = draw(backend, rng, *y.shape)
    cases = [
        (MaxPool(*window), dy, y, ops.maxpool_bprop(dy, argmax, x.shape, *window)),
        (
            AvgPool(*window),
            dy,
            ops.avgpool_fprop(x, *window),
            ops.avgpool_bprop(dy, x.shape, *window),
        ),
        (LRN(**lrn), x, ops.lrn_fprop(x, **lrn), ops.lrn_bprop(x, x, **lrn)),
    ]
    for layer, dy, y, dx in cases:
        ready(layer, (7, 6, 4), rng)
        found, saved = layer.fprop(x, True)
        np.testing.assert_array_equal(host(found), host(y))
        np.testing.assert_array_equal(host(layer.bprop(saved, dy)[0]), host(dx))


@pytest.mark.parametrize("cls", [c for c in LAYER_TYPES.values() if issubclass(c, Activation)])
def test_activations_call_their_operation(cls, backend, rng):
    layer = ready(cls(), (6, 4), rng)
    data = np.abs(rng.standard_normal((3, 6, 4))).astype(np.float32) + 0.1
    x = backend.asarray(data.copy())
    y = ops.activation_fprop(layer.kind, x, layer.a, layer.b)
    dy = draw(backend, rng, 3, 6, 4)
    saved = y if ops.activation_saves_output(layer.kind) else x
    dx = ops.activation_bprop(layer.kind, saved, dy, layer.a, layer.b)
    result, kept = layer.fprop(x, True)
    np.testing.assert_array_equal(backend.to_host(result), backend.to_host(y))
    back, none = layer.bprop(kept, dy)
    np.testing.assert_array_equal(backend.to_host(back), backend.to_host(dx))
    assert none == []
    np.testing.assert_array_equal(backend.to_host(x), data)


@pytest.mark.parametrize("mode", ["paper", "inverted"])
def test_dropout(mode, backend, rng):
    layer = ready(Dropout(0.3, mode), (400,), rng)
    layer.random.seed, layer.random.step, layer.stream = 11, 5, 77
    x = backend.asarray(np.full((2, 400), 2.0, np.float32))
    key = {"seed": 11, "layer": 77, "step": 5, "mode": mode}
    y = backend.to_host(layer.fprop(x, True)[0])
    np.testing.assert_array_equal(y, backend.to_host(ops.dropout_fprop(x, 0.3, **key)))
    kept = 2.0 if mode == "paper" else 2.0 / 0.7
    assert set(np.unique(y)) == {np.float32(0), np.float32(kept)}
    np.testing.assert_array_equal(backend.to_host(layer.bprop(None, x)[0]), y)  # the same mask
    layer.random.step = 6
    assert (backend.to_host(layer.fprop(x, True)[0]) != y).any()
    tested = backend.to_host(layer.fprop(x, False)[0])
    np.testing.assert_allclose(tested, 2.0 * 0.7 if mode == "paper" else 2.0, rtol=1e-6)
    np.testing.assert_array_equal(backend.to_host(x), 2.0)


def test_flatten_is_in_hwc_order_without_a_copy(backend, rng):
    layer = ready(Flatten(), (2, 3, 4), rng)
    x = draw(backend, rng, 5, 2, 3, 4)
    y, saved = layer.fprop(x, True)
    np.testing.assert_array_equal(backend.to_host(y), backend.to_host(x).reshape(5, 24))
    if isinstance(x, np.ndarray):
        assert np.shares_memory(x, y)
    assert layer.bprop(saved, y)[0].shape == x.shape


def test_sum_and_concat(backend, rng):
    a, b, c = (draw(backend, rng, 2, 3, 3, 4) for _ in range(3))
    host = backend.to_host
    total = ready(Sum(), [(3, 3, 4)] * 3, rng)
    np.testing.assert_allclose(
        host(total.fprop([a, b, c], True)[0]), host(a) + host(b) + host(c), rtol=1e-5
    )
    assert [dx is a for dx in total.bprop(None, a)[0]] == [True] * 3
    d = draw(backend, rng, 2, 3, 3, 1)
    joined = ready(Concat(), [(3, 3, 4), (3, 3, 1), (3, 3, 4)], rng)
    y, _ = joined.fprop([a, d, b], True)
    expected = np.concatenate([host(a), host(d), host(b)], axis=-1)
    np.testing.assert_array_equal(host(y), expected)
    for dx, part in zip(joined.bprop(None, y)[0], (a, d, b), strict=True):
        np.testing.assert_array_equal(host(dx), host(part))


def test_softmax_gives_loss_gradient_and_rank(backend, rng):
    layer = ready(SoftmaxCrossEntropy(), (5,), rng)
    x, labels = draw(backend, rng, 4, 5), backend.asarray(np.array([0, 4, 2, 2], np.int32))
    loss, dx, rank = ops.softmax_xent(x, labels, scale=0.25)
    for mine, theirs in zip(layer.loss(x, labels, 0.25, True), (loss, rank, dx), strict=True):
        np.testing.assert_array_equal(backend.to_host(mine), backend.to_host(theirs))
    assert layer.loss(x, labels, 0.25, False)[2] is None
    probs = backend.to_host(layer.fprop(x, False)[0])
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-6)


def test_initial_values_and_multipliers(rng):
    layer = ready(Conv(32, 5, std=0.05, bias_init=1.0, w_lr=0.5, b_lr=2.0), (8, 8, 16), rng)
    w, b = layer.params
    assert w.data.std() == pytest.approx(0.05, rel=0.05)
    assert (b.data == 1.0).all()
    assert (w.lr_mult, w.decay_mult, b.lr_mult, b.decay_mult) == (0.5, 1.0, 2.0, 0.0)


def test_fans_of_convolutions_count_one_group(rng):
    seen = []

    def watch(rng, shape, fan_in, fan_out):
        seen.append((fan_in, fan_out))
        return initializers.he(rng, shape, fan_in, fan_out)

    ready(Conv(6, (3, 2), groups=2, init=watch), (9, 9, 4), rng)
    ready(Local(6, 3, init=watch), (4, 4, 2), rng)
    ready(Dense(5, init=watch), (3, 3, 2), rng)
    assert seen == [(3 * 2 * 2, 3 * 2 * 3), (9 * 2, 9 * 6), (18, 5)]


def test_share_checks_shapes(rng):
    a, b = ready(Conv(3, 3), (6, 6, 2), rng), ready(Conv(3, 5), (6, 6, 2), rng)
    with pytest.raises(
        ValueError, match=r"share: expected parameters .*\(3, 5, 5, 2\).*got.*3, 3, 2"
    ):
        b.share(a)
    with pytest.raises(ValueError, match="share"):
        ReLU().share(ReLU())


# ---- errors -------------------------------------------------------------------------------------

WRONG_ARGUMENTS = [
    (lambda: Conv(0, 3), "filters: expected a whole number, at least 1; got 0"),
    (lambda: Conv(2.5, 3), "filters: expected a whole number"),
    (lambda: Conv(True, 3), "filters: expected a whole number"),
    (lambda: Conv(3, (3, 3, 3)), r"size: expected one whole number or two \(h, w\)"),
    (lambda: Conv(3, 3, stride=0), "stride: expected a whole number, at least 1; got 0"),
    (lambda: Conv(3, 3, pad=-1), "pad: expected a whole number, at least 0; got -1"),
    (lambda: Conv(3, 3, rounding="up"), "rounding: expected one of floor, ceil; got 'up'"),
    (lambda: Conv(3, 3, bias="no"), "bias: expected true or false, got 'no'"),
    (lambda: Conv(3, 3, std=float("inf")), "std: expected a finite number"),
    (lambda: Conv(3, 3, w_lr=-1), "w_lr: expected a number >= 0, got -1"),
    (lambda: Dense("ten"), "units: expected a whole number, at least 1; got 'ten'"),
    (lambda: MaxPool(3, "2"), "stride: expected a whole number"),
    (lambda: LRN(k=0), "k: expected a number > 0, got 0"),
    (lambda: LRN(alpha_mode="max"), "alpha_mode: expected one of sum, mean; got 'max'"),
    (lambda: Dropout(1), "drop: expected a number >= 0 and < 1, got 1"),
    (lambda: Dropout(1.5), "drop: expected a number >= 0 and < 1, got 1.5"),
    (lambda: Dropout(0.5, "cafe"), "mode: expected one of paper, inverted"),
    (lambda: Tanh(a="x"), "a: expected a finite number, got 'x'"),
    (lambda: SoftmaxCrossEntropy(coeff=None), "coeff: expected a finite number"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


WRONG_SIZES = [
    (
        lambda: Conv(4, 3),
        (10,),
        r"a convolution expects an input of shape \(H, W, C\), got \(10,\)",
    ),
    (lambda: Conv(4, 3, groups=3), IMAGE, "groups: expected a divisor of the 4 channels"),
    (lambda: Conv(5, 3, groups=2), IMAGE, "groups: expected a divisor of the 5 filters"),
    (lambda: Conv(4, 8), IMAGE, "window: expected a width of at most 7"),
    (lambda: Local(4, 3), (10,), "a locally connected layer expects"),
    (lambda: Local(4, 10), IMAGE, "window: expected a height of at most 9"),
    (lambda: MaxPool(8, 2), IMAGE, "window: expected a width of at most 7"),
    (lambda: MaxPool(17, 17, pad=8), (17, 17, 4), "window of at most 256 elements, got 289"),
    (lambda: AvgPool(2, 2), (10,), r"average pooling expects an input of shape \(H, W, C\)"),
    (lambda: LRN(groups=3), IMAGE, "groups: expected a divisor of the 4 channels, got 3"),
    (lambda: Conv(4, 3, init="best"), IMAGE, "init: expected one of"),
    (Sum, [IMAGE, (9, 7, 3)], r"inputs of one shape, got \(9, 7, 4\) and \(9, 7, 3\)"),
    (Concat, [IMAGE, (9, 6, 4)], r"channels only, got \(9, 7, 4\) and \(9, 6, 4\)"),
    (SoftmaxCrossEntropy, IMAGE, r"expects one score for each class.*got \(9, 7, 4\).*flatten"),
]


@pytest.mark.parametrize(("make", "in_shape", "message"), WRONG_SIZES)
def test_sizes_that_do_not_fit(make, in_shape, message, rng):
    layer = make()
    with pytest.raises(ValueError, match=message):
        layer.setup(in_shape, rng)
