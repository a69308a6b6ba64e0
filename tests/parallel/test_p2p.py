"""Transfers between devices: the transports, the test at the start, and checksums."""

import numpy as np
import pytest
from nets import chain, data, make
from tiny import config, write_data
from two_devices import two_of

import convnet
import convnet.backend
from convnet.ops.step_state import StepState
from convnet.optim.sgd import SGD
from convnet.parallel import p2p as links
from convnet.parallel.p2p import Checksums, Link, LinkError, Links, LinkWarning
from convnet.parallel.transports import Direct, HostStaged

DEVICES = "cpu:0,cpu:1"


@pytest.fixture
def devices(backend):
    """Two devices of a kind."""
    return convnet.backend.get_all(two_of(backend.name))


def both_transports(devices):
    source, target = devices
    return [Direct(source), HostStaged(source, target)]


# ---- transports ---------------------------------------------------------------------------------


def test_every_transport_copies_blocks(devices, rng):
    source, target = devices
    for transport in both_transports(devices):
        link = Link(source, target, transport, None)
        assert links.transport_works(link.transport, source, target)
        for rows, dst_cols, src_cols, dst_col, src_col, cols in (
            (1, 1, 1, 0, 0, 1),
            (7, 13, 11, 2, 3, 5),
            (64, 96, 48, 48, 0, 48),
            (2, 96, 48, 0, 0, 48),
        ):
            host = rng.standard_normal((rows, src_cols)).astype(np.float32)
            before = rng.standard_normal((rows, dst_cols)).astype(np.float32)
            src, dst = source.asarray(host), target.asarray(before)
            link.copy("block", dst, dst_col, src, src_col, cols)
            before[:, dst_col : dst_col + cols] = host[:, src_col : src_col + cols]
            np.testing.assert_array_equal(target.to_host(dst), before)


@pytest.mark.parametrize("mode", ["auto", "off", "force", ""])
def test_mode(monkeypatch, devices, mode, rng):
    monkeypatch.setenv("CONVNET_P2P", mode)
    names = {link.transport.name for link in Links(devices)}
    direct = "loopback" if devices[0].name == "cpu" else "peer"
    assert names == {"host-staged" if mode == "off" else direct}


@pytest.mark.parametrize("checked", ["0", "1"])
def test_all_transports_train_alike(monkeypatch, devices, rng, checked):
    monkeypatch.setenv("CONVNET_P2P_CHECK", checked)
    x, labels = data(rng)
    states = []
    for mode in ("auto", "off"):
        monkeypatch.setenv("CONVNET_P2P", mode)
        net = make(chain, devices=devices, seed=3)
        sgd = SGD(net.params)
        for _ in range(3):
            net.train_step(x, labels, sgd)
        states.append(net.state())
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONVNET_P2P", "maybe", "CONVNET_P2P: expected one of auto, off, force; got 'maybe'"),
        ("CONVNET_P2P_CHECK", "yes", "CONVNET_P2P_CHECK: expected one of 0, 1; got 'yes'"),
        ("CONVNET_P2P_TIMEOUT", "soon", "CONVNET_P2P_TIMEOUT: expected a number of seconds"),
        ("CONVNET_P2P_TIMEOUT", "-1", "CONVNET_P2P_TIMEOUT: expected a number of seconds"),
        ("CONVNET_P2P_TIMEOUT", "nan", "CONVNET_P2P_TIMEOUT: expected a number of seconds"),
    ],
)
def test_variables_that_make_no_sense(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        make(chain, DEVICES)


# ---- a pair that lies ---------------------------------------------------------------------------


@pytest.fixture
def lying(monkeypatch):
    """From cpu:1 to cpu:0 the last row does not arrive, and nothing says so."""
    copy = Direct.copy

    def lie(self, dst, dst_col, src, src_col, cols):
        lost = int(isinstance(src, np.ndarray) and src.owner.index == 1)
        rows = len(src) - lost
        copy(self, dst[:rows], dst_col, src[:rows], src_col, cols) if lost else copy(
            self, dst, dst_col, src, src_col, cols
        )

    monkeypatch.setattr(Direct, "copy", lie)


def test_a_pair_that_lies_goes_through_the_host(lying, rng):
    with pytest.warns(LinkWarning, match="cpu:1 -> cpu:0: a pattern did not arrive by loopback"):
        net = make(chain, DEVICES, seed=3)
    assert net.partition.links.describe() == "cpu:0 -> cpu:1 loopback, cpu:1 -> cpu:0 host-staged"
    x, labels = data(rng)
    one = make(chain, "cpu", seed=3).gradients(x, labels)
    assert net.gradients(x, labels) == pytest.approx(one, rel=1e-6)


def test_force_refuses_it(monkeypatch, lying):
    monkeypatch.setenv("CONVNET_P2P", "force")
    with pytest.raises(LinkError, match=r"cpu:1 -> cpu:0: a pattern .*CONVNET_P2P=force"):
        make(chain, DEVICES)


def test_nothing_works(monkeypatch, lying):
    monkeypatch.setattr(HostStaged, "copy", lambda *_: None)
    with (
        pytest.warns(LinkWarning),
        pytest.raises(LinkError, match=r"cpu:1 -> cpu:0: .* through the memory of the host"),
    ):
        make(chain, DEVICES)


def test_a_run_says_how_devices_are_linked(lying, tmp_path, capsys):
    cfg = config(write_data(tmp_path / "data"), train={"epochs": 1})
    convnet.train(cfg, device=DEVICES, run_dir=tmp_path / "run")
    out, err = capsys.readouterr()
    assert "links     cpu:0 -> cpu:1 loopback, cpu:1 -> cpu:0 host-staged" in out
    assert "warning: cpu:1 -> cpu:0: a pattern did not arrive" in err


# ---- checksums ----------------------------------------------------------------------------------

PAIRS = [(0, 1), (1, 0)]


@pytest.mark.parametrize("words", [1, 5])
def test_a_word_that_changes_on_the_way(devices, words):
    state = StepState(devices)
    link = Link(*devices, Direct(devices[0]), Checksums(state))
    copy = link.transport.copy

    def corrupt(dst, *rest):
        copy(dst, *rest)
        devices[1].wait_for(devices[0])
        with devices[1].active():
            dst.reshape(-1).view(np.uint32)[-words:] ^= 1

    src, dst = devices[0].zeros((4, 6)), devices[1].zeros((4, 6))
    link.copy("block", dst, 0, src, 0, 6)
    assert not state.aborted
    link.transport.copy = corrupt
    link.copy("block", dst, 0, src, 0, 6)
    assert state.aborted == link.checksums.of(link, "block", 0).code


@pytest.fixture
def checked(monkeypatch, devices):
    """A net with checksums, and its steps; and the same net unharmed."""
    monkeypatch.setenv("CONVNET_P2P_CHECK", "1")
    nets = [make(chain, devices=devices, seed=3) for _ in range(2)]
    sgds = [SGD(net.params, lr=0.05) for net in nets]
    return nets, [
        lambda batch, net=net, sgd=sgd: net.train_step(*batch, sgd)
        for net, sgd in zip(nets, sgds, strict=True)
    ]


def lose_one(net, pair, at):
    """From now on one transfer of each step is counted at the target and not at the source."""
    link = net.partition.links.between(*(net.backends[i] for i in pair))
    held = link.checksums.held
    check = next(held[key] for key in held if key[:2] == (link.pair, at))
    with net.backends[pair[1]].active():
        check.got[0] += 1
    return link


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("at", ["relu2", "gradient of tanh3", "gradient of drop5"])
def test_a_lost_write_aborts_the_step(checked, rng, pair, at):
    """Neither device changes a weight, and the error names the pair."""
    (net, other), (step, right) = checked
    assert "with checksums" in net.partition.links.describe()
    for _ in range(2):
        batch = data(rng)
        assert step(batch) == right(batch)
    before, steps = net.state(), net.step
    link = lose_one(net, pair, at)
    with pytest.raises(LinkError) as caught:
        step(data(rng))
    assert str(caught.value) == (
        f"{link.pair}: a transfer ({at}) failed: what arrived is not what was sent "
        f"({link.transport.name})"
    )
    assert net.step == steps
    with pytest.raises(LinkError, match=link.pair):
        step(data(rng))
    for name, array in before.items():
        np.testing.assert_array_equal(net.state()[name], array)
        np.testing.assert_array_equal(other.state()[name], array)


def test_an_aborted_net_tells_when_it_is_used(checked, rng):
    (net, _), (step, _) = checked
    x, labels = data(rng)
    step((x, labels))
    lose_one(net, (0, 1), "relu2")
    for run in (
        lambda: net.gradients(x, labels),
        lambda: net.evaluate(x, labels),
        lambda: net.predict(x),
    ):
        with pytest.raises(LinkError, match=":0 -> "):
            run()


def test_a_fault_in_a_run_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNET_P2P_CHECK", "1")
    cfg = config(write_data(tmp_path / "data"), train={"epochs": 2, "checkpoint_steps": 4})
    whole = convnet.train(cfg, device=DEVICES, run_dir=tmp_path / "whole", quiet=True)
    verify, seen = Links.verify, []

    def failing(self):
        seen.append(self)
        if len(seen) == 10:
            next(iter(self.checksums.held.values())).got[0] += 1
        verify(self)

    with monkeypatch.context() as patch:
        patch.setattr(Links, "verify", failing)
        with pytest.raises(LinkError, match=r"cpu:. -> cpu:.: .*the last checkpoint is .*step-0"):
            convnet.train(cfg, device=DEVICES, run_dir=tmp_path / "run", quiet=True)
    resumed = convnet.train(resume=tmp_path / "run", device=DEVICES, quiet=True)
    assert resumed.status == "done"
    for name, array in whole.net.state().items():
        np.testing.assert_array_equal(resumed.net.state()[name], array)
