"""The plan of a net: right gradients, equal results with and without fusion, and memory."""

import numpy as np
import pytest
from nets import (
    BATCH,
    CLASSES,
    IN_SHAPE,
    branches,
    chain,
    data,
    dense,
    every_graph,
    make,
    pool_first,
    train,
)

from convnet.gradcheck import gradcheck
from convnet.layers import Dropout, Flatten, ReLU, SoftmaxXent
from convnet.memory import training_memory
from convnet.net import Net, Node


@every_graph
@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_against_differences_of_the_loss(graph, fuse, backend, rng):
    net = make(graph, backend, seed=3, fuse=fuse)
    rows = gradcheck(net, *data(rng), samples=3)
    assert [row.parameter for row in rows] == [param.name for param in net.params]
    assert all(row.ok for row in rows), rows
    assert all(row.judged >= 2 for row in rows), rows


@every_graph
def test_fusion_changes_no_bit(graph, backend, rng):
    x, labels = data(rng)
    fused, plain = make(graph, backend, seed=3), make(graph, backend, seed=3, fuse=False)
    assert train(fused, x, labels) == train(plain, x, labels)
    for name, array in plain.state().items():
        np.testing.assert_array_equal(fused.state()[name], array, err_msg=name)
    np.testing.assert_array_equal(fused.predict(x), plain.predict(x))


@every_graph
def test_fusion_changes_no_activation(graph, backend, rng):
    x, _ = data(rng)
    fused, plain = make(graph, backend, seed=3), make(graph, backend, seed=3, fuse=False)
    for name in fused.shapes:
        np.testing.assert_array_equal(fused.forward(x, name), plain.forward(x, name), err_msg=name)


@every_graph
@pytest.mark.parametrize("fuse", [True, False])
def test_training_memory_is_what_training_takes(graph, fuse, backend, rng):
    net = make(graph, backend, fuse=fuse)
    memory = training_memory(net, BATCH)
    train(net, *data(rng), steps=1)
    sums = sum(array.nbytes for array in net._sums.values())
    layers = sum(node.layer.buffer_bytes for node in net.nodes)
    assert memory.outputs + memory.output_gradients == layers + sums
    arrays = [getattr(p, key) for p in net.params for key in ("data", "_grad", "_velocity")]
    scratch = [p._scratch for p in net.params if p._scratch is not None]
    assert memory.parameters + memory.gradients + memory.velocities == sum(
        array.nbytes for array in [*arrays, *scratch]
    )
    assert net.memory_bytes(BATCH) == memory.total


def test_what_is_fused_in_the_chain():
    layers = {node.name: node.layer for node in make(chain).nodes}
    assert layers["conv1"].fuse_relu
    assert layers["relu1"].fused
    assert not layers["conv1"].dy_masked  # LRN comes between it and the next convolution
    assert not layers["conv1"].need_dx
    assert layers["conv2"].need_dx
    assert layers["conv2"].dy_masked
    assert layers["conv3"].mask_dx
    assert layers["tanh3"].in_place
    assert not layers["lrn1"].in_place
    assert layers["drop4"].in_place
    assert layers["drop5"].in_place
    assert not layers["fc5"].mask_dx  # its input is dropout's


def test_what_is_not_fused_in_branches():
    layers = {node.name: node.layer for node in make(branches).nodes}
    assert not layers["a"].fuse_relu
    assert not layers["right"].in_place
    assert layers["relu"].in_place  # after the Sum, whose output nothing else reads
    assert not layers["a"].overwrite_dy
    assert not layers["b"].overwrite_dy
    assert not layers["a"].need_dx
    assert not layers["b"].need_dx


def test_nothing_is_fused_without_fuse():
    for node in make(chain, fuse=False).nodes:
        assert not node.layer.in_place
        assert not node.layer.overwrite_dy
        assert not getattr(node.layer, "fuse_relu", False)
        assert not getattr(node.layer, "dy_masked", False)


def test_the_input_is_never_written_to(backend, rng):
    x, labels = data(rng)
    x = np.abs(x)
    before = x.copy()
    nodes = [
        Node("flat", Flatten()),
        Node("relu", ReLU()),
        Node("drop", Dropout(0.5)),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxXent()),
    ]
    net = Net(nodes, IN_SHAPE, device=backend)
    assert not net.nodes[1].layer.in_place
    assert net.nodes[2].layer.in_place
    train(net, x, labels)
    net.predict(x)
    np.testing.assert_array_equal(x, before)


def test_layers_below_the_first_parameter_get_no_backward_pass(rng):
    net = make(pool_first)

    def fail(dy):
        raise AssertionError("bprop of a layer that nothing learns below")

    net.nodes[0].layer.bprop = fail
    train(net, *data(rng), steps=1)
