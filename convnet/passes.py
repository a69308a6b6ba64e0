"""The passes of a net through its nodes: forward, and backward from its losses."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convnet import backend as backends
from convnet import fusion, graph, ops
from convnet.changes import changed
from convnet.divergence import Watch
from convnet.gather import Arriving, Part, arrived
from convnet.graph import INPUT, Node, input_names
from convnet.layer import Array, Parameter, flag
from convnet.layers.loss import UNRANKED, Loss
from convnet.layers.weighted import Weighted
from convnet.partition import Partition
from convnet.stepresults import mean_loss


class Passes:
    """What of `Net` runs its nodes, on one device or on several.

    Attributes:
        partition: of the net over devices, or None.
        gradient_ready: told of each parameter whose gradient is complete, in the backward pass.
        watch: sees all that is computed, or None; see `convnet.divergence`.
    """

    backend: backends.Backend
    partition: Partition | None
    gradient_ready: Callable[[Parameter], None] | None
    watch: Watch | None = None
    params: list[Parameter]
    _nodes: Sequence[Node]  # those that run
    _steps: Sequence[Node]  # those of them that a training step needs
    _fuse: bool
    _fuse_update: bool
    _updated: list[Parameter]  # in the backward pass of the last step
    _plan: fusion.Plan
    _frozen: tuple[bool, ...] | None  # which of `params` were when the plan was made
    _values: dict[str, Array]  # outputs of nodes in the last pass
    _case_losses: list[tuple[float, Array]]  # (coeff, loss [N]) of each loss
    _sums: dict[str, Array]  # gradients of nodes with several readers
    _rank: Array | None

    def plan(self) -> fusion.Plan:
        """How the net runs; made anew when parameters have been frozen or freed since."""
        frozen = tuple(param.lr_mult == 0.0 for param in self.params)
        if frozen != self._frozen:
            self._frozen, self._plan = frozen, fusion.plan(self._nodes, self._fuse)
            if self.partition is not None:
                self.partition.planned(self._plan.learns)
        return self._plan

    @property
    def fuse_update(self) -> bool:
        """Whether training steps update the weights of dense layers where their gradients are
        computed, without keeping these, as far as that can be: see `convnet.fusedupdate`. Never
        with fuse=False. It changes no result."""
        return self._fuse and self._fuse_update

    @fuse_update.setter
    def fuse_update(self, value: bool) -> None:
        changed()
        self._fuse_update = flag("fuse_update", value)

    @property
    def left(self) -> tuple[Any, ...]:
        """What the last pass has left behind: the outputs of nodes, losses and ranks, and which
        gradients it has used up."""
        return self._values, self._case_losses, self._rank, self._updated

    @left.setter
    def left(self, left: tuple[Any, ...]) -> None:
        self._values, self._case_losses, self._rank, self._updated = left
        for param in self._updated:
            param.use_up_gradient()

    @property
    def last_rank(self) -> np.ndarray:
        """Rank of each label in the last step or evaluation, int32 [N]: 0 if it scored highest."""
        if self._rank is None:
            raise RuntimeError("last_rank: nothing has been trained or evaluated yet")
        return np.array(self.backend.to_host(self._rank))

    def _mean_loss(self) -> float:
        return mean_loss([(coeff, self.backend.to_host(loss)) for coeff, loss in self._case_losses])

    def running(self, device: backends.Backend | None = None) -> list[Node]:
        """The nodes that a training step runs: all, or those on one of the devices."""
        of = {} if self.partition is None else self.partition.device_of
        return [node for node in self._steps if device in (None, of.get(node.name, device))]

    def _forward(
        self,
        x: Array,
        train: bool,
        labels: Array | None = None,
        scale: float | None = None,
        gradient: bool = True,
    ) -> None:
        """Runs all nodes; the losses compare with `labels`."""
        self.plan()
        values = self._values = {INPUT: x}
        self._case_losses, self._rank = [], None
        if self.watch:
            self.watch.see(INPUT, x)
        for node in self._steps:
            layer = node.layer
            with self._at(node):
                inputs = self._inputs(node)
                if isinstance(layer, Loss):
                    each = layer.coeff * (1.0 / len(x) if scale is None else scale)
                    loss, rank = layer.loss(inputs[0], labels, each, gradient)
                    self._rank = self._rank if rank is None else rank
                    self._case_losses.append((layer.coeff, loss))
                elif isinstance(inputs[0], Arriving):
                    assert isinstance(layer, Weighted)
                    x = values[input_names(node)[0]] = inputs[0].array
                    values[node.name] = layer.fprop_by_slices(x, inputs[0].slices(), train)
                else:
                    values[node.name] = layer.fprop(
                        inputs if layer.several_inputs else inputs[0], train
                    )
            if self.watch:
                output = loss if isinstance(layer, Loss) else values[node.name]
                held = None if isinstance(output, Arriving) else output
                self.watch.see(node.name, held, layer.params)
        if self._rank is None and self._case_losses:
            self._rank = np.full(len(x), UNRANKED, np.int32)
        if self.partition is not None and not gradient:
            self.partition.links.verify()

    def _at(self, node: Node) -> contextlib.AbstractContextManager[Any]:
        """Within the block, the current device is that of the node."""
        if self.partition is None:
            return contextlib.nullcontext()
        return self.partition.device_of[node.name].active()

    def _inputs(self, node: Node) -> list[Array]:
        """The inputs of a node, once they have arrived; for a layer that can compute what has
        arrived while the rest travels, as they are."""
        names = input_names(node)
        first = self._values[names[0]]
        if isinstance(first, Arriving) and first.in_slices and isinstance(node.layer, Weighted):
            return [first]
        for name in names:
            self._values[name] = arrived(self._values[name])
        return [self._values[name] for name in names]

    def _backward(self) -> None:
        """Runs the bprop of all nodes that learn, in reverse."""
        gradients: dict[str, Array] = {}
        arriving: dict[str, list[Part]] = {}  # parts of gradients, from another device
        late: list[Node] = []  # whose parameters' gradients are put off until dx is on its way
        users = Counter(id(p) for node in self._steps for p in node.layer.params)
        for node in reversed(self._steps):
            if node.name not in self._plan.learns:
                continue
            if node.name in arriving:
                self._finish_late(late, users)
            with self._at(node):
                dy = gradients.pop(node.name, None)
                for part in arriving.pop(node.name, ()):
                    dy = part.add_to(dy)
                dx = node.layer.bprop(dy)
                late.append(node)
                if self.partition is None:
                    self._finish_late(late, users)
                parts = dx if node.layer.several_inputs else [dx]
                if self.watch:
                    own_parts = [part for part in parts if not isinstance(part, Part | None)]
                    self.watch.see_gradients(node.name, own_parts)
                own = node.name in self._plan.own_dx
                for name, part in zip(input_names(node), parts, strict=True):
                    if isinstance(part, Part):
                        arriving.setdefault(name, []).append(part)
                    elif name in self._plan.learns:
                        self._add_gradient(gradients, name, part, own)
        self._finish_late(late, users)

    def _finish_late(self, late: list[Node], users: Counter[int]) -> None:
        """Computes what gradients of parameters are due, and tells of those that are complete and
        not frozen. `users` counts the nodes that have yet to add to each parameter's gradient."""
        for node in late:
            with self._at(node):
                node.layer.finish_bprop()
            if self.watch:
                learned = [param.grad for param in node.layer.params if param.lr_mult != 0.0]
                self.watch.see_gradients(node.name, learned)
            for param in node.layer.params:
                users[id(param)] -= 1
                complete = not users[id(param)] and param.lr_mult != 0.0
                if self.gradient_ready is not None and complete:
                    self.gradient_ready(param)
        late.clear()

    def _add_gradient(self, gradients: dict[str, Array], name: str, part: Array, own: bool) -> None:
        """Adds one reader's gradient to those of a node's output."""
        if name in gradients:
            ops.accumulate(gradients[name], part)
            return
        if not own and len(self._readers[name]) > 1:  # the sum must not change what others hold
            held = self._sums.get(name)
            if held is None or held.shape[1:] != part.shape[1:] or len(held) < len(part):
                changed()
                held = self._sums[name] = backends.of(part).empty(part.shape)
            part = ops.copy(held[: len(part)], part)
        gradients[name] = part

    @functools.cached_property
    def _readers(self) -> dict[str, list[Node]]:
        return graph.consumers(self._nodes)
