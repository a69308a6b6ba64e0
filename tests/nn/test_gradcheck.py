"""The gradient check itself: passes right nets, catches wrong ones, leaves no trace."""

import numpy as np
import pytest

import convnet
from convnet.layers import Conv, Dense, Dropout, MaxPool, ReLU, SoftmaxCrossEntropy
from convnet.nn.gradcheck import gradcheck, table
from convnet.nn.net import Net, Node

IN_SHAPE = (6, 6, 2)


def net_with(dense, seed=1, drop=0.3):
    nodes = [
        Node("conv", Conv(8, 3, init="he")),
        Node("relu", ReLU()),
        Node("pool", MaxPool(2, 2)),
        Node("fc", dense),
        Node("relu2", ReLU()),
        Node("drop", Dropout(drop)),
        Node("out", Dense(4, init="he")),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    return Net(nodes, IN_SHAPE, device="cpu", seed=seed)


def data(rng):
    x = rng.standard_normal((8, *IN_SHAPE)).astype(np.float32)
    x[:, :3] = 0.0  # blank parts, where pre-activations are exactly the bias
    return x, rng.integers(0, 4, 8)


class HalfBias(Dense):
    """The gradient of b is half of what it should be."""

    def bprop(self, saved, dy):
        dx, (dw, db) = super().bprop(saved, dy)
        return dx, [dw, db * np.float32(0.5)]


class WrongInput(Dense):
    """dx is 5 % too large: parameters below are wrong, its own are right."""

    def bprop(self, saved, dy):
        dx, gradients = super().bprop(saved, dy)
        return dx * np.float32(1.05), gradients


class MissingRow(Dense):
    """Every other unit gets no gradient."""

    def bprop(self, saved, dy):
        dx, (dw, db) = super().bprop(saved, dy)
        dw[::2] = 0.0
        return dx, [dw, db]


def wrong(rows):
    return {row.parameter for row in rows if not row.ok}


@pytest.mark.parametrize("seed", range(4))
def test_right_net_passes(seed, rng):
    rows = gradcheck(net_with(Dense(16, init="he"), seed), *data(rng), seed=seed)
    assert [row.parameter for row in rows] == ["conv.w", "conv.b", "fc.w", "fc.b", "out.w", "out.b"]
    assert not wrong(rows), table(rows)
    assert all(row.judged for row in rows)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (HalfBias, {"fc.b"}),
        (WrongInput, {"conv.w", "conv.b"}),
        (MissingRow, {"fc.w"}),
    ],
)
def test_wrong_gradients_are_found(layer, expected, rng):
    rows = gradcheck(net_with(layer(16, init="he")), *data(rng))
    assert wrong(rows) == expected, table(rows)
    assert "WRONG" in table(rows)


def test_the_net_is_as_before(rng):
    net = net_with(Dense(16, init="he"))
    before = net.state()
    gradcheck(net, *data(rng), samples=2)
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert net.step == 0


def test_a_gradient_too_small_to_see_is_said_to_be(rng):
    net = net_with(Dense(16, std=1e-9))
    rows = {row.parameter: row for row in gradcheck(net, *data(rng), samples=2)}
    assert rows["conv.w"].judged == 0
    assert rows["out.b"].judged == 2
    assert "too small to judge" in table(list(rows.values()))


def test_errors_name_what_is_wrong(rng):
    net = net_with(Dense(16, init="he"))
    x, labels = data(rng)
    with pytest.raises(ValueError, match="samples: expected a whole number"):
        gradcheck(net, x, labels, samples=0)
    with pytest.raises(ValueError, match=r"labels\[0\]: expected 0 to 3"):
        gradcheck(net, x, np.full(8, 4))
    x[0, 0, 0, 0] = np.nan
    plain = Net(
        [Node("fc", Dense(4)), Node("softmax", SoftmaxCrossEntropy())], IN_SHAPE, device="cpu"
    )
    with pytest.raises(ValueError, match="expected a finite loss, got nan"):
        gradcheck(plain, x, labels)


def test_frozen_parameters_are_left_out(rng):
    net = net_with(Dense(16, init="he"))
    for param in net.params[:2]:  # those of conv
        param.lr_mult = 0.0
    rows = gradcheck(net, *data(rng), samples=2)
    assert [row.parameter for row in rows] == ["fc.w", "fc.b", "out.w", "out.b"]
    assert all(row.ok for row in rows)
    for param in net.params:
        param.lr_mult = 0.0
    assert gradcheck(net, *data(rng), samples=2) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_class_weights(rng, tmp_path, precision):
    """They are in the loss and in its gradient, also in a program; not in what is evaluated."""
    weights = (0.5, 4.0, 0.0, 1.0)

    def made(weights, trace=True):
        loss = SoftmaxCrossEntropy(class_weights=weights)
        nodes = [Node("fc", Dense(4, init="he")), Node("softmax", loss)]
        return Net(nodes, IN_SHAPE, device="cpu", trace=trace, precision=precision)

    net, eager, plain = made(weights), made(weights, trace=False), made(None)
    x, labels = data(rng)
    if precision == "fp32":
        assert all(row.ok for row in gradcheck(net, x, labels))
    assert net.gradients(x, labels) == eager.gradients(x, labels)
    for one, other in zip(net.params, eager.params, strict=True):
        np.testing.assert_array_equal(one.grad, other.grad)
    losses = plain.evaluate(x, labels)[0]
    np.testing.assert_array_equal(net.evaluate(x, labels)[0], losses)
    np.testing.assert_allclose(
        net.training_loss(x, labels), np.mean(losses * np.take(weights, labels)), rtol=1e-5
    )
    net.nodes[-1].layer.class_weights = None  # makes its programs anew
    assert net.gradients(x, labels) == plain.gradients(x, labels)
    eager.save(tmp_path / "net.safetensors")
    assert convnet.load(tmp_path / "net.safetensors").nodes[-1].layer.class_weights == weights
    with pytest.raises(ValueError, match="class_weights: expected one for each of 4 classes, got"):
        made((1.0, 2.0))
