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

from convnet import ops
from convnet.backend import Backend
from convnet.gradcheck import gradcheck
from convnet.layers import Dense, Dropout, Flatten, ReLU, SoftmaxXent, Sum, Tanh
from convnet.memory import training_memory
from convnet.net import Net, Node
from convnet.sgd import SGD


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
def test_training_memory_is_what_training_takes(graph, fuse, backend, rng, monkeypatch):
    net = make(graph, backend, fuse=fuse)
    memory = training_memory(net, BATCH)
    asked, workspace = [0], Backend.workspace
    monkeypatch.setattr(
        Backend, "workspace", lambda self, size: asked.append(size) or workspace(self, size)
    )
    train(net, *data(rng), steps=1)
    assert memory.workspace == max(asked)
    sums = sum(array.nbytes for array in net._sums.values())
    layers = sum(node.layer.buffer_bytes for node in net.nodes)
    assert memory.outputs + memory.output_gradients == layers + sums
    arrays = [getattr(p, key) for p in net.params for key in ("data", "_grad", "_velocity")]
    arrays += [p._scratch for p in net.params]
    assert memory.parameters + memory.gradients + memory.velocities == sum(
        array.nbytes for array in arrays if array is not None
    )
    assert net.memory_bytes(BATCH) == memory.total


def test_what_is_fused_in_the_chain():
    layers = {node.name: node.layer for node in make(chain).nodes}
    assert layers["conv1"].fuse_relu
    assert layers["relu1"].fused
    assert layers["lrn1"].fused
    assert layers["pool1"].norm is layers["lrn1"]
    assert layers["conv1"].dy_masked  # by the pool, with LRN between
    assert layers["pool1"].mask_dx
    assert not layers["conv1"].need_dx
    assert layers["conv2"].need_dx
    assert layers["conv2"].dy_masked
    assert layers["conv3"].mask_dx
    assert layers["tanh3"].in_place
    assert not layers["lrn1"].in_place
    assert layers["drop4"].in_place
    assert layers["drop5"].in_place
    assert layers["drop4"].masked
    assert layers["drop5"].masked
    assert layers["fc5"].mask_dx  # with dropout between: what was dropped is 0
    assert layers["fc6"].mask_dx
    assert layers["fc4"].dy_masked
    assert layers["fc4"].dropout is layers["drop4"]
    assert layers["fc5"].dropout is layers["drop5"]
    assert layers["drop4"].fused
    assert layers["drop5"].fused
    assert layers["fc6"].dropout is None


def test_what_is_not_fused_in_branches():
    layers = {node.name: node.layer for node in make(branches).nodes}
    assert not layers["a"].fuse_relu
    assert not layers["norm"].fused  # others read it
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
        assert not getattr(node.layer, "fused", False)
        assert getattr(node.layer, "norm", None) is None
        assert not getattr(node.layer, "masked", False)
        assert getattr(node.layer, "dropout", None) is None
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


def freeze(net, names):
    for node in net.nodes:
        if node.name in names:
            for param in node.layer.params:
                param.lr_mult = 0.0


@every_graph
@pytest.mark.parametrize("fuse", [True, False])
def test_frozen_layers_change_no_bit_of_the_others(graph, fuse, backend, rng):
    """Against a net that computes all gradients and leaves some parameters alone."""
    x, labels = data(rng)
    owners = [node.name for node in make(graph).nodes if node.layer.params and not node.share]
    for names in (owners[:1], owners[1:-1], owners):
        net, whole = (make(graph, backend, seed=3, fuse=fuse) for _ in range(2))
        freeze(net, names)
        rest = [param for param in whole.params if param.name.split(".")[0] not in names]
        sgds = SGD(net.params, lr=0.05), SGD(rest, lr=0.05)
        memory = training_memory(net, BATCH)
        for _ in range(2):
            losses = [
                one.train_step(x, labels, sgd) for one, sgd in zip((net, whole), sgds, strict=True)
            ]
            assert losses[0] == losses[1]
        for name, array in whole.state().items():
            np.testing.assert_array_equal(net.state()[name], array, err_msg=name)
        frozen = [param for param in net.params if param.lr_mult == 0.0]
        assert all(param._grad is None and not param.has_velocity for param in frozen)
        layers = sum(node.layer.buffer_bytes for node in net.nodes)
        sums = sum(array.nbytes for array in net._sums.values())
        assert memory.outputs + memory.output_gradients == layers + sums
        scratch = sum(p._scratch.nbytes for p in net.params if p._scratch is not None)
        graded = [param for param in net.params if param._grad is not None]
        assert memory.gradients == sum(param._grad.nbytes for param in graded) + scratch


def test_nothing_is_computed_below_what_learns(rng, monkeypatch):
    net = make(chain)
    names = [node.name for node in net.nodes if node.layer.params]
    freeze(net, names[:2])
    x, labels = data(rng)
    learning = [node.name for node in net.nodes].index(names[2])
    seen = []
    for node in net.nodes:
        bprop = node.layer.bprop
        monkeypatch.setattr(
            node.layer,
            "bprop",
            lambda dy, bprop=bprop, name=node.name: seen.append(name) or bprop(dy),
        )
    train(net, x, labels, steps=1)
    assert seen == [node.name for node in reversed(net.nodes[learning:])]
    seen.clear()
    net.params[0].lr_mult = 1.0  # freed again while the net is there
    before = net.params[0].data.copy()
    train(net, x, labels, steps=1)
    assert seen[-1] == names[0]
    assert not np.array_equal(net.params[0].data, before)


def test_the_norm_below_a_pool_takes_no_memory(rng):
    """LRN's output and its gradient are never stored, and asking for its output still gives it."""
    fused, plain = make(chain, seed=3), make(chain, seed=3, fuse=False)
    x, labels = data(rng)
    train(fused, x, labels, steps=1)
    train(plain, x, labels, steps=1)
    layers = [{node.name: node.layer for node in net.nodes} for net in (fused, plain)]
    assert layers[0]["lrn1"].buffer_bytes == 0
    assert layers[1]["lrn1"].buffer_bytes == 2 * 4 * BATCH * 8 * 7 * 6
    np.testing.assert_array_equal(fused.forward(x, "lrn1"), plain.forward(x, "lrn1"))
    assert layers[0]["lrn1"].fused


def test_dropout_is_drawn_by_the_dense_layer(backend, rng, monkeypatch):
    """In training only; and without a ReLU between them too, where bprop draws again."""
    drawn = []
    for name in ("dropout_fprop", "dense_fprop_dropout", "dropout_bprop"):
        call = getattr(ops, name)
        monkeypatch.setattr(
            ops, name, lambda *a, name=name, call=call, **o: drawn.append(name) or call(*a, **o)
        )
    x, labels = data(rng)
    net = make(chain, backend, seed=3)
    train(net, x, labels, steps=1)
    assert drawn == ["dense_fprop_dropout"] * 2
    net.predict(x)
    net.evaluate(x, labels)
    assert drawn == ["dense_fprop_dropout"] * 2
    train(make(chain, backend, seed=3, fuse=False), x, labels, steps=1)
    assert sorted(drawn[2:]) == ["dropout_bprop"] * 2 + ["dropout_fprop"] * 2
    drawn.clear()
    bare = [Node("fc1", dense(8)), Node("drop1", Dropout(0.4)), Node("fc2", dense(CLASSES))]
    net = Net([*bare, Node("s", SoftmaxXent())], IN_SHAPE, device=backend, seed=3)
    train(net, x, labels, steps=1)
    assert drawn == ["dense_fprop_dropout", "dropout_bprop"]


class OwnDense(Dense):
    """A layer of a user's own, which knows nothing of dropout."""


class OwnDropout(Dropout):
    """Likewise."""


def own_kinds():
    return [
        Node("fc1", OwnDense(8, relu=True)),
        Node("drop1", Dropout(0.4)),
        Node("fc2", dense(8, relu=True)),
        Node("drop2", OwnDropout(0.4)),
        Node("fc3", dense(CLASSES)),
        Node("softmax", SoftmaxXent()),
    ]


def test_layers_of_ones_own_are_left_alone(backend, rng):
    x, labels = data(rng)
    fused, plain = (make(own_kinds, backend, seed=3, fuse=fuse) for fuse in (True, False))
    assert not any(getattr(node.layer, "dropout", None) for node in fused.nodes)
    assert train(fused, x, labels) == train(plain, x, labels)


def test_no_random_numbers_in_the_backward_pass_over_a_relu(rng, monkeypatch):
    """Both dropouts of the chain leave their masks to the ReLUs below; alone they draw again."""

    def drawn(dy, *args, **options):
        raise AssertionError("dropout_bprop was called")

    monkeypatch.setattr(ops, "dropout_bprop", drawn)
    x, labels = data(rng)
    train(make(chain, seed=3), x, labels, steps=1)
    with pytest.raises(AssertionError, match="dropout_bprop"):
        train(make(chain, seed=3, fuse=False), x, labels, steps=1)


def dropouts():
    """Dropout over dropout, over an activation that is no ReLU, and over what others read."""
    return [
        Node("fc1", dense(14, relu=True)),
        Node("drop1", Dropout(0.3, "inverted")),
        Node("again1", Dropout(0.2)),
        Node("fc2", dense(9)),
        Node("tanh2", Tanh()),
        Node("drop2", Dropout(0.4)),
        Node("fc3", dense(9, relu=True)),
        Node("drop3", Dropout(0.4)),
        Node("fc4", dense(9), "fc3"),
        Node("join", Sum(), ("drop3", "fc4")),
        Node("relu5", ReLU()),
        Node("drop5", Dropout(0.3, "inverted")),
        Node("fc6", dense(CLASSES)),
        Node("softmax", SoftmaxXent()),
    ]


def test_masks_of_dropouts(backend, rng):
    x, labels = data(rng)
    fused, plain = (make(dropouts, backend, seed=3, fuse=fuse) for fuse in (True, False))
    masked = {n.name: n.layer.masked for n in fused.nodes if isinstance(n.layer, Dropout)}
    assert masked == {
        "drop1": True,
        "again1": True,
        "drop2": False,
        "drop3": False,  # fc4 reads what the ReLU gave
        "drop5": True,
    }
    joined = {n.name: n.layer.fused for n in fused.nodes if isinstance(n.layer, Dropout)}
    assert joined == dict.fromkeys(masked, False) | {"drop1": True}  # over a dense layer's output
    assert train(fused, x, labels) == train(plain, x, labels)
    for name, array in plain.state().items():
        np.testing.assert_array_equal(fused.state()[name], array, err_msg=name)
    rows = gradcheck(fused, x, labels, samples=3)
    assert all(row.ok for row in rows), rows
