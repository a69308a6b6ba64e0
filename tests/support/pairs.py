"""A net run as programs beside the same net run layer by layer: they agree to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from nets import BATCH, IN_SHAPE

from convnet.backend import Backend
from convnet.nn.eager import Passes
from convnet.nn.net import Net
from convnet.optim.sgd import SGD


class Pair:
    """The same net twice: one runs programs, the other its layers one by one."""

    def __init__(self, graph: Any, device: Any, **options: Any) -> None:
        where = {"devices": device} if isinstance(device, list) else {"device": device}
        self.nets = [
            Net(graph(), IN_SHAPE, seed=3, trace=trace, **where, **options)
            for trace in (True, False)
        ]
        self.sgds = [SGD(net.params, lr=0.05) for net in self.nets]

    def step(self, x: Any, labels: Any, lr: float = 0.05) -> None:
        losses = []
        for net, sgd in zip(self.nets, self.sgds, strict=True):
            sgd.lr = lr
            losses.append(net.train_step(x, labels, sgd))
        assert losses[0] == losses[1]
        np.testing.assert_array_equal(self.nets[0].last_rank, self.nets[1].last_rank)

    def same(self) -> None:
        states = [net.state() for net in self.nets]
        for name, array in states[0].items():
            np.testing.assert_array_equal(array.view(np.uint32), states[1][name].view(np.uint32))

    def again(self, monkeypatch: Any, *batch: Any, lr: float = 0.05) -> None:
        """A step that runs no layer, traces nothing and takes no memory."""
        net, sgd = self.nets[0], self.sgds[0]

        def none(*_: Any, **__: Any) -> Any:
            raise AssertionError("a step that was bound did more than run")

        sgd.lr = self.sgds[1].lr = lr
        with monkeypatch.context() as patch:
            for name in ("forward", "backward"):
                patch.setattr(Passes, name, none)
            for name in ("empty", "zeros", "workspace"):
                patch.setattr(Backend, name, none)
            patch.setattr(SGD, "update", none)
            loss = net.train_step(*batch, sgd)
        assert loss == self.nets[1].train_step(*batch, self.sgds[1])


def calls_of(
    net: Net, batch: int = BATCH, sgd: SGD | None = None
) -> list[tuple[str, tuple[str, ...]]]:
    traced = net.programs.trace_training((batch, *IN_SHAPE), sgd or SGD(net.params))
    return [(call.op.name, call.nodes) for call in traced.program.calls]


def freeze(net: Net, names: Any) -> None:
    for node in net.nodes:
        if node.name in names:
            for param in node.layer.params:
                param.lr_mult = 0.0
