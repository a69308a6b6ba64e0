"""Batches that travel to a GPU, and results that come back, while neither side waits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from device_arrays import become_device
from nets import chain, data, make
from tiny import config, write_data

import convnet
from convnet.backend import Backend
from convnet.nn.step_results import AHEAD
from convnet.optim.sgd import SGD
from convnet.parallel.ranks import Ranks
from convnet.training.data_parallel import Parallel
from convnet.training.staging import Uploads, fill


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, vgpu: Backend) -> Backend:
    return become_device(monkeypatch, vgpu)


def batches(count: int) -> Iterator[list[Any]]:
    """Arrays of several types, and from batch to batch of several sizes."""
    for number in range(count):
        rows = 3 + 2 * (number % 3)
        yield [
            np.full((rows, 5, 3), number, np.uint8),
            np.arange(2 * rows, dtype=np.int32).reshape(rows, 2) + number,
            None,
            np.full((rows,), 0.5 * number, np.float32),
        ]


@pytest.mark.parametrize("name", ["cpu", "cpu:1", "cuda"])
def test_what_is_put_is_there(name, request):
    uploads = Uploads(request.getfixturevalue("device") if name == "cuda" else get(name))
    for arrays in batches(7):
        with uploads.put(arrays) as there:
            for array, found in zip(arrays, there, strict=True):
                if array is None:
                    assert found is None
                else:
                    assert found.dtype == array.dtype
                    np.testing.assert_array_equal(uploads.device.to_host(found), array)


def get(name: str) -> Backend:
    return convnet.backend.get(name)


def test_a_slot_that_is_still_read_is_not_written(device, monkeypatch):
    """The stand-in notices events that are missing, on either side."""
    labels = [np.zeros(4, np.int32)]
    held = device.zeros((4,), np.int32)

    def run() -> None:
        uploads = Uploads(device)
        for _ in range(5):
            with uploads.put(labels) as (there,):
                held[...] = there

    run()
    stream = type(device.new_stream())
    wait_event = stream.wait_event
    for deaf, what in ((True, "writes over what may still be in use"), (False, "reads what may")):
        monkeypatch.setattr(
            stream,
            "wait_event",
            lambda self, event, deaf=deaf: (self.ptr > 0) == deaf or wait_event(self, event),
        )
        with pytest.raises(AssertionError, match=what):
            run()


def test_large_arrays_are_copied_whole(rng):
    source = rng.integers(0, 256, (13, 700, 701), dtype=np.uint8)  # in pieces of two sizes
    to = np.zeros_like(source)
    fill(to, source)
    np.testing.assert_array_equal(to, source)


def steps(device: Any, count: int) -> tuple[Parallel, list[Any]]:
    """Parallel after so many steps, and what it told of them without waiting."""
    net = make(chain, device, seed=3)
    sgd, parallel = SGD(net.params, lr=0.05), Parallel(net, Ranks())
    rng = np.random.default_rng(4)
    told = []
    for _ in range(count):
        x, labels = data(rng)
        parallel.train_step(x, labels, sgd, len(x))
        told.append(list(parallel.results(wait=False)))
    return parallel, told


def test_results_of_a_gpu_are_told_later_and_are_the_same(device, monkeypatch):
    parallel, told = steps("cuda", 8)
    assert [[result.step for result in each] for each in told] == [
        [step - AHEAD] if step > AHEAD else [] for step in range(1, 9)
    ]
    found = [*itertools.chain(*told), *parallel.results()]
    assert not list(parallel.results())
    monkeypatch.undo()
    _, at_once = steps("vgpu", 8)
    expected = [result for (result,) in at_once]
    assert [(one.step, one.loss) for one in found] == [(one.step, one.loss) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.rank, other.rank)


def test_a_step_waits_for_nothing(device, tmp_path):
    """Between two log steps the host asks the device for nothing."""
    driver = device.module.driver
    waits = []
    cfg = config(
        write_data(tmp_path / "data"), train={"epochs": 1, "log_steps": 100, "checkpoint_steps": 0}
    )
    step = convnet.training.trainer.Trainer._step

    def counted(self: Any, batch: Any) -> None:
        waits.append(driver.waits)
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convnet.training.trainer.Trainer, "_step", counted)
        convnet.train(cfg, device="cuda", run_dir=tmp_path / "run", quiet=True)
    assert len(driver.graphs) == 1
    assert len(waits) == 10
    assert waits[-1] == waits[2]
