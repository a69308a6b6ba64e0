"""Layers, nets and the trainer touch arrays of a device only as they would touch CuPy's.

CuPy cannot run without a GPU, so the virtual GPU's arrays are wrapped here in a type that has the
few methods of CuPy's that convnet may use, and that NumPy can neither read nor convert.
"""

from __future__ import annotations

import numpy as np
import pytest
from device_arrays import (
    become_device,
)
from nets import GRAPHS, data, every_graph, make, train
from tiny import config, write_data

import convnet
from convnet.nn.gradcheck import gradcheck

# The second is not the current device while these tests run.
each_device = pytest.mark.parametrize("index", [0, 1], ids=["cuda:0", "cuda:1"])


@each_device
@every_graph
def test_a_net(graph, index, vgpu, monkeypatch, rng):
    x, labels = data(rng)

    def results(device):
        net = make(graph, device, seed=3)
        losses = train(net, x, labels)
        loss, ranks = net.evaluate(x, labels)
        first = net.nodes[0].name
        assert net.check_finite() is None
        return losses, loss, ranks, net.predict(x), net.forward(x, until=first), net.state()

    expected = results("vgpu")
    found = results(become_device(monkeypatch, vgpu, index))
    *arrays, state = found
    for array, other in zip(arrays, expected, strict=False):
        np.testing.assert_array_equal(array, other)
    for name, values in state.items():
        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, expected[-1][name])


@each_device
def test_a_run_of_the_trainer_and_its_resume(index, vgpu, monkeypatch, tmp_path):
    folder = write_data(tmp_path / "data")

    def losses(device):
        result = convnet.train(config(folder), device=device, run_dir=tmp_path / device)
        again = convnet.train(resume=result.run_dir, device=device, epochs=4)
        return [record["loss"] for record in (*result.history, *again.history)]

    expected = losses("vgpu")
    device = become_device(monkeypatch, vgpu, index).device
    assert losses(device) == expected
    net = convnet.load(tmp_path / device, device=device)
    assert net.predict(np.zeros((1, 8, 8, 1), "f4")).any()


@each_device
def test_another_run_s_weights_and_ten_crops(index, vgpu, monkeypatch, tmp_path):
    folder = write_data(tmp_path / "data")
    cfg = config(folder, augment={"crop": [6, 6]}, train={"epochs": 1})
    cfg["net"]["lr_mult"] = {"conv1": 0.0}
    first = convnet.train(cfg, device="cpu", run_dir=tmp_path / "first").run_dir

    def figures(device):
        result = convnet.train(cfg, device=device, run_dir=tmp_path / device, init=first)
        runs = [result.run_dir, first]
        found = convnet.evaluation.evaluate.evaluate(runs, device=device, ten_crop=True)
        return [found["loss"], result.final["val_loss"], result.final["update_ratio"]]

    expected = figures("vgpu")
    device = become_device(monkeypatch, vgpu, index).device
    assert figures(device) == expected


@each_device
def test_gradients(index, vgpu, monkeypatch, rng):
    net = make(GRAPHS[0], become_device(monkeypatch, vgpu, index), seed=3)
    x, labels = data(rng)
    assert all(row.ok for row in gradcheck(net, x, labels, samples=2))
