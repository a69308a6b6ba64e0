"""Inference: a snapshot of a net, whose constants are prepared once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import BATCH, CLASSES, IN_SHAPE, chain, data, dense, every_graph, make

import convnet
import convnet.backend
from convnet import ops
from convnet.layers import Conv, Layer, SoftmaxCrossEntropy
from convnet.layers.layer import Parameter
from convnet.nn.inference import Inference
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD

PREPARED = {"cpu": {"CONVNET_WINOGRAD": "always"}, "vgpu": {"CONVNET_WGMMA": "always"}}


@pytest.fixture(params=["as usual", "prepared"])
def filters(request: pytest.FixtureRequest, backend: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Also with the algorithms that prepare most."""
    for name, value in PREPARED.get(backend.name, {}).items():
        if request.param == "prepared":
            monkeypatch.setenv(name, value)
    return str(request.param)


def same(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


@every_graph
@pytest.mark.usefixtures("filters")
def test_the_bits_of_predict(backend: Any, rng: Any, graph: Any) -> None:
    net = make(graph, backend)
    infer = net.inference(BATCH)
    for _ in range(3):
        x, _ = data(rng)
        same(infer(x), net.predict(x))
    name = net.nodes[2].name
    same(net.inference(BATCH, name)(x), net.forward(x, name))


@pytest.mark.parametrize("precision", ops.PRECISIONS)
@pytest.mark.usefixtures("filters")
def test_precisions(backend: Any, rng: Any, precision: str) -> None:
    nodes = [
        Node("c1", Conv(48, 3, pad=1, relu=True)),
        Node("c2", Conv(32, 3, pad=1, groups=2)),
        Node("fc", dense(CLASSES)),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    net = Net(nodes, (8, 8, 16), device=backend, precision=precision)
    x = rng.standard_normal((3, 8, 8, 16)).astype(np.float32)
    same(net.inference(3)(x), net.predict(x))


@every_graph
@pytest.mark.parametrize("kind", ["cpu", "vgpu"])
def test_two_devices(rng: Any, monkeypatch: pytest.MonkeyPatch, graph: Any, kind: str) -> None:
    try:
        devices = convnet.backend.get_all(f"{kind}:0,{kind}:1")
    except convnet.DeviceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(*next(iter(PREPARED[kind].items())))
    net = Net(graph(), IN_SHAPE, devices=devices, seed=3)
    x, labels = data(rng)
    infer = net.inference(BATCH)
    before = net.predict(x)
    same(infer(x), before)
    net.train_step(x, labels, SGD(net.params, lr=0.1))
    same(infer(x), before)


@pytest.mark.usefixtures("filters")
def test_it_stays_as_it_is(backend: Any, rng: Any) -> None:
    net = make(chain, backend, seed=3)
    x, labels = data(rng)
    early, late = net.inference(BATCH), net.inference(BATCH)
    before = early(x)  # `late` is bound when the weights are others
    sgd = SGD(net.params, lr=0.1)
    for _ in range(2):
        net.train_step(x, labels, sgd)
    for param in net.params:
        param.data[...] = 7
    net.params[0].data = net.params[0].data.copy()
    net.nodes[2].layer.alpha = 100.0
    net.evaluate(x, labels)
    net.gradients(np.concatenate([x, x]), np.concatenate([labels, labels]))
    same(early(x), before)
    same(late(x), before)
    assert not np.array_equal(net.predict(x), before)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_any_number_of_samples(backend: Any, rng: Any, batch: int) -> None:
    net = make(chain, backend)
    x, _ = data(rng, 7)
    infer = net.inference(batch)
    found = infer(x)
    assert found.shape == (7, CLASSES)
    same(found[:batch], net.predict(x[:batch]))
    np.testing.assert_allclose(found, net.predict(x), atol=1e-6)
    same(infer(x[:1]), found[:1])


def test_what_is_fed_is_not_written_to(backend: Any, rng: Any) -> None:
    net = make(chain, backend)
    x = backend.asarray(data(rng)[0])
    kept = np.array(backend.to_host(x))
    infer = net.inference(BATCH)
    first = infer(x)
    x[...] = x * 2
    assert not np.array_equal(infer(x), first)
    same(np.array(backend.to_host(x)), kept * 2)


def test_only_what_depends_on_x_runs_again(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVNET_WINOGRAD", "always")
    net = make(chain, "cpu")
    infer = net.inference(BATCH)
    lines = infer.table().splitlines()
    calls = [line.split() for line in lines if line[0].isdigit()]
    assert [call[1] for call in calls[:4]] == 3 * ["conv_prepare"] + ["conv_fprop_prepared"]
    assert all(call[-1] == "constant" for call in calls[:3])
    assert sum(call[1] == "conv_fprop_prepared" for call in calls) == 3
    assert not any(call[1] == "conv_fprop" for call in calls)
    # each filter is there once, prepared; biases and dense weights as they are
    sizes = {p.name: 4 * p.size for p in net.params}
    filters = [name for name in sizes if name.startswith("conv") and name.endswith(".w")]
    rest = sum(size for name, size in sizes.items() if name not in filters)
    made = sum(
        ops.conv_prepared_bytes(
            (BATCH, *node.layer.in_shape), node.layer.w.shape, pad=1, groups=groups
        )
        for node, groups in ((net.nodes[i], g) for i, g in ((0, 1), (4, 2), (6, 1)))
    )
    assert infer.constant_bytes == made + rest
    assert lines[-1].endswith(f"; constants of {infer.constant_bytes / 2**20:,.1f} MiB")


class Scaled(Layer):
    """A layer from outside, which reads its parameter itself."""

    def setup(self, in_shape: Any, rng: Any) -> Any:
        self.factor = Parameter("factor", np.full((1,), 2.0, np.float32))
        self.params = [self.factor]
        return super().setup(in_shape, rng)

    def fprop(self, x: Any, train: bool) -> Any:
        return x * np.float32(self.factor.data[0]), None


def test_a_layer_of_ones_own_is_copied(rng: Any) -> None:
    nodes = [
        Node("fc", dense(CLASSES)),
        Node("scaled", Scaled()),
        Node("softmax", SoftmaxCrossEntropy()),
    ]
    net = Net(nodes, IN_SHAPE, device="cpu")
    x, _ = data(rng)
    infer = net.inference(BATCH)
    before = net.predict(x)
    net.params[-1].data[...] = 5
    same(infer(x), before)
    assert not np.array_equal(net.predict(x), before)


def test_another_number_of_threads_is_refused(rng: Any) -> None:
    net = make(chain, "cpu")
    x, _ = data(rng)
    infer = net.inference(BATCH)
    cpu, before = net.backend, net.backend.threads
    convnet.backend.set_threads(before + 1)
    try:
        with pytest.raises(RuntimeError, match=f"made for {before} threads, .* {before + 1}; make"):
            infer(x)
        assert net.inference(BATCH)(x).shape == (BATCH, CLASSES)
    finally:
        convnet.backend.set_threads(before)
    assert cpu.threads == before
    infer(x)


def test_bad_input_is_refused(rng: Any) -> None:
    net = make(chain, "cpu")
    with pytest.raises(ValueError, match="unknown node 'conv9'; did you mean"):
        net.inference(1, "conv9")
    with pytest.raises(ValueError, match="batch"):
        net.inference(0)
    infer = net.inference(2)
    assert isinstance(infer, Inference)
    with pytest.raises(ValueError, match="x: expected float32 of shape"):
        infer(np.zeros((2, 3), np.float32))
