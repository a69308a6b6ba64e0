"""Transfers between devices: the transports, the test at the start, and faults."""

import threading
import time

import numpy as np
import pytest
from nets import chain, data, make
from tiny import config, write_data

import convnet
import convnet.backend
from convnet import links
from convnet.links import HostStaged, Link, LinkError, Links, LinkWarning, Loopback, Peer
from convnet.sgd import SGD

DEVICES = "cpu:0,cpu:1"


@pytest.fixture
def devices(backend):
    """Two devices of a kind."""
    if backend.name == "cuda" and backend.module.device_count() < 2:
        pytest.skip("needs two GPUs")
    return convnet.backend.get_all(f"{backend.name}:0,{backend.name}:1")


def link_between(devices, transport=None, timeout=5.0):
    source, target = devices
    return Link(source, target, (transport or Peer)(source, target), timeout)


# ---- transports ---------------------------------------------------------------------------------


def transports(devices):
    return [Peer, HostStaged] if devices[0].name == "cuda" else [Peer, HostStaged, Loopback]


def test_every_transport_copies_blocks(devices, rng):
    source, target = devices
    for transport in transports(devices):
        link = link_between(devices, transport)
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
            sent = link.start("block", dst, dst_col, src, src_col, cols)
            link.finish(sent)
            link.verify()
            before[:, dst_col : dst_col + cols] = host[:, src_col : src_col + cols]
            np.testing.assert_array_equal(target.to_host(dst), before)
        assert link.bytes_sent == 4 * (1 + 35 + 2 * 48 + 64 * 48)


def test_several_transfers_under_way(devices, rng):
    source, target = devices
    for transport in transports(devices):
        link = link_between(devices, transport)
        host = rng.standard_normal((9, 50, 8)).astype(np.float32)
        dst = [target.zeros((50, 8)) for _ in host]
        sent = [
            link.start("block", d, 0, source.asarray(h), 0, 8)
            for d, h in zip(dst, host, strict=True)
        ]
        for transfer in reversed(sent):
            link.finish(transfer)
        for d, h in zip(dst, host, strict=True):
            np.testing.assert_array_equal(target.to_host(d), h)


@pytest.mark.parametrize("mode", ["auto", "off", "force", ""])
def test_mode(monkeypatch, devices, mode, rng):
    monkeypatch.setenv("CONVNET_P2P", mode)
    names = {link.transport.name for link in Links(devices)}
    direct = "loopback" if devices[0].name == "cpu" else "peer"
    assert names == {"host-staged" if mode == "off" else direct}


def test_all_transports_train_alike(monkeypatch, rng):
    x, labels = data(rng)
    states = []
    for mode in ("auto", "off"):
        monkeypatch.setenv("CONVNET_P2P", mode)
        net = make(chain, DEVICES, seed=3)
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
    copy = Loopback.copy

    def lie(self, dst, dst_col, src, src_col, cols):
        short = len(src) - (self.source.index == 1)
        copy(self, dst[:short], dst_col, src[:short], src_col, cols)

    monkeypatch.setattr(Loopback, "copy", lie)


def test_a_pair_that_lies_goes_through_the_host(lying, rng):
    with pytest.warns(LinkWarning, match="cpu:1 -> cpu:0: a pattern did not arrive by loopback"):
        net = make(chain, DEVICES, seed=3)
    assert net.partition.links.describe() == "cpu:0 -> cpu:1 loopback, cpu:1 -> cpu:0 host-staged"
    x, labels = data(rng)
    assert net.gradients(x, labels) == make(chain, "cpu", seed=3).gradients(x, labels)


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


# ---- faults -------------------------------------------------------------------------------------

PAIRS = [(0, 1), (1, 0)]


def broken_net(pair, fault, timeout=0.2, at=None):
    """A net whose link has a fault from the second step on, in one transfer of each step."""
    net = make(chain, DEVICES, seed=3)
    x, labels = data(np.random.default_rng(1))
    other = np.ascontiguousarray(x[::-1])
    sgd = SGD(net.params, lr=0.05)
    net.train_step(x, labels, sgd)
    link = net.partition.links.between(*(net.backends[i] for i in pair))
    link.timeout = timeout
    link.fault = lambda transfer: fault() if at in (None, transfer.what) else None
    return net, lambda: net.train_step(other, labels, sgd)


def fail():
    raise RuntimeError("it fell off the bus")


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda: "drop", "what arrived is not what was sent"),
        (lambda: "mute", "no signal within 0.2 s"),
        (fail, "the source failed: it fell off the bus"),
    ],
)
@pytest.mark.parametrize("at", ["relu2", "gradient of tanh3", "gradient of drop5"])
def test_a_fault_names_the_pair_and_changes_no_weight(pair, fault, message, at):
    net, step = broken_net(pair, fault, at=at)
    before = net.state()
    start = time.monotonic()
    with pytest.raises(LinkError) as caught:
        step()
    assert time.monotonic() - start < 2.0
    source, target = (f"cpu:{i}" for i in pair)
    assert f"{source} -> {target}: transfer " in str(caught.value)
    assert f"({at}) failed: {message}" in str(caught.value)
    after = net.state()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    with pytest.raises(LinkError, match=f"{source} -> {target}"):  # and it stays so
        step()


def test_a_signal_that_is_late_but_comes(rng):
    net, step = broken_net((0, 1), lambda: time.sleep(0.05), timeout=5.0)
    other, right = broken_net((0, 1), lambda: None)
    assert step() == right()
    for name, array in other.state().items():
        np.testing.assert_array_equal(net.state()[name], array)


def test_a_write_that_comes_after_its_time_is_not_used():
    gate = threading.Event()

    def late():
        gate.wait(5.0)

    net, step = broken_net((1, 0), late)
    before = net.state()
    with pytest.raises(LinkError, match=r"no signal within 0\.2 s"):
        step()
    gate.set()
    time.sleep(0.05)
    with pytest.raises(LinkError, match="cpu:1 -> cpu:0"):
        step()
    for name, array in before.items():
        np.testing.assert_array_equal(net.state()[name], array)


@pytest.mark.parametrize("words", [1, 5])
def test_a_word_that_changes_on_the_way(devices, words):
    if devices[0].name == "cuda":
        pytest.skip("the fault is made in the memory of the host")
    link = link_between(devices)
    copy = link.transport.copy

    def corrupt(dst, *rest):
        copy(dst, *rest)
        devices[1].to_host(dst).reshape(-1).view(np.uint32)[-words:] ^= 1

    link.transport.copy = corrupt
    src, dst = devices[0].zeros((4, 6)), devices[1].zeros((4, 6))
    sent = link.start("block", dst, 0, src, 0, 6)
    found = link.verify if link.checked else lambda: None
    with pytest.raises(LinkError, match="what arrived is not what was sent"):
        (link.finish(sent), found())


# ---- checked by the devices ---------------------------------------------------------------------

EMULATED = "emulator:0,emulator:1"


@pytest.fixture
def emulated():
    """A net over two devices that check what arrives; its steps, and the same net unharmed."""
    try:
        convnet.backend.get_all(EMULATED)
    except convnet.DeviceError as error:
        pytest.skip(str(error))
    nets = [make(chain, EMULATED, seed=3) for _ in range(2)]
    sgds = [SGD(net.params, lr=0.05) for net in nets]
    return nets, [
        lambda batch, net=net, sgd=sgd: net.train_step(*batch, sgd)
        for net, sgd in zip(nets, sgds, strict=True)
    ]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("fault", ["drop", "mute"])
@pytest.mark.parametrize("at", ["relu2", "gradient of tanh3", "gradient of drop5"])
def test_a_device_halts_the_step(emulated, rng, pair, fault, at):
    """Neither device changes a weight, and the error names the pair."""
    (net, _), (step, _) = emulated
    net.step_graph.mode = "off"
    step(data(rng))
    before, steps = net.state(), net.step
    link = net.partition.links.between(*(net.backends[i] for i in pair))
    link.fault = lambda transfer: fault if transfer.what == at else None
    with pytest.raises(LinkError) as caught:
        step(data(rng))
    source, target = (f"emulator:{i}" for i in pair)
    assert str(caught.value) == (
        f"{source} -> {target}: a transfer ({at}) failed: what arrived is not what was sent (peer)"
    )
    assert net.step == steps
    link.fault = None
    with pytest.raises(LinkError, match=f"{source} -> {target}"):
        step(data(rng))
    after = net.state()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_a_device_that_fails(emulated, rng):
    (net, _), (step, _) = emulated
    step(data(rng))
    before = net.state()
    net.partition.links.between(*net.backends).fault = lambda transfer: fail()
    with pytest.raises(LinkError, match=r"emulator:0 -> emulator:1: .* the source failed: it"):
        step(data(rng))
    for name, array in net.state().items():
        np.testing.assert_array_equal(before[name], array)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_captured_step_halts_too(emulated, rng, pair):
    """A transfer that one side has missed, in a step that Python has no part in."""
    (net, other), (step, right) = emulated
    for _ in range(5):
        batch = data(rng)
        assert step(batch) == right(batch)
    assert net.step_graph._captured
    link = net.partition.links.between(*(net.backends[i] for i in pair))
    before = net.state()
    link._lanes[0].got[0] += 1
    with pytest.raises(
        LinkError, match=rf"emulator:{pair[0]} -> emulator:{pair[1]}: a transfer \("
    ):
        step(data(rng))
    with pytest.raises(LinkError):
        step(data(rng))
    for name, array in before.items():
        np.testing.assert_array_equal(net.state()[name], array)
        np.testing.assert_array_equal(other.state()[name], array)


def test_a_halted_net_tells_when_it_is_evaluated(emulated, rng):
    (net, _), _ = emulated
    x, labels = data(rng)
    link = net.partition.links.between(*net.backends)
    link.fault = lambda transfer: "drop"
    for run in (
        lambda: net.evaluate(x, labels),
        lambda: net.predict(x),
        lambda: net.gradients(x, labels),
    ):
        with pytest.raises(LinkError, match="emulator:0 -> emulator:1"):
            run()


def test_a_pass_that_was_broken_off_does_no_harm(emulated, rng, monkeypatch):
    """Transfers that began and were never waited for leave the counts of the others right."""
    (net, _), (step, right) = emulated
    batch = data(rng)
    assert step(batch) == right(batch)
    layer = next(node.layer for node in net._steps if node.name == "conv3@0")
    with monkeypatch.context() as patch:
        patch.setattr(type(layer), "_fprop", lambda *_: fail())
        with pytest.raises(RuntimeError, match="fell off"):
            step(batch)
    for _ in range(4):
        assert step(batch) == right(batch)


def test_a_fault_in_a_run_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    cfg = config(write_data(tmp_path / "data"), train={"epochs": 2, "checkpoint_steps": 4})
    whole = convnet.train(cfg, device=DEVICES, run_dir=tmp_path / "whole", quiet=True)
    seen = 0
    send = Link._send

    def failing(self, *arguments):
        nonlocal seen
        seen += 1
        if seen > 60:
            self.fault = lambda transfer: "drop"
        send(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "_send", failing)
        with pytest.raises(LinkError, match=r"cpu:. -> cpu:.: .*the last checkpoint is .*step-0"):
            convnet.train(cfg, device=DEVICES, run_dir=tmp_path / "run", quiet=True)
    resumed = convnet.train(resume=tmp_path / "run", device=DEVICES, quiet=True)
    assert resumed.status == "done"
    for name, array in whole.net.state().items():
        np.testing.assert_array_equal(resumed.net.state()[name], array)
