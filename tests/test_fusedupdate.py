"""Dense weights that are updated where their gradient is computed: the bits of the update apart."""

import numpy as np
import pytest
from nets import BATCH, CLASSES, IN_SHAPE, chain, conv, data, dense, every_graph, make, shared
from tiny import config, write_data

import convnet
from convnet import ops
from convnet.bench_train import profile
from convnet.fusedupdate import updatable
from convnet.layers import Dense, ReLU, SoftmaxXent
from convnet.memory import training_memory
from convnet.net import Net, Node
from convnet.sgd import SGD

STEPS = 6  # plain, captured, and run again


def states(nets):
    """The parameters and velocities of each net, bit by bit."""
    return [{name: array.view(np.uint32) for name, array in net.state().items()} for net in nets]


def check_same(nets):
    first, *others = states(nets)
    for other in others:
        for name, bits in first.items():
            np.testing.assert_array_equal(bits, other[name], err_msg=name)


def names_of(net):
    return [layer.w.name for layer in updatable(net)]


@every_graph
@pytest.mark.parametrize("graph_mode", ["auto", "off"])
def test_training_has_the_same_bits(graph, graph_mode, backend, rng):
    nets = [make(graph, backend, seed=3) for _ in range(3)]
    nets[1].fuse_update = False
    nets[2] = make(graph, backend, seed=3, fuse=False)
    for net in nets:
        net.step_graph.mode = graph_mode
    assert names_of(nets[0])
    assert names_of(nets[1]) == names_of(nets[2]) == []
    sgds = [SGD(net.params, lr=0.05) for net in nets]
    for step in range(STEPS):
        batch = data(rng)
        losses = []
        for net, sgd in zip(nets, sgds, strict=True):
            sgd.lr = 0.05 / (1 + step)
            losses.append(net.train_step(*batch, sgd))
        assert losses[0] == losses[1] == losses[2]
    check_same(nets)


@pytest.mark.parametrize("math", ops.MATHS)
def test_in_every_math(math, backend, rng):
    x, labels = data(rng, 33)  # 32 and more are summed on tensor cores
    nets = [make(chain, backend, seed=3, math=math) for _ in range(2)]
    nets[1].fuse_update = False
    for net in nets:
        sgd = SGD(net.params, lr=0.05)
        for _ in range(3):
            net.train_step(x, labels, sgd)
    check_same(nets)


def test_a_halted_net_learns_nothing(backend, rng):
    net = make(chain, backend, seed=3)
    sgd = SGD(net.params, lr=0.05)
    net.train_step(*data(rng), sgd)
    (before,) = states([net])
    backend.put(net._random.state.halt_on(backend), np.array([1], np.uint32))
    for _ in range(3):
        net.train_step(*data(rng), sgd)
    (after,) = states([net])
    for name, bits in before.items():
        np.testing.assert_array_equal(bits, after[name], err_msg=name)


class Seen:
    """Which operations a step calls."""

    def __init__(self, monkeypatch):
        self.updated, self.graded, self.rest = [], [], []

        def fused(x, dy, w, *args, call=ops.dense_wgrad_sgd, **options):
            self.updated.append(w.shape)
            return call(x, dy, w, *args, **options)

        def plain(x, dy, *args, call=ops.dense_wgrad, **options):
            self.graded.append((dy.shape[1], x.shape[1]))
            return call(x, dy, *args, **options)

        def update(tensors, *args, call=ops.sgd_update, **options):
            self.rest += [tensor[0].shape for tensor in tensors]
            return call(tensors, *args, **options)

        monkeypatch.setattr(ops, "dense_wgrad_sgd", fused)
        monkeypatch.setattr(ops, "dense_wgrad", plain)
        monkeypatch.setattr(ops, "sgd_update", update)


def test_what_a_step_calls(backend, rng, monkeypatch):
    """Every dense weight is updated once, by the one or the other."""
    dense_shapes = [(5, 9), (9, 12), (12, 48)]
    seen = Seen(monkeypatch)
    net = make(chain, backend)
    net.train_step(*data(rng), SGD(net.params))
    assert seen.updated == dense_shapes
    assert seen.graded == []
    assert not set(seen.rest) & set(dense_shapes)
    assert (9,) in seen.rest  # the biases are with the convolutions
    seen = Seen(monkeypatch)
    net.fuse_update = False
    net.train_step(*data(rng), SGD(net.params))
    assert seen.updated == []
    assert seen.graded == dense_shapes
    assert set(dense_shapes) < set(seen.rest)


def test_dgrad_reads_the_weights_before_they_are_updated(backend, rng, monkeypatch):
    order = []
    for name in ("dense_dgrad", "dense_wgrad_sgd"):
        call = getattr(ops, name)
        monkeypatch.setattr(
            ops, name, lambda *a, name=name, call=call, **o: order.append(name) or call(*a, **o)
        )
    net = make(chain, backend)
    net.train_step(*data(rng), SGD(net.params))
    assert order == ["dense_dgrad", "dense_wgrad_sgd"] * 3


def test_a_captured_step_has_it_and_notices_the_switch(backend, rng):
    nets = [make(chain, backend, seed=3) for _ in range(2)]
    nets[1].step_graph.mode = "off"
    sgds = [SGD(net.params, lr=0.05) for net in nets]
    for on in (True, False, True):
        nets[0].fuse_update = on
        for _ in range(4):
            batch = data(rng)
            assert nets[0].train_step(*batch, sgds[0]) == nets[1].train_step(*batch, sgds[1])
        (held,) = nets[0].step_graph._captured.values()
        assert held.recording.names.count("dense_wgrad_sgd") == (3 if on else 0)
        assert held.recording.names.count("dense_wgrad") == (0 if on else 3)
    check_same(nets)


# ---- gradients that are asked for ---------------------------------------------------------------


def test_a_gradient_that_was_not_kept_is_an_error(backend, rng):
    net = make(chain, backend, seed=3)
    weights = {param.name: param for param in net.params}
    sgd = SGD(net.params, lr=0.05)
    for _ in range(4):  # the last two run what was captured
        net.train_step(*data(rng), sgd)
        for name in ("fc4.w", "fc6.w"):
            with pytest.raises(RuntimeError, match=rf"{name}: its gradient was not kept: .*") as e:
                weights[name].grad  # noqa: B018
            assert "net.fuse_update = False (step.fuse_update = false)" in str(e.value)
            with pytest.raises(RuntimeError, match="was not kept"), weights[name].gradient():
                pass
        assert backend.to_host(weights["fc6.b"].grad).any()
    with pytest.raises(RuntimeError, match=r"fc4\.w: its gradient was not kept"):
        sgd.update()
    net.gradients(*data(rng))
    assert backend.to_host(weights["fc6.w"].grad).any()
    net.train_step(*data(rng), sgd)  # what was captured before: the gradient is stale
    with pytest.raises(RuntimeError, match="was not kept"):
        weights["fc6.w"].grad  # noqa: B018
    weights["fc6.w"].zero_grad()
    assert not backend.to_host(weights["fc6.w"].grad).any()
    net.fuse_update = False
    for _ in range(4):
        net.train_step(*data(rng), sgd)
        assert backend.to_host(weights["fc6.w"].grad).any()


def test_gradients_are_those_of_a_net_that_keeps_them(backend, rng):
    nets = [make(chain, backend, seed=3) for _ in range(2)]
    nets[1].fuse_update = False
    batch = data(rng)
    for net in nets:
        net.train_step(*batch, SGD(net.params, lr=0.05))
        net.gradients(*batch)
    for one, other in zip(*(net.params for net in nets), strict=True):
        np.testing.assert_array_equal(backend.to_host(one.grad), backend.to_host(other.grad))


class Own(SGD):
    """Another update rule, that looks at gradients."""

    def update(self, state=None):
        for param in self.params:
            param.data[...] -= 0.1 * param.grad


def test_another_update_rule_gets_its_gradients(rng):
    net = make(chain, "cpu", seed=3)
    before = np.array(net.params[-2].data)
    net.train_step(*data(rng), Own(net.params))
    expected = before - np.float32(0.1) * net.params[-2].grad
    np.testing.assert_allclose(net.params[-2].data, expected, rtol=1e-6)


def test_summed_over_processes(rng):
    net = make(chain, "cpu", seed=3)
    told = []
    net.gradient_ready = lambda param: told.append((param.name, param.grad.any()))
    assert names_of(net) == []
    net.train_step(*data(rng), SGD(net.params))
    assert ("fc4.w", True) in told


def test_on_two_devices(rng):
    nets = [Net(chain(), IN_SHAPE, seed=3, devices=["cpu:0", "cpu:1"]) for _ in range(2)]
    nets[1].fuse_update = False
    assert names_of(nets[0]) == []
    for net in nets:
        net.train_step(*data(np.random.default_rng(1)), SGD(net.params))
        assert net.params[-2].grad.any()
    check_same(nets)


class Halved(Dense):
    """A layer of a user's own, with another gradient."""

    def _wgrad(self, x, dy, out):
        super()._wgrad(x, dy, out)
        out[0][...] *= 0.5


def nodes(**options):
    return [
        Node("fc1", dense(8, **options)),
        Node("relu1", ReLU()),
        Node("fc2", Halved(8, init="he")),
        Node("fc3", dense(8), share=None),
        Node("again", dense(8), share="fc3"),
        Node("fc5", dense(CLASSES, bias=False)),
        Node("softmax", SoftmaxXent()),
    ]


def test_which_weights(rng):
    net = make(nodes, "cpu")
    by_name = {param.name: param for param in net.params}
    assert names_of(net) == ["fc1.w", "fc5.w"]  # not of one's own kind, and not shared
    by_name["fc1.w"].rates.momentum = 0.5
    assert names_of(net) == ["fc5.w"]
    by_name["fc1.w"].rates.momentum, by_name["fc1.w"].rates.lr = None, 0.1
    assert names_of(net) == ["fc5.w"]
    by_name["fc1.w"].rates.lr, by_name["fc1.w"].lr_mult = None, 0.0
    assert names_of(net) == ["fc5.w"]
    assert names_of(make(lambda: nodes(b_lr=0.0), "cpu")) == ["fc1.w", "fc5.w"]
    assert names_of(make(shared, "cpu")) == ["fc.w"]


@pytest.mark.parametrize(
    "change",
    [
        lambda net: [setattr(p.rates, "momentum", 0.5) for p in net.params if p.name == "fc1.w"],
        lambda net: [setattr(p.rates, "lr", 0.01) for p in net.params if p.name == "fc5.w"],
        lambda net: setattr(net.params[0], "lr_mult", 0.0),
        lambda net: setattr(net.params[1], "lr_mult", 0.0),
        lambda net: setattr(net.params[0], "decay_mult", 5.0),
    ],
)
def test_exceptions_among_the_weights(change, backend, rng):
    nets = [make(nodes, backend, seed=3) for _ in range(2)]
    nets[1].fuse_update = False
    sgds = [SGD(net.params, lr=0.05) for net in nets]
    for _ in range(2):
        batch = data(rng)
        for net, sgd in zip(nets, sgds, strict=True):
            net.train_step(*batch, sgd)
    for net in nets:
        change(net)
    for _ in range(3):
        batch = data(rng)
        for net, sgd in zip(nets, sgds, strict=True):
            net.train_step(*batch, sgd)
    check_same(nets)


def test_weights_that_nothing_updates_stay(backend, rng):
    """Those that the optimiser was not given."""
    net = make(chain, backend, seed=3)
    rest = [param for param in net.params if param.name != "fc5.w"]
    before = net.state()["fc5.w"]
    net.train_step(*data(rng), SGD(rest, lr=0.05))
    np.testing.assert_array_equal(net.state()["fc5.w"], before)
    assert not np.array_equal(net.state()["fc6.w"], make(chain, backend, seed=3).state()["fc6.w"])


# ---- what a user sees ---------------------------------------------------------------------------


def test_memory(rng):
    nets = [make(chain), make(chain)]
    nets[1].fuse_update = False
    weights = 4 * (5 * 9 + 9 * 12 + 12 * 48)
    saved = [training_memory(net, BATCH) for net in nets]
    assert saved[1].gradients - saved[0].gradients == weights
    assert nets[0].params[-2]._grad is None
    nets[0].train_step(*data(rng), SGD(nets[0].params))
    assert nets[0].params[-2]._grad is None


def test_the_switch():
    net = make(chain)
    assert net.fuse_update
    assert not make(chain, fuse=False).fuse_update
    with pytest.raises(ValueError, match="fuse_update: expected true or false, got 1"):
        net.fuse_update = 1


def test_the_profile_shows_it(tmp_path):
    folder = write_data(tmp_path / "data")
    for on in (True, False):
        cfg = config(folder, step={"fuse_update": on})
        lines = profile(convnet.load_config(cfg), device="cpu", steps=1)
        kinds = [line.kind for line in lines if line.kind.startswith("dense")]
        assert kinds
        assert all(kind.endswith(" + update") == on for kind in kinds)


def test_runs_end_with_the_same_weights(tmp_path):
    folder = write_data(tmp_path / "data")
    found = []
    for on in (True, False):
        cfg = config(folder, train={"epochs": 1}, step={"fuse_update": on})
        run = convnet.train(cfg, device="cpu", run_dir=tmp_path / str(on), quiet=True)
        assert bool(names_of(run.net)) == on
        found.append(run.net)
    check_same(found)


def test_a_convolution_keeps_its_gradient(rng):
    net = make(
        lambda: [Node("conv", conv(4)), Node("fc", dense(CLASSES)), Node("s", SoftmaxXent())]
    )
    net.train_step(*data(rng), SGD(net.params))
    assert net.params[0].grad.any()
