"""The programs of a net: one for each kind of pass and shape of batch, over one block of memory."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convnet import ops
from convnet.backend import Array
from convnet.layers import graph
from convnet.layers.layer import Layer, Parameter
from convnet.nn import opaque
from convnet.nn.cuda_graph import GraphError, Streams
from convnet.nn.eager import Forward, Passes
from convnet.nn.in_float32 import in_float32, is_opaque
from convnet.nn.program import Program
from convnet.nn.rewrite import rewrite
from convnet.nn.run import Runnable
from convnet.nn.structure import Structure
from convnet.nn.trace import Call, Tensor, Trace
from convnet.optim.sgd import SGD

KEPT = 8  # programs of a net


class GraphWarning(UserWarning):
    """A program could not be captured as a CUDA graph; the message says why."""


@dataclass
class Traced:
    """A pass of a net as a program.

    Attributes:
        program: rewritten.
        x, labels: what it is given.
        losses: (coeff, loss [N]) of each loss; rank: of the labels, where a loss classifies.
        outputs: of nodes that were asked for.
        kept: parameters whose gradients it leaves in `Parameter.grad`; None if it keeps none.
    """

    trace: Trace
    program: Program
    x: Tensor
    labels: Tensor
    losses: list[tuple[float, Tensor]] = field(default_factory=list)
    rank: Tensor | None = None
    outputs: dict[str, Tensor] = field(default_factory=dict)
    kept: list[Parameter] | None = None


class Programs:
    """Traces, keeps and runs the passes of a net.

    Attributes:
        graph: on GPUs: "auto", programs run as CUDA graphs where they can be captured; "off", call
            by call; "force", a program that cannot be captured is an error.
        warn: told why programs run call by call after all; gives a `GraphWarning` by default.
    """

    def __init__(self, net: Structure) -> None:
        self.net = net
        self._kept: OrderedDict[Any, tuple[Traced, Runnable]] = OrderedDict()
        self._blocks: list[Array] = []
        self._streams: Streams | None = None
        self._multipliers: tuple[tuple[float, float], ...] = ()
        self._multipliers_at = -1  # how many had been set when they were read
        self.graph = "auto"
        self.warn: Callable[[str], None] = lambda text: warnings.warn(text, GraphWarning, 5)

    def describe(self) -> str:
        """One line: how steps run."""
        if self.graph == "off" or not self.net.trace:
            return "operation by operation"
        cuda = self.net.backend.name == "cuda"
        return f"a program for each batch size, run {'as CUDA graphs' if cuda else 'in C++'}"

    def timed(self, sgd: SGD) -> list[tuple[Call, float]]:
        """Runs the last training step once more, call by call; how long each took, in seconds."""
        for key in reversed(self._kept):
            if key[0][0] == "train" and key[0][1] == id(sgd):
                return self._kept[key][1].timed()
        raise RuntimeError("timed: no training step has been run with this optimiser")

    # ---- the passes -----------------------------------------------------------------------------

    def train(self, x: Array, labels: Array, sgd: SGD) -> Forward:
        """A step with its update; the state of the step has been written."""
        key = "train", id(sgd), tuple(map(id, sgd.params)), sgd.own_rates, self.net.keep_gradients
        return self._run(key, x, labels, lambda: self.trace_training(x.shape, sgd, x.dtype))

    def gradients(self, x: Array, labels: Array, scale: float | None) -> Forward:
        """Losses, and the gradients of all parameters in `Parameter.grad`."""
        key = "gradients", scale, self.net.gradient_ready
        return self._run(key, x, labels, lambda: self.trace_gradients(x.shape, scale, x.dtype))

    def losses(self, x: Array, labels: Array, train: bool) -> Forward:
        """Losses and ranks, in training or in test mode; no gradients."""
        key = "losses", train
        return self._run(key, x, labels, lambda: self.trace_losses(x.shape, train, x.dtype))

    def forward(self, x: Array, names: Sequence[str]) -> Forward:
        """The outputs of some nodes in test mode."""
        key = "forward", tuple(names)
        return self._run(key, x, None, lambda: self.trace_forward(x.shape, names, x.dtype))

    # ---- tracing --------------------------------------------------------------------------------

    def trace_training(self, x_shape: Sequence[int], sgd: SGD, dtype: Any = None) -> Traced:
        """A training step with its update. `dtype`: of x, by default that of activations."""
        traced = self._begin(x_shape, dtype)
        if self.net.keep_gradients:
            traced.kept = []
        self._trace_passes(traced, None)
        with traced.trace.at("update"):
            self._share_aborts(traced.trace)
            try:
                sgd.update(self.net.step_state)
            finally:
                for param in self.net.params:
                    param.grad = None
        return self._end(traced)

    def trace_gradients(
        self, x_shape: Sequence[int], scale: float | None = None, dtype: Any = None
    ) -> Traced:
        """A training step up to its gradients."""
        traced = self._begin(x_shape, dtype)
        traced.kept = []
        self._trace_passes(traced, scale)
        for param in self.net.params:
            param.grad = None
        return self._end(traced)

    def trace_losses(self, x_shape: Sequence[int], train: bool, dtype: Any = None) -> Traced:
        """A forward pass with its losses."""
        traced = self._begin(x_shape, dtype)
        forward = self._passes(traced).forward(traced.x, train, traced.labels, gradient=False)
        traced.losses, traced.rank = forward.losses, forward.rank
        return self._end(traced)

    def trace_forward(
        self, x_shape: Sequence[int], names: Sequence[str], dtype: Any = None
    ) -> Traced:
        """A forward pass in test mode up to some nodes."""
        traced = self._begin(x_shape, dtype)
        forward = self._passes(traced, self.net.needed_for(names)).forward(traced.x, False)
        traced.outputs = {name: forward.values[name] for name in names}
        return self._end(traced)

    def _begin(self, x_shape: Sequence[int], dtype: Any) -> Traced:
        trace = Trace(self.net.backends)
        dtype = self.net.stored if dtype is None else dtype
        x = trace.input(tuple(x_shape), dtype, self.net.backend)
        labels = trace.input((x_shape[0],), np.int32, self.net.backend)
        return Traced(trace, Program([], []), x, labels)

    def _passes(self, traced: Traced, nodes: Sequence[graph.Node] | None = None) -> Passes:
        def stand_in(layer: Layer) -> Any:
            stand = opaque.Opaque(layer) if is_opaque(layer) else layer
            return in_float32(layer, stand, self.net.stored)

        trace = traced.trace

        def at(node: graph.Node) -> Any:
            return trace.at(node.name)

        return Passes(nodes or self.net.step_nodes, at, stand_in, stored=self.net.stored)

    def _trace_passes(self, traced: Traced, scale: float | None) -> None:
        """Forward and backward; leaves the gradients in `Parameter.grad`, as tensors."""

        def complete(param: Parameter, grad: Tensor) -> None:
            param.grad = grad
            if traced.kept is None:
                return
            held = traced.trace.held(param.grad_memory(), grad.traced_on)
            ops.copy(held, grad)
            traced.kept.append(param)
            if self.net.gradient_ready is not None:
                opaque.tell(self.net.gradient_ready, param, held)

        passes = self._passes(traced)
        forward = passes.forward(traced.x, True, traced.labels, scale)
        traced.losses, traced.rank = forward.losses, forward.rank
        passes.backward(forward, complete)

    def _share_aborts(self, trace: Trace) -> None:
        if self.net.partition is not None:
            self.net.partition.links.share_aborts(
                lambda array, device: trace.held(array, trace.on(device))
            )

    def _end(self, traced: Traced) -> Traced:
        outputs = [*traced.outputs.values(), *(loss for _, loss in traced.losses)]
        outputs += [] if traced.rank is None else [traced.rank]
        traced.program = Program(traced.trace.calls, outputs)
        rewrite(traced.program)
        return traced

    # ---- running --------------------------------------------------------------------------------

    def _run(
        self,
        what: Any,
        x: Array,
        labels: Array | None,
        trace: Callable[[], Traced],
    ) -> Forward:
        key = what, x.shape, x.dtype, self._settings()
        if key not in self._kept:
            traced = trace()
            self._kept[key] = traced, self._runnable(traced)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        traced, runnable = self._kept[key]
        self._hand_out_gradients(traced)
        runnable.fill({traced.x: x} if labels is None else {traced.x: x, traced.labels: labels})
        self.run_one(runnable)
        return Forward(
            {name: runnable.array(tensor) for name, tensor in traced.outputs.items()},
            losses=[(coeff, runnable.array(loss)) for coeff, loss in traced.losses],
            rank=None if traced.rank is None else runnable.array(traced.rank),
        )

    def _settings(self) -> tuple[Any, ...]:
        """The rest of the key of a program, besides the pass and the shape of the batch."""
        net, changes = self.net, self.net.changes
        if self._multipliers_at != changes.multipliers:
            self._multipliers = tuple((p.lr_mult, p.decay_mult) for p in net.params)
            self._multipliers_at = changes.multipliers
        return net.first_sample, net.backend.threads, changes.settings, self._multipliers

    def run_one(self, runnable: Runnable) -> None:
        """Runs a program, on GPUs as graphs where it can be captured."""
        try:
            runnable.run(self._graph_streams())
        except GraphError as error:
            if self.graph == "force":
                raise GraphError(f"step.graph=force: {error}") from error
            self.graph = "off"
            self.warn(f"programs run call by call: {error}")
            runnable.run()

    def _graph_streams(self) -> Streams | None:
        """On a GPU, the streams that graphs are captured from, unless there are to be none."""
        if self.graph == "off" or self.net.backend.name != "cuda":
            return None
        if self._streams is None:
            self._streams = Streams(self.net.backends)
        return self._streams

    def _hand_out_gradients(self, traced: Traced) -> None:
        """Sets `Parameter.grad` to what a run is about to write, to zeros where that is nothing, or
        to None where none are kept."""
        for param in self.net.params:
            param.grad = None if traced.kept is None else param.grad_memory()
        if traced.kept is not None:
            for param in self.net.params:
                if param not in traced.kept:
                    param.zero_grad()

    def _runnable(self, traced: Traced) -> Runnable:
        """Gives a program the block, which all share; it is made anew where it is too small."""
        new = Runnable(traced.program, traced.trace, self._blocks)
        sizes = [len(block) for block in self._blocks] or [0] * len(new.sizes)
        if any(size > held for size, held in zip(new.sizes, sizes, strict=True)):
            for _, runnable in self._kept.values():
                runnable.unbind()
            self._blocks.clear()
            devices = traced.trace.devices
            self._blocks += [
                device.real.empty((max(size, held),), np.uint8)
                for device, size, held in zip(devices, new.sizes, sizes, strict=True)
            ]
        return new
