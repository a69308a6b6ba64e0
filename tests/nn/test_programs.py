"""Nets as programs: the same bits as layer by layer, whatever changes between steps."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from nets import BATCH, CLASSES, IN_SHAPE, chain, data, dense, every_graph, make
from paths import ROOT

import convnet
import convnet.backend
from convnet import layers, ops
from convnet.backend import Backend
from convnet.cli.main import main
from convnet.layers import Dense, Dropout, Flatten, ReLU, SoftmaxCrossEntropy, Sum, Tanh
from convnet.nn.eager import Passes
from convnet.nn.gradcheck import gradcheck
from convnet.nn.net import Net, Node
from convnet.nn.plan import peak, plan
from convnet.nn.program import Program
from convnet.nn.program_table import flops
from convnet.nn.programs import KEPT, Programs
from convnet.nn.trace import Trace, TraceError
from convnet.ops.schema import operations
from convnet.optim.sgd import SGD


class Pair:
    """The same net twice: one runs programs, the other its layers one by one."""

    def __init__(self, graph: Any, device: Any, **options: Any) -> None:
        where = {"devices": device} if isinstance(device, list) else {"device": device}
        self.nets = [
            Net(graph(), IN_SHAPE, seed=3, trace=trace, **where, **options)
            for trace in (True, False)
        ]
        self.sgds = [SGD(net.params, lr=0.05) for net in self.nets]

    def step(self, x: Any, labels: Any, lr: float = 0.05) -> None:
        losses = []
        for net, sgd in zip(self.nets, self.sgds, strict=True):
            sgd.lr = lr
            losses.append(net.train_step(x, labels, sgd))
        assert losses[0] == losses[1]
        np.testing.assert_array_equal(self.nets[0].last_rank, self.nets[1].last_rank)

    def same(self) -> None:
        states = [net.state() for net in self.nets]
        for name, array in states[0].items():
            np.testing.assert_array_equal(array.view(np.uint32), states[1][name].view(np.uint32))

    def again(self, monkeypatch: Any, *batch: Any, lr: float = 0.05) -> None:
        """A step that runs no layer, traces nothing and takes no memory."""
        net, sgd = self.nets[0], self.sgds[0]

        def none(*_: Any, **__: Any) -> Any:
            raise AssertionError("a step that was bound did more than run")

        sgd.lr = self.sgds[1].lr = lr
        with monkeypatch.context() as patch:
            for name in ("forward", "backward"):
                patch.setattr(Passes, name, none)
            for name in ("empty", "zeros", "workspace"):
                patch.setattr(Backend, name, none)
            patch.setattr(SGD, "update", none)
            loss = net.train_step(*batch, sgd)
        assert loss == self.nets[1].train_step(*batch, self.sgds[1])


def two_devices() -> Any:
    try:
        return convnet.backend.get_all("vgpu:0,vgpu:1")
    except convnet.DeviceError as error:
        pytest.skip(str(error))


# ---- the same bits ------------------------------------------------------------------------------


@every_graph
def test_steps(backend: Any, rng: Any, monkeypatch: Any, graph: Any) -> None:
    pair = Pair(graph, backend.name)
    for step in range(3):
        pair.step(*data(rng), lr=0.05 / (1 + step))
    for step in range(3):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()


@every_graph
@pytest.mark.parametrize("kind", ["vgpu", "cpu"])
def test_two_devices(rng: Any, monkeypatch: Any, graph: Any, kind: str) -> None:
    devices = two_devices() if kind == "vgpu" else ["cpu:0", "cpu:1"]
    pair = Pair(graph, devices)
    for _ in range(3):
        pair.step(*data(rng))
    for step in range(3):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()


@every_graph
def test_gradients_losses_outputs(backend: Any, rng: Any, graph: Any) -> None:
    x, labels = data(rng)
    net, plain = (make(graph, backend, seed=3, trace=trace) for trace in (True, False))
    host = backend.to_host
    assert net.gradients(x, labels) == plain.gradients(x, labels)
    for mine, theirs in zip(net.params, plain.params, strict=True):
        np.testing.assert_array_equal(host(mine.grad), host(theirs.grad), err_msg=mine.name)
    assert net.training_loss(x, labels) == plain.training_loss(x, labels)
    for mine, theirs in zip(net.evaluate(x, labels), plain.evaluate(x, labels), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name in net.shapes:
        np.testing.assert_array_equal(net.forward(x, name), plain.forward(x, name), err_msg=name)


@every_graph
@pytest.mark.parametrize("trace", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_gradients_against_differences_of_the_loss(
    graph: Any, trace: bool, backend: Any, rng: Any
) -> None:
    net = make(graph, backend, seed=3, trace=trace)
    rows = gradcheck(net, *data(rng), samples=3)
    assert [row.parameter for row in rows] == [param.name for param in net.params]
    assert all(row.ok for row in rows), rows
    assert all(row.judged >= 2 for row in rows), rows


def dropouts() -> list[Node]:
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
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def test_dropouts(backend: Any, rng: Any) -> None:
    pair = Pair(dropouts, backend.name)
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()
    assert all(row.ok for row in gradcheck(pair.nets[0], *data(rng), samples=3))


def test_masks_differ_from_step_to_step(backend: Any, rng: Any) -> None:
    """The same batch and no learning give other losses."""
    pair = Pair(chain, backend.name)
    batch = data(rng)
    losses = set()
    for _ in range(5):
        pair.step(*batch, lr=0.0)
        losses.add(pair.nets[0].training_loss(*batch))
    assert len(losses) == 5


# ---- what a program is made for -----------------------------------------------------------------


def calls_of(
    net: Net, batch: int = BATCH, sgd: SGD | None = None
) -> list[tuple[str, tuple[str, ...]]]:
    traced = net.programs.trace_training((batch, *IN_SHAPE), sgd or SGD(net.params))
    return [(call.op.name, call.nodes) for call in traced.program.calls]


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


def freeze(net: Net, names: Any) -> None:
    for node in net.nodes:
        if node.name in names:
            for param in node.layer.params:
                param.lr_mult = 0.0


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


def test_every_batch_size_is_kept(backend: Any, rng: Any, monkeypatch: Any) -> None:
    pair = Pair(chain, backend.name)
    for count in (BATCH, BATCH - 2, BATCH + 3):
        pair.step(*data(rng, count))
    # The largest came last and made the block anew, so that the others are bound again.
    for count in (BATCH + 3, BATCH, BATCH - 2):
        for _ in range(2):
            pair.step(*data(rng, count))
    for count in (BATCH + 3, BATCH - 2, BATCH, BATCH - 2):
        pair.again(monkeypatch, *data(rng, count))
    pair.same()


def test_few_are_kept(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    for count in range(KEPT + 4, 2, -1):
        pair.step(*data(rng, count))
        assert 1 <= len(pair.nets[0].programs._kept) <= KEPT
    pair.same()


def change_lr_mult(net: Net) -> None:
    net.params[0].lr_mult = 0.5


def freeze_some(net: Net) -> None:
    for param in net.params[:3]:
        param.lr_mult = 0.0


def change_decay(net: Net) -> None:
    net.params[2].decay_mult = 3.0


def change_dropout(net: Net) -> None:
    next(node.layer for node in net.nodes if node.name == "drop4").drop = 0.9


def replace_data(net: Net) -> None:
    net.params[4].data = net.backend.asarray(net.backend.to_host(net.params[4].data) * 2)


def write_data(net: Net) -> None:
    net.params[4].data *= 2


def load(net: Net) -> None:
    net.load_state({name: 0.9 * array for name, array in net.state().items()})


def evaluate_larger(net: Net) -> None:
    net.evaluate(*data(np.random.default_rng(0), 3 * BATCH))


def predict(net: Net) -> None:
    net.forward(data(np.random.default_rng(0))[0], "fc4")


def gradients(net: Net) -> None:
    net.gradients(*data(np.random.default_rng(0), BATCH - 1))


def change_seed_and_step(net: Net) -> None:
    net._random.seed = 99
    net.step = 1000


def move_first_case(net: Net) -> None:
    net.first_sample = 12


def keep(net: Net) -> None:
    net.keep_gradients = True


CHANGES = [
    change_lr_mult, freeze_some, change_decay, change_dropout, replace_data, write_data, load,
    evaluate_larger, predict, gradients, change_seed_and_step, move_first_case, keep,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_not_missed(backend: Any, rng: Any, change: Any) -> None:
    pair = Pair(chain, backend.name)
    for _ in range(2):
        pair.step(*data(rng))
    for net in pair.nets:
        change(net)
    for _ in range(2):
        pair.step(*data(rng))
    pair.same()


def test_another_update_rule(backend: Any, rng: Any) -> None:
    pair = Pair(chain, backend.name)
    for _ in range(2):
        pair.step(*data(rng))
    pair.sgds = [SGD(net.params, lr=0.05, momentum=0.5) for net in pair.nets]
    for _ in range(2):
        pair.step(*data(rng))
    pair.sgds[0].params.pop()
    pair.sgds[1].params.pop()
    for _ in range(2):
        pair.step(*data(rng))
    pair.same()


class Plain(SGD):
    """A rule of a user's own, which wants the gradients."""

    def update(self, state: Any = None) -> None:
        for param in self.params:
            param.data -= np.float32(self.lr) * param.grad


def test_a_rule_of_ones_own_gets_the_gradients(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    pair.sgds = [Plain(net.params) for net in pair.nets]
    assert not pair.sgds[0].usual
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()


def test_rates_of_a_parameters_own(backend: Any, rng: Any, monkeypatch: Any) -> None:
    """They come and go, change from step to step, and are part of the program."""
    pair = Pair(chain, backend.name)
    for step in range(6):
        for net in pair.nets:
            net.params[1].rates.lr = 0.01 * (step + 1) if 0 < step < 5 else None
            net.params[-2].rates.momentum = 0.25 if step > 2 else None
        pair.step(*data(rng))
    pair.again(monkeypatch, *data(rng))
    names = [name for name, _ in calls_of(pair.nets[0], sgd=pair.sgds[0])]
    assert names.count("sgd_update") == 1
    assert names.count("dense_wgrad_sgd") > 0
    pair.same()


def test_another_number_of_threads(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    try:
        for threads in (2, 1, 2):
            convnet.backend.set_threads(threads)
            for _ in range(2):
                pair.step(*data(rng))
    finally:
        convnet.backend.set_threads(0)
    pair.same()


# ---- gradients ----------------------------------------------------------------------------------


def test_gradients_are_there_where_they_are_asked_for(backend: Any, rng: Any) -> None:
    net = make(chain, backend)
    sgd, batch = SGD(net.params), data(rng)
    assert all(param.grad is None for param in net.params)
    net.train_step(*batch, sgd)
    assert all(param.grad is None for param in net.params)
    net.gradients(*batch)
    assert all(param.grad.shape == param.shape for param in net.params)
    net.train_step(*batch, sgd)
    assert all(param.grad is None for param in net.params)
    with pytest.raises(RuntimeError, match=r"conv1\.w: there is no gradient: Net\.gradients"):
        sgd.update()
    net.keep_gradients = True
    net.train_step(*batch, sgd)
    kept = [np.array(backend.to_host(param.grad)) for param in net.params]
    assert all(array.any() for array in kept)
    with pytest.raises(ValueError, match="keep_gradients: expected true or false, got 1"):
        net.keep_gradients = 1  # type: ignore[assignment]


def test_gradients_of_frozen_parameters_are_zero(backend: Any, rng: Any) -> None:
    net = make(chain, backend)
    net.gradients(*data(rng))
    freeze(net, ["conv2"])
    net.gradients(*data(rng))
    for param in net.params:
        grad = backend.to_host(param.grad)
        assert grad.any() != param.name.startswith("conv2"), param.name


def test_what_is_fed_is_not_written_to(backend: Any, rng: Any) -> None:
    """Whether a program reads a caller's array itself, because it comes again, or a copy."""
    pair = Pair(chain, backend.name)
    x, labels = data(rng)
    other, other_labels = data(rng)
    copies = [array.copy() for array in (x, labels, other, other_labels)]
    for _ in range(3):
        pair.step(x, labels)
    for _ in range(3):
        pair.step(other, other_labels)
    x *= 0.5  # written by its owner, as a loader does
    pair.step(x, labels)
    x *= 2.0
    for array, copy in zip((x, labels, other, other_labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    pair.same()


def test_the_input_is_never_written_in_place(backend: Any, rng: Any) -> None:
    x, labels = data(rng)
    x = np.abs(x)
    before = x.copy()
    nodes = [
        Node("flat", Flatten()),
        Node("relu", ReLU()),
        Node("drop", Dropout(0.5)),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    net = Net(nodes, IN_SHAPE, device=backend)
    given = backend.asarray(x)
    for _ in range(3):
        net.train_step(given, labels, SGD(net.params))
    net.predict(given)
    np.testing.assert_array_equal(backend.to_host(given), before)


def test_bad_input_is_refused_as_ever(rng: Any) -> None:
    pair = Pair(chain, "cpu")
    pair.step(*data(rng))
    x, labels = data(rng)
    for wrong in ((x.astype(np.float64), labels), (x, labels + CLASSES), (x[:, :-1], labels)):
        with pytest.raises(ValueError, match="expected"):
            pair.nets[0].train_step(*wrong, pair.sgds[0])
    pair.step(x, labels)
    pair.same()


# ---- layers that cannot be looked into ----------------------------------------------------------


class Doubled(ReLU):
    """A layer of a user's own, which does something that is no operation of convnet."""

    def fprop(self, x: Any, train: bool) -> Any:
        y, saved = super().fprop(x, train)
        return y * np.float32(2), saved

    def bprop(self, saved: Any, dy: Any) -> Any:
        return super().bprop(saved, dy * np.float32(2))


class OwnDense(Dense):
    """A layer of a user's own that only calls operations, and says so."""

    traced = True


def own_layers() -> list[Node]:
    return [
        Node("fc1", OwnDense(8, init="he")),
        Node("own", Doubled()),
        Node("drop", Dropout(0.3)),
        Node("fc2", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


def test_layers_of_ones_own_are_calls_of_python(backend: Any, rng: Any) -> None:
    pair = Pair(own_layers, backend.name)
    for _ in range(4):
        pair.step(*data(rng))
    pair.same()
    assert [name for name, nodes in calls_of(pair.nets[0]) if "own" in nodes] == ["fprop", "bprop"]
    x, _ = data(rng)
    for name in pair.nets[0].shapes:
        one, other = (net.forward(x, name) for net in pair.nets)
        np.testing.assert_array_equal(one, other)


class Wrong(ReLU):
    traced = True

    def fprop(self, x: Any, train: bool) -> Any:
        return (x * 2 if train else x), x


def test_a_layer_that_says_it_can_be_traced_and_cannot() -> None:
    net = Net(
        [Node("own", Wrong()), Node("fc", dense(3)), Node("s", SoftmaxCrossEntropy())], IN_SHAPE
    )
    with pytest.raises(TraceError, match="node 'own': the values of a tensor are not known"):
        calls_of(net)


def test_layers_that_work_on_arrays_themselves_say_so() -> None:
    for name in layers.__all__:
        layer = getattr(layers, name)
        if not isinstance(layer, type) or layer in (layers.Layer, layers.Loss):
            continue
        bodies = "".join(
            inspect.getsource(method)
            for kind in layer.__mro__
            if kind.__module__.startswith("convnet.layers")
            for method in vars(kind).values()
            if inspect.isfunction(method) and method.__name__ not in ("setup", "__init__")
        )
        touches = any(sign in bodies for sign in (".xp", "[...] =", ".sum(", "xp = "))
        assert not (layer.traced and touches), name


# ---- tensors, tables, memory --------------------------------------------------------------------


def test_a_tensor_has_no_values() -> None:
    trace = Trace([convnet.backend.get("cpu")])
    x = trace.input((2, 3), np.float32, trace.backends[0])
    for ask in (bool, float, list, np.asarray, lambda t: t + 1, lambda t: t[0], lambda t: 2 * t):
        with pytest.raises(TraceError, match="the values of a tensor are not known"):
            ask(x)
    assert x.reshape(-1).shape == (6,)
    assert x.reshape(2, 3) is x
    assert x.reshape((3, -1)).root is x
    with pytest.raises(ValueError, match=r"reshape: 6 numbers of shape \(2, 3\)"):
        x.reshape(4, 2)


def test_the_schema_has_every_operation_of_the_contract(backend: Any) -> None:
    """What of src/ops.h runs on a stream, in each backend's module and in no other."""
    header = (ROOT / "src" / "ops.h").read_text(encoding="utf-8")
    contract = re.findall(
        r"^(?:CONVNET_OPTIONAL )?void (\w+)\([^;]*Stream stream\);", header, re.MULTILINE
    )
    assert len(contract) > 20
    rows = backend.module.schema()
    assert sorted(name for name, _, returns in rows if not returns) == sorted(contract)
    assert rows == convnet.backend.get("cpu").module.schema()
    assert set(operations()) == set(contract)


@every_graph
def test_nothing_lies_over_what_is_alive(graph: Any) -> None:
    net = make(graph)
    program = net.programs.trace_training((BATCH, *IN_SHAPE), SGD(net.params)).program
    placed = plan(program)
    lives: dict[Any, list[int]] = {}
    for index, call in enumerate(program.calls):
        scratch = call.tensors(("workspace",)) if call.op.scratch else []
        for tensor in (*call.reads, *call.writes, *scratch):
            if tensor.root in placed.offset:
                lives.setdefault(tensor.root, []).append(index)
    assert set(lives) == set(placed.offset)
    in_place = {
        frozenset((call[read].root, call[written].root))
        for call in program.calls
        for read, written in call.op.in_place
    }
    for one, times in lives.items():
        start, end = placed.offset[one], placed.offset[one] + one.nbytes
        assert end <= placed.size
        for other, others in lives.items():
            if one is other or times[-1] < others[0] or others[-1] < times[0]:
                continue
            low, high = placed.offset[other], placed.offset[other] + other.nbytes
            meets = {times[0], times[-1]} & {others[0], others[-1]}
            shared = frozenset((one, other)) in in_place and meets
            assert shared or high <= start or end <= low, (one, other)
    assert peak(program)[0] <= placed.size <= 1.3 * peak(program)[0] + 64 * len(lives)


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


# ---- runs ---------------------------------------------------------------------------------------


def lines(capsys: Any, folder: Path, run_dir: Path, **changes: Any) -> Any:
    """What a short run prints of its steps, and its last weights."""
    cfg = tiny.config(folder, train={"epochs": 1}, **changes)
    result = convnet.train(cfg, device="cpu", run_dir=run_dir)
    out = capsys.readouterr().out
    return [line for line in out.splitlines() if line.startswith("step  ")], result.net.state()


def test_a_run_says_how_its_steps_run(tmp_path: Path, capsys: Any) -> None:
    folder = tiny.write_data(tmp_path / "data")
    found, state = lines(capsys, folder, tmp_path / "fused")
    assert found == ["step      a program for each batch size, run in C++"]
    _, kept = lines(capsys, folder, tmp_path / "kept", step={"keep_gradients": True})
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name])
    with pytest.raises(convnet.ConfigError, match=r"step\.graph"):
        convnet.train(tiny.config(folder, step={"graph": "maybe"}))


def test_a_run_traces_once(tmp_path: Path, monkeypatch: Any) -> None:
    """Validation between its epochs, checkpoints and logging leave the programs be."""
    traced: list[Program] = []
    end = Programs._end

    def spy(self: Programs, given: Any) -> Any:
        if self.net.sizes_only is False:
            traced.append(given)
        return end(self, given)

    monkeypatch.setattr(Programs, "_end", spy)
    cfg = tiny.config(
        tiny.write_data(tmp_path / "data"), train={"epochs": 3, "checkpoint_steps": 4}
    )
    convnet.train(cfg, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert len(traced) <= 3  # a step, and validation with a whole and with the last batch


def test_ops_are_as_ever_outside_a_trace(rng: Any) -> None:
    x = rng.standard_normal((2, 5)).astype(np.float32)
    np.testing.assert_array_equal(ops.relu_fprop(x), np.maximum(x, 0))
