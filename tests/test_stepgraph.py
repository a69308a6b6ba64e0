"""Captured steps compute what plain ones do, to the bit, and without the layers."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from nets import BATCH, CLASSES, IN_SHAPE, chain, data, dense, every_graph, make
from tiny import config, write_data

import convnet
import convnet.backend
from convnet import layers
from convnet.backend import Backend
from convnet.config import ConfigError
from convnet.layers import Conv, Dense, ReLU, SoftmaxXent
from convnet.net import Net, Node
from convnet.sgd import SGD
from convnet.stepgraph import StepGraph, StepGraphError, StepGraphWarning


class Pair:
    """The same net twice: one captures its steps, the other does not."""

    def __init__(self, graph, device, **options):
        where = {"devices": device} if isinstance(device, list) else {"device": device}
        self.nets = [Net(graph(), IN_SHAPE, seed=3, **where, **options) for _ in range(2)]
        self.nets[1].step_graph.mode = "off"
        self.sgds = [SGD(net.params, lr=0.05) for net in self.nets]

    @property
    def graph(self):
        return self.nets[0].step_graph

    def step(self, x, labels, lr=0.05):
        losses = []
        for net, sgd in zip(self.nets, self.sgds, strict=True):
            sgd.lr = lr
            losses.append(net.train_step(x, labels, sgd))
        assert losses[0] == losses[1]
        np.testing.assert_array_equal(self.nets[0].last_rank, self.nets[1].last_rank)

    def same(self):
        states = [net.state() for net in self.nets]
        for name, array in states[0].items():
            np.testing.assert_array_equal(array.view(np.uint32), states[1][name].view(np.uint32))

    def again(self, monkeypatch, *batch, lr=0.05):
        """A step that may use no part of the net's layers, and no memory of its own."""
        net, sgd = self.nets[0], self.sgds[0]

        def none(*_, **__):
            raise AssertionError("Python's part of a step ran")

        sgd.lr = self.sgds[1].lr = lr
        with monkeypatch.context() as patch:
            for name in ("_forward", "_backward"):
                patch.setattr(Net, name, none)
            for name in ("empty", "zeros", "workspace"):
                patch.setattr(Backend, name, none)
            patch.setattr(SGD, "update", none)
            loss = net.train_step(*batch, sgd)
        assert loss == self.nets[1].train_step(*batch, self.sgds[1])


@every_graph
@pytest.mark.parametrize("fuse", [True, False])
def test_steps_are_the_same_to_the_bit(backend, rng, monkeypatch, graph, fuse):
    pair = Pair(graph, backend.name, fuse=fuse)
    assert pair.graph.problem is None
    for step in range(3):  # one more than a net by itself needs: each waits for the other's arrays
        pair.step(*data(rng), lr=0.05 / (1 + step))
    for step in range(6):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()


@every_graph
def test_two_devices(rng, monkeypatch, graph):
    """Transfers and their checks are operations like others, where devices do both."""
    pair = Pair(graph, two_devices())
    assert pair.graph.problem is None
    for _ in range(5):  # each of the two slots of a gradient is made in a step of its own
        pair.step(*data(rng))
    for step in range(3):
        pair.again(monkeypatch, *data(rng), lr=0.02 / (1 + step))
    pair.same()
    assert {"peer_copy", "peer_add", "peer_stamp", "peer_check", "peer_halt"} <= {
        name for held in pair.graph._captured.values() for name in held.recording.names
    }


def two_devices():
    try:
        return convnet.backend.get_all("emulator:0,emulator:1")
    except convnet.DeviceError as error:
        pytest.skip(str(error))


def test_through_the_host_steps_are_plain(monkeypatch, rng):
    monkeypatch.setenv("CONVNET_P2P", "off")
    pair = Pair(chain, two_devices())
    assert pair.graph.problem == "the host has a part in transfers between the devices"
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()


def test_masks_differ_from_step_to_step(backend, rng):
    """The same batch and no learning give other losses."""
    pair = Pair(chain, backend.name)
    batch = data(rng)
    losses = set()
    for _ in range(5):
        pair.step(*batch, lr=0.0)
        losses.add(pair.nets[0].training_loss(*batch))
    assert len(losses) == 5


def test_every_batch_size_is_captured(backend, rng, monkeypatch):
    pair = Pair(chain, backend.name)
    for count in (BATCH, BATCH - 2, BATCH + 3):
        for _ in range(3):
            pair.step(*data(rng, count))
    # The largest came last and made memory anew, so that the others have to be captured again.
    pair.again(monkeypatch, *data(rng, BATCH + 3))
    for count in (BATCH, BATCH - 2):
        for _ in range(2):
            pair.step(*data(rng, count))
    for count in (BATCH + 3, BATCH - 2, BATCH, BATCH - 2):
        pair.again(monkeypatch, *data(rng, count))
    pair.same()


def test_few_are_kept(rng):
    pair = Pair(chain, "cpu")
    for count in range(12, 2, -1):
        for _ in range(3):
            pair.step(*data(rng, count))
        assert 1 <= len(pair.graph._captured) <= 4
        assert 1 <= len(pair.graph._seen) <= 4
    pair.same()


def change_lr_mult(net):
    net.params[0].lr_mult = 0.5


def freeze(net):
    for param in net.params[:3]:
        param.lr_mult = 0.0


def change_decay(net):
    net.params[2].decay_mult = 3.0


def change_dropout(net):
    next(node.layer for node in net.nodes if node.name == "drop4").drop = 0.9


def replace_data(net):
    device = net.backend
    net.params[4].data = device.asarray(2 * np.array(device.to_host(net.params[4].data)))


def load(net):
    net.load_state({name: 0.9 * array for name, array in net.state().items()})


def evaluate_larger(net):
    net.evaluate(*data(np.random.default_rng(0), 3 * BATCH))


def predict(net):
    net.forward(data(np.random.default_rng(0))[0], "fc4")


def gradients(net):
    net.gradients(*data(np.random.default_rng(0), BATCH - 1))


def change_seed_and_step(net):
    net._random.seed = 99
    net.step = 1000


def move_first_case(net):
    net.first_case = 12


@pytest.mark.parametrize(
    "change",
    [
        change_lr_mult,
        freeze,
        change_decay,
        change_dropout,
        replace_data,
        load,
        evaluate_larger,
        predict,
        gradients,
        change_seed_and_step,
        move_first_case,
    ],
)
def test_what_changes_between_steps_is_not_missed(backend, rng, change):
    pair = Pair(chain, backend.name)
    for _ in range(4):
        pair.step(*data(rng))
    for net in pair.nets:
        change(net)
    for _ in range(4):
        pair.step(*data(rng))
    pair.same()
    assert len(pair.graph._captured) >= 1


def test_another_update_rule(backend, rng):
    pair = Pair(chain, backend.name)
    for _ in range(3):
        pair.step(*data(rng))
    pair.sgds = [SGD(net.params, lr=0.05, momentum=0.5) for net in pair.nets]
    for _ in range(3):
        pair.step(*data(rng))
    pair.sgds[0].params.pop()
    pair.sgds[1].params.pop()
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()


def test_another_number_of_threads(rng):
    pair = Pair(chain, "cpu")
    try:
        for threads in (2, 1, 2):
            convnet.backend.set_threads(threads)
            for _ in range(3):
                pair.step(*data(rng))
    finally:
        convnet.backend.set_threads(0)
    pair.same()


def test_what_is_fed_is_not_written_to(backend, rng):
    """Whether the net reads a caller's array itself, because it comes again, or a copy."""
    pair = Pair(chain, backend.name)
    x, labels = data(rng)
    other, other_labels = data(rng)
    copies = [array.copy() for array in (x, labels, other, other_labels)]
    for _ in range(4):
        pair.step(x, labels)
    for _ in range(4):
        pair.step(other, other_labels)
    x *= 0.5  # written by its owner, as a loader does
    pair.step(x, labels)
    x *= 2.0
    for array, copy in zip((x, labels, other, other_labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    pair.same()


def test_bad_input_is_refused_as_ever(rng):
    pair = Pair(chain, "cpu")
    for _ in range(3):
        pair.step(*data(rng))
    x, labels = data(rng)
    for wrong in ((x.astype(np.float64), labels), (x, labels + CLASSES), (x[:, :-1], labels)):
        with pytest.raises(ValueError, match="expected"):
            pair.nets[0].train_step(*wrong, pair.sgds[0])
    pair.step(x, labels)
    pair.same()


def test_where_values_are_not_finite(rng):
    pair = Pair(chain, "cpu")
    for _ in range(3):
        pair.step(*data(rng))
    net = pair.nets[0]
    net.evaluate(*data(rng))
    x, labels = data(rng)
    assert net.check_finite() is None
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(convnet.DivergedError):
        net.train_step(x, labels, pair.sgds[0])
    assert net.check_finite() == "input"


def test_off(rng):
    net = make(chain, "cpu")
    net.step_graph.mode = "off"
    sgd = SGD(net.params)
    for _ in range(4):
        net.train_step(*data(rng), sgd)
    assert not net.step_graph._captured
    assert net.step_graph.describe() == "plain launches: step.graph is off"


class Doubled(ReLU):
    """A layer of a user's own, which does something that is no operation of convnet."""

    def fprop(self, x, train):
        y = super().fprop(x, train)
        y *= 2
        return y


def own_layer():
    return [
        Node("fc1", dense(6)),
        Node("own", Doubled()),
        Node("fc2", dense(CLASSES)),
        Node("softmax", SoftmaxXent()),
    ]


def test_layers_of_ones_own_are_not_captured_on_the_host(backend, rng):
    """A CUDA graph holds whatever is given to the streams."""
    pair = Pair(own_layer, backend.name)
    captured = backend.name == "cuda"
    assert ("node 'own' is a layer of your own" in pair.graph.describe()) != captured
    for _ in range(4):
        pair.step(*data(rng))
    pair.same()
    assert bool(pair.graph._captured) == captured
    if captured:
        return
    pair.graph.mode = "force"
    with pytest.raises(StepGraphError, match=r"step\.graph=force: node 'own' is a layer"):
        pair.nets[0].train_step(*data(rng), pair.sgds[0])


def failing(net):
    """Makes the net's steps call an operation that a recording does not get to see."""
    plain = net.plain_step

    def step(x, labels, sgd):
        with pytest.raises(ValueError, match="accumulate: src"):
            net.backend.module.accumulate(0, 0)
        plain(x, labels, sgd)

    net.plain_step = step


def test_an_operation_that_cannot_be_recorded(backend, rng):
    """A CUDA graph is no recording: it holds whatever is given to the streams."""
    pair = Pair(chain, backend.name)
    failing(pair.nets[0])
    for _ in range(2):
        pair.step(*data(rng))
    if backend.name == "cuda":
        pair.step(*data(rng))
        assert pair.graph.problem is None
    else:
        with pytest.warns(StepGraphWarning, match="plain launches: accumulate cannot be"):
            pair.step(*data(rng))
        assert pair.graph.describe() == "plain launches: accumulate cannot be recorded"
    for _ in range(3):
        pair.step(*data(rng))
    pair.same()


def test_force_wants_it_recorded(rng):
    net = make(chain, "cpu")
    net.step_graph.mode = "force"
    failing(net)
    sgd = SGD(net.params)
    net.train_step(*data(rng), sgd)
    with pytest.raises(StepGraphError, match="accumulate cannot be recorded"):
        net.train_step(*data(rng), sgd)


def test_one_recording_at_a_time():
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


def test_a_recording_keeps_its_arrays(rng):
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
    assert recording.missing == ""
    assert len(junk) == 5
    np.testing.assert_array_equal(out, 6)


def lines(capsys, folder, run_dir, **changes):
    """What a short run prints of its steps, and its last weights."""
    cfg = config(folder, train={"epochs": 1}, **changes)
    result = convnet.train(cfg, device="cpu", run_dir=run_dir)
    out = capsys.readouterr().out
    return [line for line in out.splitlines() if line.startswith("step  ")], result.net.state()


def test_a_run_says_how_its_steps_run(tmp_path, capsys):
    folder = write_data(tmp_path / "data")
    found, state = lines(capsys, folder, tmp_path / "auto")
    assert found == ["step      captured, a list of calls for each batch size"]
    found, plain = lines(capsys, folder, tmp_path / "off", step={"graph": "off"})
    assert found == ["step      plain launches: step.graph is off"]
    for name, array in state.items():
        np.testing.assert_array_equal(array, plain[name])


def test_a_run_captures_once(tmp_path, monkeypatch):
    """Validation between its epochs, checkpoints and logging leave the captured step be."""
    captures = []
    capture = StepGraph._capture
    monkeypatch.setattr(
        StepGraph,
        "_capture",
        lambda self, *args, **kwargs: (captures.append(1), capture(self, *args, **kwargs)),
    )
    cfg = config(write_data(tmp_path / "data"), train={"epochs": 3, "checkpoint_steps": 4})
    convnet.train(cfg, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert len(captures) <= 2


def test_a_run_that_must_be_captured_and_cannot(tmp_path):
    cfg = config(write_data(tmp_path / "data"), step={"graph": "force"})
    with pytest.raises(ConfigError, match=r"step\.graph: force, but: the host has a part"):
        convnet.train(cfg, device="cpu:0,cpu:1", run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"step\.graph"):
        convnet.train(config(tmp_path, step={"graph": "maybe"}))


def test_modes():
    with pytest.raises(ValueError, match=r"step\.graph: expected one of auto, off, force"):
        StepGraph(make(chain), "maybe")


def test_every_operation_can_be_recorded():
    """Those of the contract that run on a stream are all in the list of bindings/recording.h."""
    root = Path(__file__).parent.parent
    header = (root / "src" / "ops.h").read_text(encoding="utf-8")
    operations = re.findall(r"^void (\w+)\([^;]*Stream stream\);", header, re.MULTILINE)
    assert len(operations) > 20
    listed = (root / "bindings" / "recording.h").read_text(encoding="utf-8")
    found = {*re.findall(r"CONVNET_RECORDED\((\w+)\)", listed), "sgd_update"}
    assert set(operations) - found == set()


def test_layers_that_work_on_arrays_themselves_say_so():
    """A list of calls would leave out what a layer does beside them."""
    for name in layers.__all__:
        layer = getattr(layers, name)
        if not isinstance(layer, type):
            continue
        bodies = "".join(
            inspect.getsource(method)
            for kind in layer.__mro__
            if kind.__module__.startswith("convnet.layers")
            for method in vars(kind).values()
            if inspect.isfunction(method) and method.__name__ not in ("setup", "__init__")
        )
        touches = any(sign in bodies for sign in (".xp", "[...] =", ".sum(", "xp = "))
        assert layer.works_on_arrays or not touches, name


def test_steps_with_such_a_layer_are_plain_and_train():
    nodes = [Node("conv", Conv(4, 3)), Node("b", layers.Bias()), Node("fc", Dense(3)), loss_node()]
    net = Net(nodes, (6, 6, 2), device="cpu")
    assert "node 'b' works on arrays itself" in StepGraph(net).problem


def test_steps_with_a_rate_of_a_parameter_s_own_are_plain():
    nodes = [Node("conv", Conv(4, 3)), Node("fc", Dense(3)), loss_node()]
    net = Net(nodes, (6, 6, 2), device="cpu")
    assert StepGraph(net).problem is None
    net.params[1].rates.momentum = 0.5
    assert "conv.b has a learning rate or a momentum of its own" in StepGraph(net).problem


def loss_node():
    return Node("loss", layers.SoftmaxXent())
