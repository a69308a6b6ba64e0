"""Whole nets, trained for some steps, give on every backend what they give on the CPU."""

import numpy as np
import pytest
from check import ORDERS, follows, kernel_order, same_bits
from mixed_nets import auto_encoder, batch, mixed
from nets import data, every_graph, make, train
from tiny import config, write_data

import convnet
from convnet import models
from convnet.layers import BinaryCrossEntropy, Dense
from convnet.nn.net import Net, Node

MODELS = {
    "fashion-mnist": (models.fashion_mnist, (28, 28, 1), {}),
    "alexnet": (
        models.alexnet,
        (67, 67, 3),
        {"filters": (16, 32, 48, 48, 32), "hidden": 64, "init": "he"},
    ),
}


def agree(build, backend, x, labels, steps, lr=0.05):
    """Trains the nets `build(device)` of both backends and compares losses and all weights."""
    ours, theirs = build(backend.device), build("cpu")
    follows(train(ours, x, labels, steps, lr), train(theirs, x, labels, steps, lr), "losses")
    expected = theirs.state()
    assert ours.state().keys() == expected.keys()
    for name, values in ours.state().items():
        follows(values, expected[name], name)


@every_graph
def test_small_nets(graph, kernels_backend, rng):
    agree(lambda device: make(graph, device, seed=3), kernels_backend, *data(rng), steps=6)


def unsure():
    """A loss on probabilities."""
    return [Node("fc", Dense(5, init="he")), Node("bce", BinaryCrossEntropy(scores=False))]


@pytest.mark.parametrize("graph", [mixed, auto_encoder, unsure])
def test_layers_that_the_array_library_has_a_part_in(graph, kernels_backend, rng):
    def build(device):
        return Net(graph(), (7, 6, 2), device=device, seed=3)

    x, labels = batch(rng)
    agree(build, kernels_backend, x, labels, steps=2, lr=0.002)
    ours, theirs = build(kernels_backend.device), build("cpu")
    follows(ours.predict(x), theirs.predict(x), "predictions")
    for one, other in zip(ours.evaluate(x, labels), theirs.evaluate(x, labels), strict=True):
        follows(one, other, "loss and ranks")


@every_graph
def test_cupy_s_arrays_and_numpy_s(graph, virtual_cuda, vgpu, rng):
    """The same kernels on the virtual GPU, once with the real CuPy."""
    x, labels = data(rng)

    def results(device):
        net = make(graph, device, seed=3)
        losses = train(net, x, labels)
        until = net.nodes[0].name
        found = [losses, *net.evaluate(x, labels), net.predict(x), net.forward(x, until=until)]
        assert net.check_finite() is None
        return [*found, *net.state().values()]

    for one, other in zip(results(virtual_cuda), results(vgpu), strict=True):
        assert isinstance(one, type(other))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model", MODELS)
def test_models(model, kernels_backend, rng):
    build, shape, options = MODELS[model]
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    labels = rng.integers(0, 10, 3)
    agree(
        lambda device: build(shape, 10, device=device, seed=3, **options),
        kernels_backend,
        x,
        labels,
        steps=2,
    )


def test_the_order_of_threads_does_not_matter(kernels_backend, rng):
    if kernels_backend.name not in ORDERS:
        pytest.skip("the order of a GPU cannot be chosen")
    build, shape, options = MODELS["alexnet"]
    x, labels = rng.standard_normal((3, *shape)).astype(np.float32), rng.integers(0, 10, 3)

    def weights():
        net = build(shape, 10, device=kernels_backend, seed=3, **options)
        train(net, x, labels, steps=2)
        return net.state()

    expected = weights()
    for order in (*ORDERS[kernels_backend.name], "shuffle:7"):
        with kernel_order(order):
            for name, values in weights().items():
                same_bits(values, expected[name])


def test_a_run_of_the_trainer(kernels_backend, tmp_path):
    folder = write_data(tmp_path / "data")

    def run(device):
        return convnet.train(config(folder), device=device, run_dir=tmp_path / device)

    ours, theirs = run(kernels_backend.device), run("cpu")
    assert ours.status == theirs.status == "done"
    for mine, its in zip(ours.history, theirs.history, strict=True):
        assert (mine["kind"], mine["step"], mine["lr"]) == (its["kind"], its["step"], its["lr"])
        follows([mine["loss"]], [its["loss"]], f"loss at step {mine['step']}")
