"""Layers, nets and the trainer touch arrays of a device only as they would touch CuPy's.

CuPy cannot run without a GPU, so the emulator's arrays are wrapped here in a type that has the few
methods of CuPy's that convnet may use, and that NumPy can neither read nor convert.
"""

from __future__ import annotations

import types
from typing import Any

import fake_cuda
import numpy as np
import pytest
from nets import GRAPHS, data, every_graph, make, train
from tiny import config, write_data

import convnet
from convnet.backend import Backend
from convnet.gradcheck import gradcheck


class DeviceArray:
    """An array out of NumPy's reach."""

    __array__ = None  # numpy.asarray(self) raises
    __array_ufunc__ = None

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)

    flags = property(lambda self: self.host.flags)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        return DeviceArray(self.host.astype(dtype, copy=copy))

    def __eq__(self, other: object) -> DeviceArray:  # type: ignore[override]
        assert isinstance(other, DeviceArray)
        return DeviceArray(self.host == other.host)

    def __add__(self, other: DeviceArray) -> DeviceArray:
        return DeviceArray(self.host + other.host)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self.host[bare_index(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[bare_index(index)] = value.host if isinstance(value, DeviceArray) else value

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self.host.reshape(*shape))

    def fill(self, value: float) -> None:
        self.host.fill(value)

    def sum(self, dtype: Any = None) -> DeviceArray:
        return DeviceArray(np.asarray(self.host.sum(dtype=dtype)))

    def __float__(self) -> float:
        return float(self.host)

    def all(self) -> DeviceArray:
        return DeviceArray(np.asarray(self.host.all()))

    def __bool__(self) -> bool:
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.host.view(dtype))

    def get(self, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        assert blocking or out is not None
        if out is None:
            return self.host.copy()
        assert self.flags.c_contiguous
        assert out.flags.c_contiguous
        out[...] = self.host
        return out

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        assert isinstance(host, np.ndarray)
        assert host.dtype == self.dtype
        self.host[...] = host

    def copy(self) -> DeviceArray:
        return DeviceArray(self.host.copy())


def bare_index(index: Any) -> Any:
    assert not isinstance(index, np.ndarray), "CuPy is indexed with its own arrays"
    return index.host if isinstance(index, DeviceArray) else index


def bare(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise AssertionError("an operation was given an array of the host")
    if isinstance(value, (list, tuple)):
        return type(value)(map(bare, value))
    return value.host if isinstance(value, DeviceArray) else value


class Module:
    """The emulator's operations, on DeviceArrays only."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name == "philox":  # on the host, whatever the backend
            return function
        return lambda *args: function(*map(bare, args))


def to_device(array: Any, dtype: Any = None) -> DeviceArray:
    return array if isinstance(array, DeviceArray) else DeviceArray(np.array(array, dtype))


XP = types.SimpleNamespace(
    empty=lambda shape, dtype: DeviceArray(np.full(shape, 77, dtype)),
    zeros=lambda shape, dtype: DeviceArray(np.zeros(shape, dtype)),
    asarray=to_device,
    ascontiguousarray=lambda array: DeviceArray(np.ascontiguousarray(array.host)),
    isfinite=lambda array: DeviceArray(np.isfinite(array.host)),
    square=lambda array: DeviceArray(np.square(array.host)),
    sum=lambda array, dtype: DeviceArray(np.asarray(array.host.sum(dtype=dtype))),
    get_default_memory_pool=lambda: types.SimpleNamespace(free_bytes=lambda: 0),
    cuda=types.SimpleNamespace(
        runtime=types.SimpleNamespace(memGetInfo=lambda: (2**30, 2**30)),
        get_current_stream=None,  # see fake_cuda
        Device=None,
    ),
)


@pytest.fixture
def emulator() -> Backend:
    try:
        return convnet.backend.get("emulator")
    except convnet.DeviceError as error:
        pytest.skip(str(error))


def become_device(monkeypatch: pytest.MonkeyPatch, emulator: Backend, index: int = 0) -> Backend:
    """From now on all arrays are DeviceArrays, and "cuda:index" is the emulator working on them;
    the current device is 0."""
    backend = Backend("cuda", Module(emulator.module), XP, index)  # type: ignore[arg-type]
    fake_cuda.install(monkeypatch, [backend], XP, DeviceArray)

    def of(*arrays: Any) -> Backend:
        traced = [array.traced_on for array in arrays if hasattr(array, "traced_on")]
        if traced:
            return traced[0]
        for array in arrays:
            assert array is None or isinstance(array, DeviceArray), type(array)
        return backend

    monkeypatch.setattr(convnet.backend, "of", of)
    monkeypatch.setitem(convnet.backend._backends, backend.device, backend)
    return backend


# The second is not the current device while these tests run.
each_device = pytest.mark.parametrize("index", [0, 1], ids=["cuda:0", "cuda:1"])


@each_device
@every_graph
def test_a_net(graph, index, emulator, monkeypatch, rng):
    x, labels = data(rng)

    def results(device):
        net = make(graph, device, seed=3)
        losses = train(net, x, labels)
        loss, ranks = net.evaluate(x, labels)
        first = net.nodes[0].name
        assert net.check_finite() is None
        return losses, loss, ranks, net.predict(x), net.forward(x, until=first), net.state()

    expected = results("emulator")
    found = results(become_device(monkeypatch, emulator, index))
    *arrays, state = found
    for array, other in zip(arrays, expected, strict=False):
        np.testing.assert_array_equal(array, other)
    for name, values in state.items():
        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, expected[-1][name])


@each_device
def test_a_run_of_the_trainer_and_its_resume(index, emulator, monkeypatch, tmp_path):
    folder = write_data(tmp_path / "data")

    def losses(device):
        result = convnet.train(config(folder), device=device, run_dir=tmp_path / device)
        again = convnet.train(resume=result.run_dir, device=device, epochs=4)
        return [record["loss"] for record in (*result.history, *again.history)]

    expected = losses("emulator")
    device = become_device(monkeypatch, emulator, index).device
    assert losses(device) == expected
    net = convnet.load(tmp_path / device, device=device)
    assert net.predict(np.zeros((1, 8, 8, 1), "f4")).any()


@each_device
def test_another_run_s_weights_and_ten_crops(index, emulator, monkeypatch, tmp_path):
    folder = write_data(tmp_path / "data")
    cfg = config(folder, augment={"crop": [6, 6]}, train={"epochs": 1})
    cfg["net"]["lr_mult"] = {"conv1": 0.0}
    first = convnet.train(cfg, device="cpu", run_dir=tmp_path / "first").run_dir

    def figures(device):
        result = convnet.train(cfg, device=device, run_dir=tmp_path / device, init=first)
        runs = [result.run_dir, first]
        found = convnet.evaluate.evaluate(runs, device=device, ten_crop=True)
        return [found["loss"], result.final["val_loss"], result.final["update_ratio"]]

    expected = figures("emulator")
    device = become_device(monkeypatch, emulator, index).device
    assert figures(device) == expected


@each_device
def test_gradients(index, emulator, monkeypatch, rng):
    net = make(GRAPHS[0], become_device(monkeypatch, emulator, index), seed=3)
    x, labels = data(rng)
    assert all(row.ok for row in gradcheck(net, x, labels, samples=2))
