"""What goes where, which devices make a pair, and runs on two."""

import numpy as np
import pytest
from divided import assert_equal, pair, tiny_alexnet
from nets import chain, data, make
from tiny import config, metrics, write_config, write_data
from two_devices import (
    TRAINING_BOUND,
    TWO,
    assert_close,
    parameters,
    transfers,
    uneven,
)

import convnet
import convnet.backend
from convnet import models, ops
from convnet.cli import main as cli
from convnet.layers.graph import consumers


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
