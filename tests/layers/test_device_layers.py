"""The layers that the array library has a part in, on arrays that NumPy cannot touch.

As tests/backend/test_device_arrays.py, with what these layers may use of CuPy besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_arrays import XP, DeviceArray, bare_index, become_device
from mixed_nets import auto_encoder, batch, mixed

from convnet.layers import BinaryCrossEntropy, Dense
from convnet.nn.net import Net, Node
from convnet.optim.sgd import SGD


def plain(value: Any) -> Any:
    """What CuPy's functions take: arrays of the device and numbers, none of the host's arrays."""
    assert not isinstance(value, np.ndarray), "an array of the host"
    return value.host if isinstance(value, DeviceArray) else value


def function(of_numpy: Any) -> Any:
    def call(*values: Any, out: DeviceArray | None = None) -> DeviceArray:
        result = of_numpy(*map(plain, values), **({} if out is None else {"out": out.host}))
        return DeviceArray(np.asarray(result)) if out is None else out

    return call


def in_place(of_numpy: Any) -> Any:
    def call(self: DeviceArray, other: Any) -> DeviceArray:
        of_numpy(self.host, plain(other), out=self.host)
        return self

    return call


def total(
    self: DeviceArray, axis: Any = None, dtype: Any = None, keepdims: bool = False
) -> DeviceArray:
    return DeviceArray(np.asarray(self.host.sum(axis=axis, dtype=dtype, keepdims=keepdims)))


def copyto(to: DeviceArray, source: Any, where: DeviceArray) -> None:
    np.copyto(to.host, plain(source), where=where.host)


def index(key: Any) -> Any:
    return tuple(map(bare_index, key)) if isinstance(key, tuple) else bare_index(key)


@pytest.fixture
def cupy_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives DeviceArray and its library what these layers use."""
    functions = ("add", "subtract", "multiply", "divide", "power", "negative", "greater", "equal")
    for name in (*functions, "clip", "log"):
        monkeypatch.setattr(XP, name, function(getattr(np, name)), raising=False)
    monkeypatch.setattr(XP, "copyto", copyto, raising=False)
    monkeypatch.setattr(XP, "where", function(np.where), raising=False)
    monkeypatch.setattr(XP, "arange", lambda count: DeviceArray(np.arange(count)), raising=False)
    methods: dict[str, Any] = {
        "__imul__": in_place(np.multiply),
        "__iadd__": in_place(np.add),
        "__isub__": in_place(np.subtract),
        "__mul__": function(np.multiply),
        "__rmul__": function(np.multiply),
        "__sub__": function(np.subtract),
        "__neg__": function(np.negative),
        "__gt__": function(np.greater),
        "__eq__": function(np.equal),
        "__pow__": function(np.power),
        "__rsub__": function(lambda one, other: np.subtract(other, one)),
        "__rtruediv__": function(lambda one, other: np.divide(other, one)),
        "sum": total,
        "transpose": lambda self, *axes: DeviceArray(self.host.transpose(*axes)),
        "__getitem__": lambda self, key: DeviceArray(np.asarray(self.host[index(key)])),
        "__setitem__": lambda self, key, value: self.host.__setitem__(index(key), plain(value)),
    }
    for name, method in methods.items():
        monkeypatch.setattr(DeviceArray, name, method, raising=False)


def unsure() -> list[Node]:
    """A loss on probabilities."""
    return [Node("fc", Dense(5, init="he")), Node("bce", BinaryCrossEntropy(scores=False))]


@pytest.mark.usefixtures("cupy_like")
@pytest.mark.parametrize("graph", [mixed, auto_encoder, unsure])
def test_they_compute_the_same_on_the_device(
    graph: Any, vgpu: Any, monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    x, labels = batch(rng)

    def results(device: str) -> Any:
        net = Net(graph(), (7, 6, 2), device=device, seed=3)
        sgd = SGD(net.params, lr=0.002)
        losses = [net.train_step(x, labels, sgd) for _ in range(2)]
        return losses, net.last_rank, *net.evaluate(x, labels), net.predict(x), net.state()

    *expected, state = results("vgpu")
    become_device(monkeypatch, vgpu)
    *found, on_device = results("cuda")
    for array, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    for name, values in on_device.items():
        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, state[name], err_msg=name)
