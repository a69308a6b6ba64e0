"""The calls that a program consists of, their table, and their recording."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import BATCH, IN_SHAPE, chain, data, every_graph, make
from pairs import calls_of, freeze

import convnet
import convnet.backend
from convnet.cli.main import main
from convnet.nn.program_table import flops
from convnet.optim.sgd import SGD


def test_the_step_of_a_chain() -> None:
    """Every fusion there is; what nothing learns from, and the input's gradient, are not there."""
    assert calls_of(make(chain)) == [
        ("conv_fprop", ("conv1", "relu1")),
        ("lrn_maxpool_fprop", ("lrn1", "pool1")),
        ("conv_fprop", ("conv2", "relu2")),
        ("conv_fprop", ("conv3",)),
        ("activation_fprop", ("tanh3",)),
        ("dense_fprop_dropout", ("fc4", "relu4", "drop4")),
        ("dense_fprop_dropout", ("fc5", "relu5", "drop5")),
        ("dense_fprop", ("fc6",)),
        ("softmax_xent", ("softmax",)),
        ("dense_dgrad", ("fc6", "relu5", "drop5")),
        ("dense_wgrad_sgd", ("fc6", "update")),
        ("activation_bprop", ("relu5",)),  # the factor of the inverted dropout
        ("dense_dgrad", ("fc5", "relu4", "drop4")),
        ("dense_wgrad_sgd", ("fc5", "update")),
        ("dense_dgrad", ("fc4",)),
        ("dense_wgrad_sgd", ("fc4", "update")),
        ("activation_bprop", ("tanh3",)),
        ("conv_dgrad", ("conv3", "relu2")),
        ("conv_wgrad", ("conv3",)),
        ("conv_dgrad", ("conv2",)),
        ("conv_wgrad", ("conv2",)),
        ("lrn_maxpool_bprop", ("lrn1", "pool1", "relu1")),
        ("conv_wgrad", ("conv1",)),
        ("sgd_update", ("update",)),
    ]


def test_nothing_is_computed_below_what_learns() -> None:
    net = make(chain)
    freeze(net, ["conv1", "conv2", "conv3"])
    names = [nodes[0] for op, nodes in calls_of(net)]
    backward = names[names.index("softmax") + 1 :]
    assert backward[-2:] == ["fc4", "update"]
    assert not {"conv1", "conv2", "conv3", "pool1", "lrn1"} & set(backward)


@every_graph
def test_frozen_layers_change_no_bit_of_the_others(graph: Any, backend: Any, rng: Any) -> None:
    """Against a net that computes all gradients and leaves some parameters alone."""
    x, labels = data(rng)
    owners = [node.name for node in make(graph).nodes if node.layer.params and not node.share]
    for names in (owners[:1], owners[1:-1], owners):
        net, whole = (make(graph, backend, seed=3) for _ in range(2))
        freeze(net, names)
        rest = [param for param in whole.params if param.name.split(".")[0] not in names]
        sgds = SGD(net.params, lr=0.05), SGD(rest, lr=0.05)
        for _ in range(2):
            pairs = zip((net, whole), sgds, strict=True)
            losses = [one.train_step(x, labels, sgd) for one, sgd in pairs]
            assert losses[0] == losses[1]
        for name, array in whole.state().items():
            np.testing.assert_array_equal(net.state()[name], array, err_msg=name)
        assert not any(param.has_velocity for param in net.params if param.frozen)


def test_the_table_of_a_step(capsys: Any) -> None:
    """Its FLOPs are three times the net's, less the gradient of the input, which nobody needs."""
    net = make(chain, "cpu")
    lines = net.program_table(BATCH).splitlines()
    assert lines[0].split() == [
        *("#", "call", "nodes", "writes", "type", "KiB", "MFLOP", "at", "KiB")
    ]
    assert lines[2].split()[:5] == ["0", "conv_fprop", "conv1,", "relu1", "6x8x7x6"]
    assert len(lines) == 2 + len(calls_of(net)) + 3  # and two rules, the total, the block
    traced = net.programs.trace_training((BATCH, *IN_SHAPE), SGD(net.params))
    total = sum(flops(call) for call in traced.program.calls)
    assert total == BATCH * (3 * net.flops - 2 * net.nodes[0].layer.macs)
    assert lines[-1].startswith("cpu: a block of ")
    assert main(["summary", "fashion-mnist", "--device", "cpu:0,cpu:1", "--program"]) == 0
    out = capsys.readouterr().out
    assert "dense_wgrad_sgd" in out
    assert "wait for cpu:1" in out
    assert "\ncpu:1: a block of " in out


def test_an_error_names_the_call_and_its_nodes() -> None:
    net = make(chain, "cpu")
    traced = net.programs.trace_losses((BATCH, *IN_SHAPE), train=False)
    call = next(c for c in traced.program.calls if "conv2" in c.nodes)
    call.args["groups"] = 3
    from convnet.nn.run import Runnable

    runnable = Runnable(traced.program, traced.trace, [])
    runnable.blocks = [np.zeros(size, np.uint8) for size in runnable.sizes]
    runnable.fill({traced.x: np.zeros(traced.x.shape, np.float32)})
    with pytest.raises(ValueError, match=r"call 2, conv_fprop of conv2, relu2: .*groups"):
        runnable.run()


def test_one_recording_at_a_time() -> None:
    module = convnet.backend.get("cpu").module
    first, second = module.Recording(), module.Recording()
    first.begin()
    try:
        with pytest.raises(RuntimeError, match="another one is active"):
            second.begin()
    finally:
        first.end()
    with pytest.raises(RuntimeError, match="not active"):
        first.end()


def test_a_recording_keeps_its_arrays() -> None:
    """The arrays of its calls may be gone everywhere else."""
    module = convnet.backend.get("cpu").module
    recording = module.Recording()
    out = np.zeros((1000, 100), np.float32)
    recording.begin()
    for _ in range(3):
        module.accumulate(np.ones((1000, 100), np.float32), out, 0)
    recording.end()
    junk = [np.full((1000, 100), 7, np.float32) for _ in range(5)]
    recording.run()
    assert recording.names == ["accumulate"] * 3
    assert len(junk) == 5
    np.testing.assert_array_equal(out, 6)
