"""Batches that travel to a GPU, and results that come back, while neither side waits."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from nets import chain, data, make
from tiny import environment, write_config, write_data

from convnet.nn.step_results import AHEAD
from convnet.optim.sgd import SGD
from convnet.parallel.ranks import Ranks
from convnet.training.data_parallel import Parallel
from convnet.training.staging import Uploads, fill


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


def test_what_is_put_is_there(backend):
    uploads = Uploads(backend)
    for arrays in batches(7):
        with uploads.put(arrays) as there:
            for array, found in zip(arrays, there, strict=True):
                if array is None:
                    assert found is None
                else:
                    assert found.dtype == array.dtype
                    np.testing.assert_array_equal(uploads.device.to_host(found), array)


@pytest.mark.parametrize("forgotten", [None, "upload", "step"])
def test_a_slot_that_is_still_read_is_not_written(virtual_cuda, monkeypatch, forgotten):
    """Nor read before it was written. The virtual GPU shows it where either stream does not wait
    for the other."""
    device = virtual_cuda
    uploads, sent = Uploads(device), [np.full(4, number, np.int32) for number in range(1, 7)]
    with uploads.put([sent[0]]):
        pass
    (upload,) = {slot.stream for slot in uploads._slots}
    deaf = {"upload": upload.ptr, "step": device.current_stream().ptr}.get(forgotten)
    stream = device.xp.cuda.stream._BaseStream
    wait_event = stream.wait_event
    monkeypatch.setattr(
        stream,
        "wait_event",
        lambda self, event: None if self.ptr == deaf else wait_event(self, event),
    )
    read = []
    for batch in sent:
        with uploads.put([batch]) as (there,):
            read.append(there.copy())
    found = [device.to_host(one).tolist() for one in read]
    assert (found == [batch.tolist() for batch in sent]) == (forgotten is None)


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


def test_results_of_a_gpu_are_told_later_and_are_the_same(cuda):
    parallel, told = steps(cuda, 8)
    assert [[result.step for result in each] for each in told] == [
        [step - AHEAD] if step > AHEAD else [] for step in range(1, 9)
    ]
    found = [*itertools.chain(*told), *parallel.results()]
    assert not list(parallel.results())
    net = make(chain, cuda, seed=3)
    sgd, rng = SGD(net.params, lr=0.05), np.random.default_rng(4)
    for step, one in enumerate(found, 1):
        assert (one.step, one.loss) == (step, net.train_step(*data(rng), sgd))
        np.testing.assert_array_equal(one.rank, net.last_rank)


RUN = """
import sys
import convnet
from convnet.training.trainer import Trainer

step = Trainer._step
def told(self, batch):
    print("step", file=sys.stderr, flush=True)
    step(self, batch)

Trainer._step = told
convnet.train(sys.argv[1], device="cuda", run_dir=sys.argv[2], quiet=True)
"""
WAITS = re.compile(r"vgpu: cu(Stream|Event|Ctx)Synchronize|vgpu: cuMemcpy(DtoH|HtoD|DtoD)?(_v2)?$")


def test_a_step_waits_for_nothing(virtual_cuda, tmp_path):
    """Between two log steps the host waits for nothing that the device might still be at. Of the
    virtual GPU there is a log of all calls; here it is done with everything at once."""
    changes = {"epochs": 1, "log_steps": 100, "checkpoint_steps": 0}
    path = write_config(tmp_path / "run.toml", write_data(tmp_path / "data"), train=changes)
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, path, tmp_path / "run"],
        env=environment(VGPU_LOG="1", VGPU_STREAMS="eager"),
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    _, *steps = re.split(r"(?m)^step$", done.stderr)
    assert len(steps) == 10
    waits = [len([line for line in step.splitlines() if WAITS.match(line)]) for step in steps]
    assert "vgpu: cuGraphLaunch" in steps[5].splitlines()
    assert waits[2:-1] == [0] * 7
    assert waits[-1] > 0  # the end of the epoch
