"""Data parallelism, as far as one process shows it: shares, buckets, loaders."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from as_one_process import assert_close
from nets import chain, data, make, shared, two_losses
from tiny import config, write_data

import convnet
from convnet.config import AugmentConfig
from convnet.data.loader import Loader
from convnet.optim.sgd import SGD
from convnet.parallel import ranks as ranks_module
from convnet.parallel.ranks import Ranks
from convnet.training.data_parallel import Parallel


class Pretend(Ranks):
    """A rank of several that are played one after the other: its sums are kept for the others."""

    def __init__(self, rank, size, kept):
        self.rank, self.size, self.kept = rank, size, kept
        self.calls = 0

    def start_sum(self, flat):
        if len(self.kept) == self.calls:
            self.kept.append(np.zeros(flat.shape, np.float64))
        self.kept[self.calls] += flat
        flat[...] = self.kept[self.calls]
        self.calls += 1
        return lambda: True


@pytest.mark.parametrize("graph", [chain, shared, two_losses])
@pytest.mark.parametrize("device", ["cpu", "cpu:0,cpu:1"])
@pytest.mark.parametrize("bucket", [1, 500, 1 << 30])
def test_the_shares_add_up_to_the_whole_step(graph, device, bucket, rng):
    """Three ranks with 2, 3 and 3 of 8 cases; the last to come has the sums of all."""
    x, labels = data(rng, 8)
    whole = make(graph, "cpu", seed=3)
    expected = whole.train_step(x, labels, SGD(whole.params))
    kept, losses = [], []
    for rank in range(3):
        net = make(graph, device, seed=3)
        ranks = Pretend(rank, 3, kept)
        first, last = ranks.share(8)
        parallel = Parallel(net, ranks, bucket)
        parallel.train_step(x[first:last], labels[first:last], SGD(net.params), 8)
        losses += [result.loss for result in parallel.results()]
        sent = [param for held in parallel._buckets for param in held.params]
        assert sorted(param.name for param in sent) == sorted(p.name for p in net.params)
    assert sum(losses) == pytest.approx(expected, rel=1e-6)
    assert (len(kept) == 1) == (bucket == 1 << 30)
    assert_close(net.state(), whole.state())


def test_layers_that_are_frozen_later_are_sent_no_more(rng):
    x, labels = data(rng, 8)
    nets = [make(chain, "cpu", seed=3), make(chain, "cpu:0,cpu:1", seed=3)]
    sgds = [SGD(net.params) for net in nets]
    parallel = Parallel(nets[1], Pretend(0, 1, []), bucket=500)
    parallel.among.size = 2
    parallel.among.share = lambda count: (0, count)
    parallel.among.start_sum = lambda flat: lambda: True
    nets[1].gradient_ready = parallel._ready
    for frozen in ((), ("conv1", "conv2"), ("conv3", "fc5"), ()):
        for net in nets:
            for node in net.nodes:
                for param in node.layer.params:
                    param.lr_mult = float(node.name not in frozen)
        nets[0].train_step(x, labels, sgds[0])
        parallel.train_step(x, labels, sgds[1], 8)
        sent = {param.name for held in parallel._buckets for param in held.params}
        assert sent == {param.name for param in nets[1].params if param.lr_mult}
        assert_close(nets[1].state(), nets[0].state())


def test_gradients_are_sent_while_backward_runs(rng):
    net, (x, labels) = make(chain, "cpu"), data(rng)
    net.gradients(x, labels)
    told = []
    first = net.params[0].grad_memory()
    first.fill(-7.0)
    net.gradient_ready = lambda param: told.append((param.name, bool((first == -7.0).all())))
    net.gradients(x, labels)
    assert [name for name, _ in told][:2] == ["fc6.w", "fc6.b"]
    assert [name for name, _ in told][-2:] == ["conv1.w", "conv1.b"]
    assert dict(told)["conv2.w"]  # told before the gradient of conv1 was there
    assert len(told) == len(net.params)


def test_loaders_share_a_batch(tmp_path):
    write_data(tmp_path)
    cfg = convnet.load_config(config(tmp_path))
    train, _ = convnet.data.open_data(cfg.data)
    augment = AugmentConfig(pad=1, crop=(8, 8), mirror=True)

    def batches(share=None):
        return list(Loader(train, 15, 3, augment, None, train=True, share=share).epoch(1))

    class Rank(Ranks):
        size = 4

    parts = []
    for rank in range(4):
        ranks = Rank()
        ranks.rank = rank
        parts.append(batches(ranks.share))
    for whole, *shares in zip(batches(), *parts, strict=True):
        assert [len(part) for part in shares] == [3, 4, 4, 4]
        for name in ("images", "labels", "offsets", "mirror", "indices"):
            joined = np.concatenate([getattr(part, name) for part in shares])
            np.testing.assert_array_equal(joined, getattr(whole, name))


def test_alone_without_mpiexec():
    ranks = ranks_module.ranks()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.share(7) == (0, 7)
    assert ranks.total([1, 2]) == [1.0, 2.0]


def test_several_processes_without_mpi4py(monkeypatch, tmp_path):
    monkeypatch.setenv("PMI_SIZE", "3")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    cfg = config(write_data(tmp_path))
    with pytest.raises(ValueError, match=r"3 processes of mpiexec: mpi4py is not .*kernels\[mpi\]"):
        convnet.train(cfg, run_dir=tmp_path / "run")
