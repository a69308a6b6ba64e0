"""A net over two devices is the same net as on one: forward, gradients, training, checkpoints."""

import numpy as np
import pytest
from nets import CLASSES, GRAPHS, chain, conv, data, dense, make, train
from tiny import config, metrics, write_config, write_data
from two_devices import (
    GRADIENT_BOUND,
    TRAINING_BOUND,
    TWO,
    assert_close,
    flattened,
    parameters,
    transfers,
    two_of,
    uneven,
)

import convnet
import convnet.backend
from convnet import models, ops
from convnet.cli import main as cli
from convnet.layers import (
    Conv,
    Dropout,
    Flatten,
    MaxPool,
    SoftmaxCrossEntropy,
    Sum,
)
from convnet.layers.graph import consumers
from convnet.layers.loss import Loss
from convnet.nn.net import Net, Node


def on_the_input():
    """Layers without parameters right on the input, which is on the first device."""
    return [
        Node("drop0", Dropout(0.2)),
        Node("pool0", MaxPool(3, 2)),
        Node("conv1", conv(6, groups=2)),
        Node("both", Sum(), ("conv1", "conv1")),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]


ALL = [*GRAPHS, uneven, flattened, on_the_input]
every_graph = pytest.mark.parametrize("graph", ALL)


def pair(graph, backend, **options):
    """The same net on one device and on two."""
    options = {"seed": 3, **options}
    return make(graph, backend, **options), make(graph, two_of(backend.name), **options)


def tiny_alexnet(device):
    """The paper's net with its groups and pattern, and few of everything."""
    shape = {"in_shape": (67, 67, 3), "classes": 7, "filters": (8, 12, 10, 8, 6), "hidden": 18}
    return models.alexnet(**shape, init="he", bias=0.1, device=device, seed=4)


def gradients(net):
    found = {param.name: np.array(net.backend.to_host(param.grad)) for param in net.params}
    if net.partition is None:
        return found
    whole = {}
    for name, split in net.partition.splits.items():
        whole[name] = np.full(split.shape, np.nan, np.float32)
        for param, first, last in split.parts:
            whole[name][split.index(first, last)] = found[param.name]
    return whole


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ---- the same net -------------------------------------------------------------------------------


@every_graph
def test_forward_agrees(graph, backend, rng):
    one, both = pair(graph, backend)
    assert_equal(both.state(), one.state())
    x, labels = data(rng)
    for node in one.nodes:
        found, expected = both.forward(x, node.name), one.forward(x, node.name)
        if backend.name == "vgpu":
            np.testing.assert_array_equal(found, expected, err_msg=node.name)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=node.name)
    assert both.training_loss(x, labels) == pytest.approx(one.training_loss(x, labels), rel=1e-6)


@every_graph
@pytest.mark.parametrize("trace", [True, False])
def test_gradients_agree(graph, backend, rng, trace):
    one, both = pair(graph, backend, trace=trace)
    x, labels = data(rng)
    for step in (0, 1):  # the second one finds buffers and slots used
        one.step = both.step = step
        assert both.gradients(x, labels) == pytest.approx(one.gradients(x, labels), rel=1e-6)
        assert_close(gradients(both), gradients(one), GRADIENT_BOUND)


@every_graph
def test_fifty_steps_agree(graph, rng):
    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    losses = train(one, x, labels, 50, lr=0.02)
    assert train(both, x, labels, 50, lr=0.02) == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert_close(parameters(both), parameters(one), TRAINING_BOUND)


def test_alexnet_in_small(backend, rng):
    one, both = tiny_alexnet(backend), tiny_alexnet(two_of(backend.name))
    count = 12 if backend.name == "cpu" else 2
    x = rng.standard_normal((count, *one.in_shape)).astype(np.float32)
    labels = rng.integers(0, 7, count)
    np.testing.assert_allclose(both.predict(x), one.predict(x), rtol=1e-5)
    if backend.name == "vgpu":
        np.testing.assert_array_equal(both.predict(x), one.predict(x))
    one.gradients(x, labels)
    both.gradients(x, labels)
    assert_close(gradients(both), gradients(one), GRADIENT_BOUND)
    steps = 50 if backend.name == "cpu" else 2
    train(one, x, labels, steps, lr=0.002)
    train(both, x, labels, steps, lr=0.002)
    assert_close(parameters(both), parameters(one), TRAINING_BOUND)


@every_graph
def test_two_devices_repeat_to_the_bit(graph, backend, rng):
    _, first = pair(graph, backend)
    _, second = pair(graph, backend)
    x, labels = data(rng)
    assert train(first, x, labels, 4) == train(second, x, labels, 4)
    assert_equal(first.state(), second.state())


def test_other_batches_in_between(backend, rng):
    one, both = pair(uneven, backend)
    x, labels = data(rng)
    for count in (6, 2, 5):
        one.gradients(x[:count], labels[:count])
        both.gradients(x[:count], labels[:count])
        assert_close(gradients(both), gradients(one), GRADIENT_BOUND)
    np.testing.assert_allclose(both.evaluate(x, labels, 4)[0], one.evaluate(x, labels)[0], 1e-5)


def test_dropout_masks_are_those_of_one_device(backend):
    nodes = lambda: [Node("c", Conv(7, 1)), Node("drop", Dropout(0.5)), Node("flat", Flatten()),  # noqa: E731
                     Node("fc", dense(3)), Node("softmax", SoftmaxCrossEntropy())]  # fmt: skip
    x = np.ones((5, 4, 3, 2), np.float32)
    whole = {}
    for device in (backend, two_of(backend.name)):
        net = Net(nodes(), (4, 3, 2), device, seed=9)
        net.load_state({**net.state(), "c.b": np.ones(7, np.float32)})
        net.step = 2
        net.write_state()
        names = ["drop"] if net.partition is None else net.partition.ends("drop")
        with convnet.backend.use(net.backend):
            values = net._eager.passes(net.step_nodes).forward(net.backend.asarray(x), True).values
        parts = [net.backend.to_host(values[name]) for name in names]
        whole[device] = np.concatenate([np.array(part) for part in parts], -1)
    first, second = whole.values()
    assert 0.3 < (first == 0).mean() < 0.7
    np.testing.assert_array_equal(first == 0, second == 0)


class Score(Loss):
    """A loss of a user's own, that knows nothing of blocks."""

    def setup(self, in_shape, rng):
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x, train):
        return x, None

    def loss(self, x, labels, scale, gradient):
        loss, dx, rank = ops.softmax_xent(x, labels, scale=scale)
        return loss, rank, dx


class Reverse(convnet.layers.layer.Layer):
    """Another of a user's own: the channels in the other order."""

    def setup(self, in_shape, rng):
        self.in_shape = self.out_shape = tuple(in_shape)
        return self.out_shape

    def fprop(self, x, train):
        return np.ascontiguousarray(x[..., ::-1]), None

    def bprop(self, saved, dy):
        return np.ascontiguousarray(dy[..., ::-1]), []


def test_layers_that_declare_nothing(rng):
    def graph():
        return [Node("c", conv(6)), Node("turn", Reverse()), Node("fc", dense(CLASSES)),
                Node("score", Score())]  # fmt: skip

    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    np.testing.assert_array_equal(both.forward(x, "turn"), one.forward(x, "turn"))
    assert both.gradients(x, labels) == pytest.approx(one.gradients(x, labels), rel=1e-6)
    assert_close(gradients(both), gradients(one), GRADIENT_BOUND)


# ---- states -------------------------------------------------------------------------------------


@every_graph
def test_states_move_between_one_and_two_devices(graph, rng):
    one, both = pair(graph, convnet.backend.get("cpu"))
    x, labels = data(rng)
    train(both, x, labels, 2)
    one.load_state(both.state())
    assert_equal(one.state(), both.state())
    one.step = both.step
    np.testing.assert_allclose(train(one, x, labels, 2), train(both, x, labels, 2), rtol=1e-5)
    _, fresh = pair(graph, convnet.backend.get("cpu"), seed=8)
    fresh.load_state(one.state())
    assert_equal(fresh.state(), one.state())


def test_a_state_that_does_not_fit(rng):
    _, both = pair(chain, convnet.backend.get("cpu"))
    before = both.state()
    wrong = {**before, "conv1.w": before["conv1.w"][:4], "more": before["fc6.b"]}
    del wrong["fc5.b"]
    with pytest.raises(ValueError, match=r"missing fc5.b; conv1.w: expected shape \(6,.*more"):
        both.load_state(wrong)
    assert_equal(both.state(), before)
    wrong["conv2.b"] = wrong["conv2.b"] + 1
    problems = both.load_state(wrong, strict=False)
    assert len(problems) == 3
    np.testing.assert_array_equal(both.state()["conv2.b"], before["conv2.b"] + 1)
    np.testing.assert_array_equal(both.state()["conv1.w"], before["conv1.w"])


# ---- what goes where ----------------------------------------------------------------------------


def test_alexnet_follows_the_papers_figure():
    net = models.alexnet(device="cpu:0,cpu:1")
    gathered = {net.partition.origin[node.name] for node, _ in net.partition.gathers()}
    # conv3, fc6, fc7 and fc8 take all maps, and the softmax all scores; all else stays local.
    assert gathered == {"input", "pool2", "pool5", "drop6", "drop7", "fc8"}
    readers = {
        net.partition.origin[reader.name]
        for node, _ in net.partition.gathers()
        for reader in consumers(net.all_nodes)[node.name]
    }
    assert readers == {"conv1", "conv3", "fc6", "fc7", "fc8", "softmax"}
    for name, value in net.partition.values.items():
        if name not in ("input", "softmax"):
            half = value.channels // 2
            ranges = [(held.first, held.last) for held in value.shards]
            assert ranges == [(0, half), (half, 2 * half)], name
    assert net.parameter_count == 60_965_224
    # 13 x 13 x 128, 6 x 6 x 128 and twice 2048 both ways between both, 500 scores, 3 channels
    maps = 13 * 13 * 128 + 6 * 6 * 128 + 2 * 2048
    assert net.partition.moved(128) == 128 * 4 * (2 * 2 * maps + 2 * 500 + 224 * 224 * 3)


def test_a_step_carries_what_the_summary_says():
    net = tiny_alexnet("cpu:0,cpu:1")
    assert sum(size for _, size in transfers(net, 3)) == net.partition.moved(3)


def test_what_a_device_waits_for_is_sent_while_the_other_computes():
    _, both = pair(chain, convnet.backend.get("cpu"))
    names = [node.name for node in both.partition.steps]
    at = names.index("relu2>0")
    assert names[at : at + 4] == ["relu2>0", "relu2>1", "conv3@0", "conv3@1"]


def test_summary_shows_slices_and_bytes():
    text = make(uneven, "cpu:0,cpu:1").summary(batch=10)
    lines = {line.split()[0]: line.split() for line in text.partition("\n\n")[2].splitlines()}
    assert lines["conv1"] == ["conv1", "0..1", "2..4"]
    # 56 pixels of five channels: two go one way and three the other, and gradients back
    size = f"{10 * 4 * 56 * 5 / 1024:.1f}"
    assert lines["relu1"] == ["relu1", "0..1", "2..4", size, "KiB", size, "KiB"]
    assert lines["lrn1"] == ["lrn1", "0..4", "0..4"]
    assert lines["conv3"] == ["conv3", "0..1", "2..5"]
    assert lines["one"][:2] == ["one", "0..0"]
    assert "cpu:0 -> cpu:1 loopback" in text
    assert "cpu:0" not in make(uneven, "cpu").summary()


def test_a_node_that_is_not_finite_is_named_as_in_the_net(rng):
    _, both = pair(chain, convnet.backend.get("cpu"))
    state = both.state()
    state["conv3.w"][3] = np.nan
    both.load_state(state)
    both.training_loss(*data(rng))
    assert both.check_finite() == "conv3"


# ---- devices ------------------------------------------------------------------------------------


def test_memories_do_not_mix():
    first, second = convnet.backend.get_all("cpu:0,cpu:1")
    a, b = first.zeros((2, 2)), second.zeros((2, 2))
    assert first.asarray(a) is a
    for mix in (
        lambda: a + b,
        lambda: a.__setitem__(0, b[0]),
        lambda: np.add(a, 1, out=b),
        lambda: ops.accumulate(a, b),
        lambda: ops.relu_fprop(a, out=b[:1].reshape(2, 1)),
    ):
        with pytest.raises(ValueError, match=r"cpu:0, cpu:1|cpu:1, cpu:0"):
            mix()
    host = np.ones((2, 2), np.float32)
    held = first.asarray(host)
    host[0, 0] = 5
    assert held[0, 0] == 1
    assert type(first.to_host(held[1:] + 1)) is np.ndarray
    assert (held[1:] + 1).owner is first


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cpu:0,cpu:1,cpu:0", "one device, or two of a kind; got 3"),
        ("cpu:0,cuda:0", "two devices of one kind"),
        ("cuda:0,cpu:1", "two devices of one kind"),
        ("cpu,cpu", "two different devices, such as cpu:0,cpu:1"),
        ("cpu:1,cpu:1", "two different devices"),
        ("auto,auto", "two different devices"),
        ("cpu:0,cpu:2", "expected one of auto, cpu"),
        ("cpu:0,", "two devices of one kind"),
        ("", "expected one of auto"),
    ],
)
def test_devices_that_make_no_pair(device, message):
    with pytest.raises(ValueError, match=message):
        make(chain, device)


def test_devices_by_list():
    net = make(chain, devices=["cpu:0", convnet.backend.get("cpu:1")])
    assert net.device == "cpu:0,cpu:1"
    assert make(chain).device == "cpu"
    assert [device.device for device in net.backends] == ["cpu:0", "cpu:1"]
    assert net.params[0].data.owner is net.backends[0]


# ---- runs ---------------------------------------------------------------------------------------


def test_a_run_moves_between_one_and_two_devices(tmp_path):
    cfg = config(write_data(tmp_path / "data"))
    runs = {}
    for first, second in (("cpu", "cpu"), ("cpu", TWO), (TWO, "cpu"), (TWO, TWO)):
        folder = tmp_path / f"{first}-{second}".replace(":", "").replace(",", "")
        begun = convnet.train(cfg, device=first, epochs=2, run_dir=folder, quiet=True)
        assert begun.device == first
        done = convnet.train(resume=folder, device=second, epochs=4, quiet=True)
        assert done.status == "done"
        runs[first, second] = done.net
        assert convnet.load(folder, device=TWO).device == TWO
    expected = parameters(runs["cpu", "cpu"])
    for net in runs.values():
        assert_close(parameters(net), expected, TRAINING_BOUND)


def test_a_resumed_run_on_two_devices_is_the_same_to_the_bit(tmp_path):
    cfg = config(write_data(tmp_path / "data"))
    whole = convnet.train(cfg, device=TWO, run_dir=tmp_path / "whole", quiet=True)
    seen = []

    def stop(record):
        seen.append(record)
        return len(seen) == 3

    folder = tmp_path / "parts"
    stopped = convnet.train(cfg, device=TWO, run_dir=folder, callbacks=[stop], quiet=True)
    assert stopped.status == "stopped"
    resumed = convnet.train(resume=folder, device=TWO, quiet=True)
    assert_equal(resumed.net.state(), whole.net.state())
    assert metrics(folder) == metrics(tmp_path / "whole")


@pytest.mark.parametrize(
    ("device", "code", "message"),
    [
        ("cpu:0,cpu:1,cpu:0", 2, "expected one device, or two of a kind; got 3"),
        ("cpu:0,vgpu:1", 2, "expected two devices of one kind"),
        ("cuda:0,cuda:99", 3, "device 'cuda:"),
    ],
)
def test_devices_at_the_command_line(tmp_path, capsys, device, code, message):
    path = write_config(tmp_path / "run.toml", write_data(tmp_path / "data"))
    for command in ("train", "summary", "gradcheck"):
        assert cli.main([command, str(path), "--device", device]) == code
        assert message in capsys.readouterr().err


def test_commands_on_two_devices(tmp_path, capsys):
    path = write_config(tmp_path / "run.toml", write_data(tmp_path / "data"))
    folder = str(tmp_path / "run")
    words = ["train", str(path), "--device", TWO, "--epochs", "1", "--run-dir", folder]
    assert cli.main(words) == 0
    assert cli.main(["eval", folder, "--device", TWO]) == 0
    assert cli.main(["gradcheck", str(path), "--device", TWO]) == 0
    assert "conv1.w@1" in capsys.readouterr().out
