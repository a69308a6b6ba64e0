"""Definitions of cuda-convnet become nets: those that were published, and each kind of layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import definitions as d
import numpy as np
import pytest
from definitions import built, nodes
from imported import batch, of_everything, small

from convnet.config import load_config
from convnet.exchange.cuda_convnet.convert import TYPES
from convnet.nn.gradcheck import gradcheck
from convnet.optim.sgd import SGD


def test_the_net_of_80_seconds(tmp_path: Path) -> None:
    found = d.imported(tmp_path, *d.quick())
    assert found.net.parameter_count == 145_578
    assert found.report.changes == found.report.ignored_keys == []
    cfg = found.cfg
    assert (cfg.sgd.lr, cfg.sgd.momentum, cfg.sgd.weight_decay) == (0.001, 0.9, 0.004)
    assert (cfg.data.source, cfg.data.scale, cfg.train.batch) == ("cifar10", 1.0, 128)
    assert nodes(found)["conv1"].options["std"] == 0.0001
    rates = {p.name: (p.lr_mult, p.decay_mult) for p in built(found).params}
    assert rates["conv1.w"] == (1.0, 1.0)
    assert rates["conv1.b"] == (2.0, 0.0)
    assert rates["fc10.w"] == (1.0, 7.5)
    assert load_config_text(found.toml, tmp_path) == cfg


def load_config_text(text: str, folder: Path) -> Any:
    path = folder / "layers.toml"
    path.write_text(text)
    return load_config(path)


def test_the_net_for_imagenet(tmp_path: Path) -> None:
    found = d.imported(tmp_path, *d.imagenet(), crop=224)
    assert found.net.parameter_count == 61_100_840
    assert round(found.net.macs / 1e6, 1) == 714.2
    assert found.report.changes == []
    cfg, by_name = found.cfg, nodes(found)
    assert cfg.data.source == "folder"
    assert (cfg.schedule.kind, cfg.schedule.options) == (
        "dexp",
        {"target_factor": 250.0, "levels": 4},
    )
    (group,) = cfg.sgd.groups
    assert len(group.params) == 8
    assert group.schedule.options == {"target_factor": 10.0, "levels": 2}
    assert by_name["fc1000"].options["bias_init"] == -7.0
    assert by_name["dropout1"].options == {"drop": 0.5, "mode": "paper"}
    assert by_name["rnorm1"].options == {
        "n": 5,
        "k": 2.0,
        "alpha": 0.0001,
        "beta": 0.75,
        "alpha_mode": "mean",
    }
    assert cfg.augment.crop == (224, 224)


def towers() -> d.Layers:
    """Two towers on two GPUs, each conv2 reading both, as in cuda-convnet2's model parallelism."""
    both = {"channels": "8,8", "filters": "4,4", "filterSize": "3,5", "padding": "1,2"}
    return d.ended(
        {
            "conv1a": d.conv("data", 3, 8, gpu=0, neuron="relu"),
            "conv1b": d.conv("data", 3, 8, gpu=1, neuron="relu"),
            "conv2a": {**d.conv("conv1a,conv1b", 8), **both, "initW": "0.1,0.2", "initB": 1},
            "conv2b": {**d.conv("conv1a,conv1b", 8), **both, "gpu": 1, "neuron": "tanh[1.7,0.6]"},
            "pool2a": d.pool("conv2a", 4, gpu=0),
            "pool2b": d.pool("conv2b", 4, gpu=1),
            "join": {"type": "pass", "inputs": "pool2a,pool2b"},
        },
        "join",
    )


def test_several_inputs_and_gpus(tmp_path: Path) -> None:
    params = d.rates_for(towers())
    params["conv2a"] |= {"epsW": "0.001,0.004", "wc": "0,0.008", "momW": "0.9,0.5"}
    found = d.imported(tmp_path, towers(), params)
    by_name = nodes(found)
    assert by_name["conv2a"].type == "sum"
    assert by_name["conv2a"].inputs == ("conv2a/0", "conv2a/1")
    assert by_name["conv2a/0"].options["bias_init"] == 1.0
    assert by_name["conv2a/1"].options["bias"] is False
    assert by_name["conv2a/1"].options["w_lr"] == 4.0
    assert by_name["conv2a/1"].options["size"] == 5
    assert [by_name[f"conv2a/{i}"].options["std"] for i in (0, 1)] == [0.1, 0.2]
    (group,) = found.cfg.sgd.groups
    assert (group.params, group.momentum) == (("conv2a/1.w",), 0.5)
    assert found.gpus == [0, 1]
    assert "--device cuda:0,cuda:1" in found.text()
    x, labels = batch(np.random.default_rng(3))
    for device in ("cpu", "cpu:0,cpu:1"):
        net = built(found, device=device)
        assert np.isfinite(net.train_step(x, labels, SGD(net.params, 1e-5)))


NEURONS = (
    *("ident", "logistic", "abs", "relu", "softrelu", "sqrt", "square", "log[4]"),
    *("tanh[1.7,0.66]", "brelu[2]", "linear[.5,1e-1]", "drelu[0.7]", "abstanh[1.79,-0.66]"),
)


def with_neurons() -> d.Layers:
    layers: d.Layers = small()
    last = "pool1"
    for number, neuron in enumerate(NEURONS):
        layers[f"n{number}"] = {"type": "neuron", "inputs": last, "neuron": neuron}
        last = f"n{number}"
    return d.ended(layers, last)


def test_every_type_is_tested() -> None:
    tested = {keys["type"] for keys in of_everything().values()}
    costs = {kind for kind in TYPES if kind.startswith("cost.")}
    assert set(TYPES) - tested - costs == {"crop"}  # which is tested below


@pytest.mark.parametrize("layers", [of_everything, with_neurons, towers, lambda: d.quick()[0]])
def test_imported_nets_pass_the_gradient_check(tmp_path: Path, layers: Any) -> None:
    found = d.imported(tmp_path, layers())
    net = built(found)
    rows = gradcheck(net, *batch(np.random.default_rng(1)), samples=3, tolerance=0.03)
    assert [row.parameter for row in rows if not row.ok] == []
    assert found.report.changes == []


def test_what_each_kind_becomes(tmp_path: Path) -> None:
    found = d.imported(tmp_path, of_everything())
    by_name = {name: (node.type, dict(node.options)) for name, node in nodes(found).items()}
    assert by_name["local1"][0] == "local"
    assert by_name["local1"][1]["filters"] == 4  # two in each of two groups
    assert by_name["conv1"][1] | {"rounding": "ceil", "stride": 3} == by_name["conv1"][1]
    assert by_name["rnorm1"][0] == "rnorm"
    assert by_name["cnorm1"][1]["n"] == 2
    assert by_name["sum"] == ("sum", {"coeffs": (0.5, -1.5)})
    assert by_name["largest"][0] == "max"
    assert by_name["dropped"] == ("dropout", {"drop": 0.5, "mode": "inverted"})
    assert by_name["again"] == ("dropout", {"drop": 0.25, "mode": "paper"})
    assert by_name["some"][0] == "probabilities"
    assert by_name["logprob"][0] == "softmax_cross_entropy"
    assert "probs" not in by_name
    assert by_name["hidden_neuron"][0] == "sigmoid"
    # 1 + ceil((32 + 2 - 3) / 3), 1 + ceil((12 - 3) / 2), 1 + ceil((6 + 1 - 2) / 2), outputsX
    shapes = [found.net.shapes[name] for name in ("conv1", "pool1", "absolute", "total")]
    assert shapes == [(12, 12, 4), (6, 6, 4), (4, 4, 4), (1, 1, 4)]
    assert by_name["total/all"][0] == "sumpool"


def test_blocks_of_channels_are_normalized_by_themselves(tmp_path: Path) -> None:
    """Four channels in blocks of three: the last is alone."""
    layers = d.ended(
        {
            "conv1": d.conv("data", 3, 4),
            "norm": {"type": "cmrnorm", "inputs": "conv1", "channels": 4, "size": 3, "blocked": 1},
        },
        "norm",
    )
    params = d.rates_for(layers) | {"norm": {"scale": 2.0, "pow": 0.5, "minDiv": 0.5}}
    net = built(d.imported(tmp_path, layers, params))
    x, _ = batch(np.random.default_rng(4))
    below, above = (net.forward(x, name).astype(np.float64) for name in ("conv1", "norm"))
    for first, last in ((0, 3), (3, 4)):
        part = below[..., first:last]
        s = 0.5 + 2.0 / 3 * (part**2).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(above[..., first:last], part / np.sqrt(s), rtol=1e-4)


@pytest.mark.parametrize("start", [-2, -1, 0, 1, 3])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (4, 3), (4, 1)])
def test_pools_begin_and_end_where_they_are_told(
    tmp_path: Path, start: int, size: int, stride: int
) -> None:
    """Windows start + i stride, as many as cover the image, clipped to it."""
    if start <= -size:
        return
    layers = d.ended(
        {
            "pool": d.pool("data", 3, "max", start=start, sizeX=size, stride=stride),
            "sum": d.pool("data", 3, "avg", start=start, sizeX=size, stride=stride, sum="true"),
        },
        "pool,sum",
    )
    net = built(d.imported(tmp_path, layers, source="cifar10"))
    x, _ = batch(np.random.default_rng(2), 2)
    outputs = 1 + -(-(32 - start - size) // stride)
    assert net.shapes["pool"] == net.shapes["sum"] == (outputs, outputs, 3)
    high, total = net.forward(x, "pool"), net.forward(x, "sum")
    for p in range(outputs):
        for q in (0, outputs - 1):
            rows, columns = (
                slice(max(0, start + i * stride), start + i * stride + size) for i in (p, q)
            )
            part = x[:, rows, columns].astype(np.float64)
            np.testing.assert_array_equal(high[:, p, q], part.max(axis=(1, 2)).astype(np.float32))
            np.testing.assert_allclose(total[:, p, q], part.sum(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def test_biases_that_are_not_shared(tmp_path: Path) -> None:
    layers = d.ended({"conv1": d.conv("data", 3, 4, sharedBiases=0, initB=0.5)}, "conv1")
    found = d.imported(tmp_path, layers)
    net = built(found)
    shapes = {p.name: p.shape for p in net.params}
    assert shapes["conv1/0.w"] == (4, 3, 3, 3)
    assert shapes["conv1.b"] == (32, 32, 4)
    (b,) = [p for p in net.params if p.name == "conv1.b"]
    assert (b.lr_mult, b.decay_mult, b.data.mean()) == (2.0, 0.0, 0.5)
