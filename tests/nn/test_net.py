"""Nets: training, testing, what is fed in, and the numbers about them."""

import re

import numpy as np
import pytest
from nets import (
    BATCH,
    CLASSES,
    IN_SHAPE,
    branches,
    chain,
    conv,
    data,
    dense,
    every_graph,
    make,
    shared,
    train,
    two_losses,
)

import convnet.backend
from convnet.layers import Dropout, ReLU, SoftmaxCrossEntropy
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD

# ---- training -----------------------------------------------------------------------------------


@every_graph
def test_training_lowers_the_loss(graph, backend, rng):
    net, (x, labels) = make(graph, backend, seed=2), data(rng)
    before = net.evaluate(x, labels)[0].mean()
    train(net, x, labels, steps=30, lr=0.03)
    assert net.evaluate(x, labels)[0].mean() < 0.9 * before


@every_graph
def test_training_repeats_itself(graph, backend, rng):
    x, labels = data(rng)
    first, second = make(graph, backend, seed=5), make(graph, backend, seed=5)
    assert train(first, x, labels) == train(second, x, labels)
    for name, array in first.state().items():
        np.testing.assert_array_equal(second.state()[name], array)
    assert train(make(graph, backend, seed=6), x, labels) != train(first, x, labels)


def test_train_step_returns_the_mean_loss_and_rank(backend, rng):
    x, labels = data(rng)
    net = Net(
        [Node("fc", dense(CLASSES)), Node("softmax", SoftmaxCrossEntropy())], IN_SHAPE, backend
    )
    losses, ranks = net.evaluate(x, labels)
    assert net.train_step(x, labels, SGD(net.params)) == pytest.approx(losses.mean(), rel=1e-6)
    np.testing.assert_array_equal(net.last_rank, ranks)
    assert net.step == 1
    probs = make(chain, backend).predict(x)
    assert probs.shape == (BATCH, CLASSES)
    assert probs.dtype == np.float32


def test_two_losses_are_weighted(backend, rng):
    x, labels = data(rng)
    net = make(two_losses, backend)
    losses, _ = net.evaluate(x, labels)
    early = -np.log(_softmax(net.forward(x, "early"))[np.arange(BATCH), labels])
    last = -np.log(net.predict(x)[np.arange(BATCH), labels])
    np.testing.assert_allclose(losses, 0.3 * early + last, rtol=1e-4)
    assert net.gradients(x, labels) == pytest.approx(losses.mean(), rel=1e-5)


def _softmax(scores):
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def test_gradients_scale(backend, rng):
    x, labels = data(rng)
    net = make(two_losses, backend)
    net.gradients(x, labels)
    mean = [backend.to_host(param.grad).copy() for param in net.params]
    net.gradients(x, labels, scale=1.0)
    for param, grad in zip(net.params, mean, strict=True):
        np.testing.assert_allclose(backend.to_host(param.grad), BATCH * grad, rtol=1e-4, atol=1e-6)


def test_dropout_changes_with_step_seed_and_name(backend, rng):
    x, labels = data(rng)

    def loss(name="drop", **options):
        nodes = [
            Node(name, Dropout(0.5)),
            Node("fc", dense(CLASSES)),
            Node("softmax", SoftmaxCrossEntropy()),
        ]
        step = options.pop("step", 0)
        net = Net(nodes, IN_SHAPE, device=backend, **options)
        net.load_state({"fc.w": np.ones(net.params[0].shape, np.float32) / 10,
                        "fc.b": np.zeros(CLASSES, np.float32)} | _tilted(net))  # fmt: skip
        net.step = step
        return net.training_loss(x, labels)

    assert loss() == loss()
    assert len({loss(), loss(step=1), loss(seed=1), loss(name="other")}) == 4


def _tilted(net):
    """Weights that differ from class to class, so that the loss sees which inputs are dropped."""
    shape = net.params[0].shape
    w = np.linspace(-1, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape[::-1]).T
    return {"fc.w": np.ascontiguousarray(w)}


def test_adding_a_node_leaves_other_weights_alone():
    nodes = chain()
    nodes.insert(4, Node("extra", conv(6)))
    longer, plain = Net(nodes, IN_SHAPE, device="cpu", seed=4), make(chain, seed=4)
    weights = {param.name: param.data for param in longer.params}
    for param in plain.params:
        np.testing.assert_array_equal(weights[param.name], param.data)
    assert (weights["conv2.w"] != make(chain, seed=5).state()["conv2.w"]).any()
    twins = make(branches, seed=4).state()
    assert (twins["a.w"] != twins["b.w"]).all()


def test_shared_weights_are_one_parameter(backend, rng):
    net = make(shared, backend)
    assert [param.name for param in net.params] == ["c1.w", "c1.b", "fc.w", "fc.b"]
    layers = {node.name: node.layer for node in net.nodes}
    assert layers["c2"].w is layers["c1"].w
    assert layers["c3"].b is layers["c1"].b
    train(net, *data(rng))
    assert layers["c3"].w.data is net.params[0].data


# ---- testing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4, 7, 256])
def test_results_do_not_depend_on_the_batch(batch, backend, rng):
    x, labels = data(rng, 7)
    net = make(branches, backend)
    losses, ranks = net.evaluate(x, labels)
    got_losses, got_ranks = net.evaluate(x, labels, batch=batch)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-5)
    np.testing.assert_array_equal(got_ranks, ranks)
    np.testing.assert_array_equal(net.last_rank, ranks)
    np.testing.assert_allclose(net.predict(x, batch=batch), net.predict(x), rtol=1e-5)


def test_results_are_copies(backend, rng):
    x, labels = data(rng)
    net = make(chain, backend)
    results = [net.predict(x), net.forward(x, "conv1"), *net.evaluate(x, labels), net.last_rank]
    kept = [result.copy() for result in results]
    train(net, *data(rng))
    net.predict(2 * x)
    for result, copy in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result, copy)


def test_testing_between_steps_changes_no_training(backend, rng):
    x, labels = data(rng)
    interrupted, plain = make(chain, backend), make(chain, backend)
    sgd = SGD(interrupted.params, lr=0.05)
    losses = []
    for _ in range(3):
        losses.append(interrupted.train_step(x, labels, sgd))
        interrupted.evaluate(*data(rng, 9))
        interrupted.predict(x[:1].copy())
        interrupted.forward(x, "conv2")
    assert losses == train(plain, x, labels)


def test_rank_counts_better_classes(backend, rng):
    x, labels = data(rng, 20)
    net = make(chain, backend)
    _, ranks = net.evaluate(x, labels)
    scores = net.forward(x, "fc6")
    own = scores[np.arange(20), labels][:, None]
    np.testing.assert_array_equal(ranks, (scores > own).sum(1))
    assert ranks.dtype == np.int32


def test_a_net_without_a_loss_computes(backend, rng):
    x, labels = data(rng)
    net = Net([Node("fc", dense(3)), Node("relu", ReLU())], IN_SHAPE, device=backend)
    assert net.predict(x).shape == (BATCH, 3)
    assert (net.predict(x) >= 0).all()
    assert (net.forward(x, "fc") < 0).any()
    with pytest.raises(ValueError, match="the net has no loss"):
        net.evaluate(x, labels)


def test_forward_names_an_unknown_node(rng):
    with pytest.raises(ValueError, match=r'unknown node .conv4.; did you mean "conv'):
        make(chain).forward(data(rng)[0], "conv4")


# ---- what is fed in -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y: (x.astype(np.float64), y),
            r"x: expected float32 of shape \(N, 8, 7, 2\), got float64",
        ),
        (lambda x, y: (x[:, :7], y), r"x: expected .*\(N, 8, 7, 2\), got shape \(6, 7, 7, 2\)"),
        (lambda x, y: (x[0], y), r"got shape \(8, 7, 2\)"),
        (lambda x, y: (x[:0], y[:0]), r"got shape \(0, 8, 7, 2\)"),
        (lambda x, y: (x[::2], y[::2]), "x: expected a C-contiguous array"),
        (lambda x, y: (x.tolist(), y), "x: expected an array, got list"),
        (lambda x, y: (x, y[:-1]), r"labels: expected 6 whole numbers.*got int64 of shape \(5,\)"),
        (lambda x, y: (x, y.astype(np.float32)), "labels: expected 6 whole numbers.*got float32"),
        (
            lambda x, y: (x, np.where(np.arange(6) == 4, 5, y)),
            r"labels\[4\]: expected 0 to 4 .*got 5",
        ),
        (
            lambda x, y: (x, np.where(np.arange(6) == 2, -1, y)),
            r"labels\[2\]: expected 0 to 4 .*got -1",
        ),
    ],
)
def test_bad_input_is_named(change, message, rng):
    net = make(chain)
    x, labels = change(*data(rng))
    for call in (
        lambda: net.train_step(x, labels, SGD(net.params)),
        lambda: net.evaluate(x, labels),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_labels_of_any_integer_type(backend, rng):
    x, labels = data(rng)
    net = make(chain, backend)
    expected, _ = net.evaluate(x, labels)
    for other in (labels.astype(np.uint8), labels.astype(np.int32), labels.tolist()):
        np.testing.assert_array_equal(net.evaluate(x, other)[0], expected)


def test_arrays_on_the_device_are_accepted(backend, rng):
    x, labels = data(rng)
    net = make(chain, backend)
    expected, _ = net.evaluate(x, labels)
    device_labels = backend.asarray(labels.astype(np.int32))
    np.testing.assert_array_equal(net.evaluate(backend.asarray(x), device_labels)[0], expected)


def test_a_net_runs_on_its_own_backend(backend, rng):
    x, labels = data(rng)
    net = make(chain, backend)
    expected, _ = net.evaluate(x, labels)
    with convnet.backend.use("cpu"):
        np.testing.assert_array_equal(net.evaluate(x, labels)[0], expected)


# ---- finding NaN --------------------------------------------------------------------------------


def test_check_finite_names_the_place(backend, rng):
    x, labels = data(rng)
    net = make(chain, backend)
    train(net, x, labels, steps=1)
    assert net.check_finite() is None
    net.params[-2].data[...] = np.nan  # fc6.w
    assert net.check_finite() == "fc6"
    assert np.isnan(net.gradients(x, labels))
    assert np.isnan(backend.to_host(net.params[2].grad)).any()  # as many gradients are by now,
    assert net.check_finite() == "fc6"  # but this output was the first
    other = make(chain, backend)
    x[3, 2, 2, 1] = np.inf
    other.gradients(x, labels)
    assert other.check_finite() == "input"


# ---- numbers about the net ----------------------------------------------------------------------


def test_shapes_counts_and_summary():
    net = make(chain)
    assert net.shapes["pool1"] == (4, 3, 6)
    assert net.shapes["fc6"] == (CLASSES,)
    counts = {"conv1": 6 * 19, "conv2": 8 * 28, "conv3": 4 * 73, "fc4": 12 * 49}
    counts |= {"fc5": 9 * 13, "fc6": 5 * 10}
    assert net.parameter_count == sum(counts.values())
    macs = 56 * 6 * 18 + 12 * 8 * 27 + 12 * 4 * 72 + 12 * 48 + 9 * 12 + 5 * 9
    assert net.macs == macs
    assert net.flops == 2 * macs
    text = net.summary(32)
    assert re.search(r"conv2 +conv 3x3 pad 1 groups 2 +4 x 3 x 8 +224 +2,592", text)
    assert f"{net.parameter_count:,}" in text
    assert f"{macs:,}" in text
    assert "inputs" not in text
    assert "batch of 32" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert re.search(r"join +concat +left_relu, norm, right, left", make(branches).summary())
    assert re.search(r"c2 .*as c1", make(shared).summary())
