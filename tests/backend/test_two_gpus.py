"""Nets on the second of two GPUs, and on both, while the first is the current one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from check import follows
from nets import GRAPHS, chain, data, every_graph, make, train
from tiny import config, write_data

import convnet
import convnet.backend
from convnet import ops
from convnet.backend import DeviceError
from convnet.nn.gradcheck import gradcheck
from convnet.optim.sgd import SGD

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy() -> Any:
    try:
        return convnet.backend.get("cuda:1").xp
    except DeviceError as error:
        pytest.skip(str(error))


def same(one: Any, other: Any) -> None:
    for array, twin in zip(one, other, strict=True):
        np.testing.assert_array_equal(array, twin)


@every_graph
def test_the_second_computes_what_the_first_does(graph, cupy, rng):
    x, labels = data(rng)

    def results(device: str) -> list[Any]:
        net = make(graph, device, seed=3)
        found = [train(net, x, labels), *net.evaluate(x, labels), net.predict(x)]
        net.load_state({name: 0.9 * array for name, array in net.state().items()})
        found += [net.gradients(x, labels), *net.state().values()]
        assert net.check_finite() is None
        assert cupy.cuda.Device().id == 0
        return found

    same(results("cuda:1"), results("cuda:0"))


def test_a_run_and_its_resume(tmp_path):
    folder = write_data(tmp_path / "data")

    def run(device: str) -> tuple[Any, list[Any]]:
        done = convnet.train(config(folder), device=device, run_dir=tmp_path / device, quiet=True)
        again = convnet.train(resume=done.run_dir, device=device, epochs=4, quiet=True)
        figures = [(one["loss"], one["top1"]) for one in (*done.history, *again.history)]
        return figures, list(convnet.load(done.run_dir, device=device).state().values())

    one, other = run("cuda:1"), run("cuda:0")
    assert one[0] == other[0]
    same(one[1], other[1])


def test_another_run_s_weights_and_ten_crops(tmp_path):
    folder = write_data(tmp_path / "data")
    cfg = config(folder, augment={"crop": [6, 6]}, train={"epochs": 1})
    cfg["net"]["lr_mult"] = {"conv1": 0.0}
    first = convnet.train(cfg, device="cpu", run_dir=tmp_path / "first", quiet=True).run_dir

    def figures(device: str) -> list[float]:
        result = convnet.train(
            cfg, device=device, run_dir=tmp_path / device, init=first, quiet=True
        )
        runs = [result.run_dir, first]
        found = convnet.evaluation.evaluate.evaluate(runs, device=device, ten_crop=True)
        ratio = result.final["update_ratio"]["fc2"]
        return [found["loss"], result.final["val_loss"], ratio]

    on_second = figures("cuda:1")
    assert on_second == figures("cuda:0")
    follows(on_second, figures("cpu"), "figures")


def test_gradients(rng):
    x, labels = data(rng)
    net = make(GRAPHS[0], "cuda:1", seed=3)
    assert all(row.ok for row in gradcheck(net, x, labels, samples=2))


def test_an_operation_waits_for_its_own_device_s_stream(cupy):
    """CuPy names the stream of the current device, not that of the array's."""
    second = convnet.backend.get("cuda:1")
    x = second.asarray(np.array([[-1.0, 2.0]], np.float32))
    with cupy.cuda.Stream(non_blocking=True):
        y = ops.relu_fprop(x)
    assert second.to_host(y).tolist() == [[0.0, 2.0]]


def test_both_in_one_graph(cupy, rng):
    net, plain = (make(chain, "cuda:0,cuda:1", seed=3) for _ in range(2))
    plain.programs.graph = "off"
    sgds = [SGD(one.params, lr=0.05) for one in (net, plain)]
    for _ in range(6):
        batch = data(rng)
        losses = [one.train_step(*batch, sgd) for one, sgd in zip((net, plain), sgds, strict=True)]
        assert losses[0] == losses[1]
    assert net.programs.describe().endswith("run as CUDA graphs")
    same(net.state().values(), plain.state().values())
