"""benchmarks/train_throughput.py: convnet's steps beside PyTorch's, eager and compiled."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import train_throughput
from benchmarking import run

NET = ("fashion-mnist", "--image", "8,8,1", "--batch", "4", "--rounds", "1")


class PeerError(RuntimeError):
    pass


@pytest.fixture
def peers(monkeypatch):
    """In the place of PyTorch: a step that does nothing, and one that does not compile."""
    asked = []

    def peer(name, net, batch, precision, sgd, infer=False):
        asked.append((name, precision))
        if name == "PyTorch compiled NHWC":
            raise PeerError("InductorError: no Triton here")
        return types.SimpleNamespace(
            run=lambda: None, compile_s=1.5 if "compiled" in name else None
        )

    words = {"eager": "PyTorch", "compile": "PyTorch compiled"}
    fake = types.SimpleNamespace(
        peer=peer,
        PeerError=PeerError,
        forget=lambda: asked.append("forget"),
        describe=lambda name: "a stand-in",
        names=lambda kinds: [f"{words[k]} {layout}" for k in kinds for layout in ("NCHW", "NHWC")],
        asked=asked,
    )
    monkeypatch.setitem(sys.modules, "peer_steps", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("provenance.versions", dict)
    return fake


def test_steps_on_cuda(gpu, peers, monkeypatch, tmp_path, capsys):
    """Both kinds of peers, in each precision; what fails is a row that says so."""
    path = tmp_path / "step.json"
    words = (*NET, "--device", "cuda:0", "--precision", "fp32,bf16", "--json", path)
    run(monkeypatch, train_throughput.main, *words)
    found = json.loads(path.read_text())
    assert [each["precision"] for each in found["runs"]] == ["fp32", "bf16"]
    for each in found["runs"]:
        assert each["steps"] == "a program for each batch size, run as CUDA graphs"
        results = each["results"]
        assert list(results) == [name for name, _ in peers.asked[:4]] + ["convnet"]
        assert results["PyTorch compiled NHWC"] == {"failed": "InductorError: no Triton here"}
        assert results["PyTorch compiled NCHW"]["compile_s"] == 1.5
        assert results["convnet"]["images_per_s"] > 0
    assert [a[1] for a in peers.asked if a != "forget"] == 4 * ["fp32"] + 4 * ["bf16"]
    assert peers.asked.count("forget") == 2
    said = capsys.readouterr().out
    assert said.count("PyTorch compiled NHWC   failed: InductorError: no Triton here") == 2
    assert "fp32: convnet is 0.00x as fast as PyTorch" in said


def test_steps_on_the_cpu_are_compared_with_eager_ones(peers, monkeypatch, capsys):
    run(monkeypatch, train_throughput.main, *NET, "--device", "cpu")
    assert [name for name, _ in peers.asked[:-1]] == ["PyTorch NCHW", "PyTorch NHWC"]
    assert "eager; --peers eager,compile has both" in capsys.readouterr().out


def test_steps_without_pytorch(without_torch, monkeypatch, capsys):
    run(monkeypatch, train_throughput.main, *NET, "--device", "cpu", "--infer")
    said = capsys.readouterr().out
    assert "peer    none: PyTorch is not installed" in said
    assert "fp32: nothing to compare with" in said


@pytest.mark.parametrize("words", [("--precision", "fp16"), ("--peers", "eager,jit")])
def test_bad_words(monkeypatch, words, capsys):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, train_throughput.main, *NET, *words)
    assert refused.value.code == 2
    assert "expected some of" in capsys.readouterr().err


# ---- with PyTorch, where it is ------------------------------------------------------------------


@pytest.fixture
def peer_steps():
    pytest.importorskip("torch")
    import peer_steps

    yield peer_steps
    peer_steps.set_precision("fp32")


def small_net(precision: str = "fp32"):
    from convnet.config import load_config
    from convnet.training.nets import build_net

    cfg = load_config("fashion-mnist", overrides=[f"train.precision={precision}"])
    net = build_net(cfg, (8, 8, 1), 10, "cpu")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, *net.in_shape), dtype=np.float32)
    return net, (x, rng.integers(0, 10, 4).astype(np.int32))


def test_the_precision_of_pytorch_is_that_of_math(peer_steps):
    import torch

    for precision, tf32 in (("tf32", True), ("fp32", False), ("tf32", True), ("bf16", False)):
        peer_steps.set_precision(precision)
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
    with peer_steps.precise("bf16", torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16
    with peer_steps.precise("tf32", torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.filterwarnings("default")  # PyTorch's own
def test_an_eager_step_trains(peer_steps):
    net, batch = small_net()
    peer_steps.torch.manual_seed(0)
    step = peer_steps.peer("PyTorch NHWC", net, batch, "fp32", (0.05, 0.9, 0.0)).run
    losses = [step() for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("compiled", "problem"),
    [
        (lambda function: function, None),
        (lambda function: lambda *args: function(*args) * 3, "its first loss is"),
        (lambda function: lambda *args: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_compiled_is_checked(peer_steps, monkeypatch, compiled, problem):
    asked = []

    def compile_(function, **options):
        asked.append(options)
        return compiled(function)

    monkeypatch.setattr(peer_steps.torch, "compile", compile_)
    net, batch = small_net()
    words = ("PyTorch compiled NCHW", net, batch, "bf16", (0.01, 0.9, 0.0))
    if problem is None:
        assert peer_steps.peer(*words).compile_s > 0
    else:
        with pytest.raises(peer_steps.PeerError, match=problem):
            peer_steps.peer(*words)
    assert asked == [{"mode": "default", "dynamic": False}]


def test_other_weights_are_noticed(peer_steps):
    net, batch = small_net()
    true = net.predict
    net.predict = lambda x: true(x) + 0.01
    with pytest.raises(SystemExit, match="the nets do not compute the same"):
        peer_steps.peer("PyTorch NCHW", net, batch, "fp32", (0.01, 0.9, 0.0))
